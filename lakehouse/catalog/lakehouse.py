"""The lake as both doors see it: opened from the settings, with one service per kind of object."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from lakehouse.catalog.access.api_keys import ApiKeys
from lakehouse.catalog.activity import Activity
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.finalization import Finalization
from lakehouse.catalog.commits.metadata_tables import MetadataTables
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import open_database
from lakehouse.catalog.iceberg.catalogs import open_catalog
from lakehouse.catalog.iceberg.file_cache import FileCache
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import TopicTables
from lakehouse.catalog.maintenance.worker import MaintenanceWorker
from lakehouse.catalog.notifications import Notifications
from lakehouse.catalog.quarantine import Quarantine
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.engine import MatchingSequence, QueryEngine
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.reading.topic_reader import TopicReader
from lakehouse.catalog.rebuild.rebuild import refuse_lost_database
from lakehouse.catalog.recovery import Recovery
from lakehouse.catalog.sequences import Sequences
from lakehouse.catalog.sessions import Sessions
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.system_tables import SystemTables
from lakehouse.catalog.topics import Topics, UploadResources
from lakehouse.catalog.writing.encoder_pool import EncoderPool
from lakehouse.catalog.writing.memory_budget import UploadBudget
from lakehouse.catalog.writing.uploads import UploadLimits


class Lakehouse:
    """One process's view of the lake. Any number of processes may share a database and a warehouse.

    Attributes:
        sequences, sessions, topics, notifications: The objects of the Mosaico model.
        reader: Rows of topics, by time window.
        deletion: Removes what the three services above are asked to, and what retention policies are.
        system_tables: Tables `mosaico.*` of the system's own records.
        queries: Sequences and topics by name, metadata and content.
        recovery: Sessions that somebody began and did not end.
        quarantine: Sessions that are kept from being committed.
        upload_budget: Memory of all uploads of this process.
        activity: What this process has done so far.
        api_keys: Who may call a gateway that asks for keys.
        maintenance: Keeps commits cheap. A server calls `maintenance.start()`, a process that ends after its commits
            `maintenance.run_pending()`.
    """

    def __init__(self, settings: Settings, database: Database, warehouse: Warehouse) -> None:
        self.settings = settings
        self.database = database
        self.warehouse = warehouse
        copies = None if warehouse.is_local else FileCache(settings.metadata_cache_path, settings.metadata_cache_size)
        self.table_files = TableFiles(warehouse, copies, open_catalog(settings, warehouse, database))
        self.activity = Activity()
        self.committer = Committer(database, self.table_files, activity=self.activity)
        self.maintenance = MaintenanceWorker(database, self.table_files, self.committer, settings, self.activity)
        self.committer.on_commit = self.maintenance.notify
        self.tables = TopicTables(database, self.table_files)
        self.encoders = EncoderPool(settings.concurrent_writes)
        metadata_tables = MetadataTables(database, self.table_files)
        self.system_tables = SystemTables(database, self.table_files, self.committer)
        self.deletion = deletion = Deletion(database, warehouse, self.committer, metadata_tables)
        limits = UploadLimits(row_group=settings.encoding_buffer_size, file=settings.max_chunk_size)
        self.upload_budget = UploadBudget(settings.upload_memory_budget)
        upload_resources = UploadResources(warehouse, limits, self.upload_budget, self.encoders)
        finalization = Finalization(database, self.committer, metadata_tables, deletion)
        self.sequences = Sequences(database, deletion)
        self.sessions = Sessions(database, finalization, deletion)
        self.recovery = Recovery(database, finalization, deletion)
        self.quarantine = Quarantine(database, finalization, deletion)
        self.topics = Topics(database, self.tables, upload_resources, deletion)
        self.notifications = Notifications(database, self.committer, metadata_tables)
        self.api_keys = ApiKeys(database)
        skip_index = SkipIndex(self.table_files)
        self.reader = TopicReader(
            database,
            warehouse,
            skip_index,
            target_batch_bytes=settings.target_message_size,
            max_batch_rows=settings.max_batch_size,
        )
        self.queries = QueryEngine(
            database,
            ContentSearch(
                database,
                warehouse,
                skip_index,
                concurrency=settings.max_concurrent_chunk_queries,
                activity=self.activity,
                memory_bytes=settings.query_memory,
            ),
        )

    @classmethod
    def open(cls, settings: Settings, *, may_be_lost: bool = False) -> Self:
        """Open the lake, creating or upgrading its database where needed.

        Args:
            settings: Where it is.
            may_be_lost: Whether the database may be empty beside a warehouse that is not.

        Raises:
            ConfigurationError: If a setting is wrong, the database is newer than this version, or it was lost.
            StorageError: If database or warehouse cannot be reached.
        """
        database = open_database(settings)
        try:
            lake = cls(settings, database, Warehouse.open(settings))
            if not may_be_lost:
                try:
                    refuse_lost_database(database, lake.table_files)
                except BaseException:
                    lake.close()
                    raise
            return lake
        except BaseException:
            database.close()
            raise

    def query(self, request: Mapping[str, Any], explanation: Explanation | None = None) -> list[MatchingSequence]:
        """Find sequences and topics; see `QueryEngine.query`."""
        return self.queries.query(request, explanation)

    def close(self) -> None:
        """Release threads and connections; running uploads must have ended."""
        self.maintenance.stop()
        self.committer.close()
        self.encoders.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
