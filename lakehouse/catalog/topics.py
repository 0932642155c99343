"""Topics: one stream of one ontology type, filled by exactly one upload."""

import logging
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog import crash_points
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.metadata_index import index_topic_metadata
from lakehouse.catalog.control_plane.rows import find_sequence, find_topic, schema_digest, select_sessions, to_json
from lakehouse.catalog.control_plane.schema import data_files, sessions, topics
from lakehouse.catalog.errors import (
    AlreadyExistsError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    StateError,
    StorageError,
    UnsupportedSchemaError,
    quoted,
)
from lakehouse.catalog.iceberg.tables import TopicTable, TopicTables
from lakehouse.catalog.locators import MAX_TAG_LENGTH, TopicLocator, check_metadata_keys, check_text, parse_uuid
from lakehouse.catalog.records import SerializationFormat, SessionState, TopicRecord, TopicState
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.writing.encoder_pool import EncoderPool
from lakehouse.catalog.writing.memory_budget import UploadBudget
from lakehouse.catalog.writing.uploads import TopicUpload, UploadLimits, UploadResult, UploadTarget
from lakehouse.ontology.arrow_iceberg import StoragePlan, UnsupportedTypeError, parquet_schema, plan_storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UploadResources:
    """What the uploads of a process share."""

    warehouse: Warehouse
    limits: UploadLimits
    budget: UploadBudget
    encoders: EncoderPool

    def writer(self, topic: TopicRecord, plan: StoragePlan, table: TopicTable) -> TopicUpload:
        target = UploadTarget(
            topic_uuid=topic.uuid,
            sequence=topic.locator.sequence,
            session=str(topic.session_locator),
            table_location=table.location,
            plan=plan,
            parquet_schema=parquet_schema(table.schema, plan),
        )
        return TopicUpload(target, self.limits, self.warehouse, self.budget, self.encoders)


class Topics:
    """Creates, finds, fills and deletes topics."""

    def __init__(
        self, database: Database, tables: TopicTables, upload_resources: UploadResources, deletion: Deletion
    ) -> None:
        self._database = database
        self._tables = tables
        self._upload_resources = upload_resources
        self._deletion = deletion

    def create(
        self,
        session_uuid: str,
        locator: TopicLocator,
        serialization_format: str,
        ontology_tag: str,
        user_metadata: dict[str, Any] | None = None,
    ) -> str:
        """Add an empty topic to an open session.

        Returns:
            The UUID that entitles to upload its rows.

        Raises:
            NotFoundError: If there is no such session.
            PermissionDeniedError: If the locator names another sequence than the session's.
            StateError: If the session is finalized.
            AlreadyExistsError: If any session of the sequence has a topic of that path.
            BadRequestError: If the format, the tag or a metadata key is not allowed.
        """
        session_uuid = parse_uuid(session_uuid)
        check_text("ontology tag", ontology_tag, max_length=MAX_TAG_LENGTH)
        check_metadata_keys(user_metadata or {})
        if serialization_format not in tuple(SerializationFormat):
            raise BadRequestError(
                f"{quoted(serialization_format)} is not a serialization format; "
                f"allowed: {', '.join(SerializationFormat)}"
            )
        topic_uuid = str(uuid.uuid4())
        with self._database.transaction() as connection:
            # The locks order this against a deletion of the sequence and a finalize of the session, and are taken in
            # the order in which a deletion takes them.
            find_sequence(connection, locator.sequence, lock=True)
            query = select_sessions().where(sessions.c.uuid == session_uuid).with_for_update(of=sessions)
            session = connection.execute(query).one_or_none()
            if session is None:
                raise NotFoundError("session", session_uuid)
            if session.sequence_name != locator.sequence:
                raise PermissionDeniedError(f"the session belongs to another sequence than topic {quoted(locator)}")
            if session.state != SessionState.OPEN:
                raise StateError(f"session '{session.sequence_name}:{session.ulid}' is sealed: it is {session.state}")
            try:
                inserted = insert(topics).returning(topics.c.id)
                topic_id = connection.execute(
                    inserted.values(
                        sequence_id=session.sequence_id,
                        session_id=session.id,
                        uuid=topic_uuid,
                        path=locator.path,
                        ontology_tag=ontology_tag,
                        serialization_format=serialization_format,
                        user_metadata=to_json(user_metadata or {}),
                        state=TopicState.EMPTY,
                        created_at_ns=time.time_ns(),
                    )
                ).scalar_one()
            except IntegrityError:
                raise AlreadyExistsError("topic", locator) from None
            index_topic_metadata(connection, topic_id, user_metadata or {})
        return topic_uuid

    def get(self, locator: TopicLocator) -> TopicRecord:
        """The topic of that locator.

        Raises:
            NotFoundError: If there is none.
        """
        with self._database.snapshot() as connection:
            record = find_topic(connection, locator)
        if record is None:
            raise NotFoundError("topic", locator)
        return record

    def delete(self, locator: TopicLocator) -> None:
        """Delete the topic with its rows and notifications, whatever its state.

        Raises:
            NotFoundError: If there is none.
        """
        self._deletion.delete_topic(locator)

    def begin_upload(self, locator: TopicLocator, topic_uuid: str, schema: pa.Schema) -> "Upload":
        """Claim the topic for its one upload; of two callers exactly one wins.

        Args:
            locator: The topic.
            topic_uuid: What `create` returned.
            schema: The exact Arrow schema; every later read returns it again.

        Raises:
            NotFoundError: If there is no such topic.
            PermissionDeniedError: If the UUID is not the topic's.
            StateError: If an upload has begun or ended before, or the session is not open.
            UnsupportedSchemaError: If the schema lacks `timestamp_ns` or holds a type that cannot be stored losslessly.
        """
        topic_uuid = parse_uuid(topic_uuid)
        topic = self.get(locator)
        if topic.uuid != topic_uuid:
            raise PermissionDeniedError(f"the UUID is not that of topic {quoted(locator)}")
        _check_empty(topic)
        try:
            plan = plan_storage(schema)
        except UnsupportedTypeError as error:
            raise UnsupportedSchemaError(str(error)) from error
        table = self._claim(topic, plan)
        return Upload(self._database, topic, table, self._upload_resources.writer(topic, plan, table), self._tables)

    def _claim(self, topic: TopicRecord, plan: StoragePlan) -> TopicTable:
        arrow_schema = plan.arrow_schema.serialize().to_pybytes()
        while True:
            table = self._tables.ensure(topic.ontology_tag, topic.locator.path, plan)
            with self._database.transaction() as connection:
                if not self._tables.hold(connection, table):
                    continue  # an unused table was dropped between the two steps: make it again
                claimed = connection.execute(
                    update(topics)
                    .where(
                        topics.c.id == topic.id,
                        topics.c.state == TopicState.EMPTY,
                        topics.c.session_id.in_(
                            select(sessions.c.id).where(
                                sessions.c.id == topic.session_id, sessions.c.state == SessionState.OPEN
                            )
                        ),
                    )
                    .values(
                        state=TopicState.UPLOADING,
                        arrow_schema=arrow_schema,
                        arrow_schema_digest=schema_digest(arrow_schema),
                        table_identifier=table.identifier,
                    )
                )
                if claimed.rowcount == 1:
                    return table
            current = self.get(topic.locator)
            _check_empty(current)
            if current.uuid == topic.uuid:
                raise StateError(f"topic {quoted(topic.locator)} takes no upload: its session is not open any more")
            raise NotFoundError("topic", topic.locator)


def _check_empty(topic: TopicRecord) -> None:
    if topic.state is TopicState.UPLOADING:
        raise StateError(f"topic {quoted(topic.locator)} is already uploading")
    if topic.state is TopicState.FINALIZED:
        raise StateError(f"topic {quoted(topic.locator)} is already finalized: a topic receives one upload in its life")


class Upload:
    """The one upload of a topic. As a context manager it is aborted unless `finish` succeeded."""

    def __init__(
        self, database: Database, topic: TopicRecord, table: TopicTable, writer: TopicUpload, tables: TopicTables
    ) -> None:
        self.topic = topic
        self._database = database
        self._table = table
        self._writer = writer
        self._tables = tables
        self._ended = False

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they need not be sorted.

        Raises:
            InvalidDataError: If the batch breaks the announced schema or the Arrow format.
            StorageError: If the rows cannot be stored.
        """
        self._writer.write(batch)

    def finish(self) -> UploadResult:
        """Make all rows durable and the topic finalized. When this returns, `kill -9` loses nothing.

        Raises:
            NotFoundError: If the topic was deleted meanwhile; its rows are gone.
            StateError: If another engine dropped the table meanwhile: no session with these rows could be finalized.
            StorageError: If the rows cannot be stored.
        """
        result = self._writer.finish()
        self._check_table()
        try:
            self._record(result)
        except NotFoundError:
            raise
        except BaseException:
            # Whether the database has committed is unknown. If it has not, orphan cleanup finds the files.
            self._ended = True
            raise
        self._ended = True
        return result

    def abort(self) -> None:
        """Remove what was written. The topic stays uploading for ever: it can only be deleted."""
        if self._ended:
            return
        self._ended = True
        self._writer.abort()
        with self._database.transaction() as connection:
            connection.execute(
                update(topics)
                .where(topics.c.id == self.topic.id, topics.c.state == TopicState.UPLOADING)
                .values(table_identifier=None)
            )
        self._tables.drop_if_unused(self._table.identifier)

    def _check_table(self) -> None:
        # Outside the transaction, as a catalog may be asked over the network.
        try:
            if self._tables.is_where_it_was(self._table):
                return
        except StorageError as error:
            # The rows are safe, and finalizing asks again: no reason to throw them away.
            logger.warning("table %s could not be looked at: %s", self._table.identifier, error)
            return
        with self._database.snapshot() as connection:
            uploading = select(topics.c.table_identifier).where(
                topics.c.id == self.topic.id, topics.c.state == TopicState.UPLOADING
            )
            if connection.scalar(uploading) is None:
                raise NotFoundError("topic", self.topic.locator)  # its table went with it
        raise StateError(
            f"table {self._table.identifier} was dropped or made anew during the upload of topic "
            f"{quoted(self.topic.locator)}: delete the topic and upload it again"
        )

    def _record(self, result: UploadResult) -> None:
        crash_points.reach("topic-record:before")
        with self._database.transaction() as connection:
            # The topic first: its row lock orders this against a concurrent deletion.
            recorded = connection.execute(
                update(topics)
                # Without a table the upload was taken for broken off, and its files may have been purged.
                .where(
                    topics.c.id == self.topic.id,
                    topics.c.state == TopicState.UPLOADING,
                    topics.c.table_identifier.is_not(None),
                )
                .values(
                    state=TopicState.FINALIZED,
                    completed_at_ns=time.time_ns(),
                    row_count=result.row_count,
                    total_bytes=result.total_bytes,
                    chunk_count=len(result.entries),
                    start_ns=result.interval.start_ns if result.interval else None,
                    end_ns=result.interval.end_ns if result.interval else None,
                )
            )
            if recorded.rowcount != 1:
                raise NotFoundError("topic", self.topic.locator)
            if result.entries:
                connection.execute(
                    insert(data_files),
                    [
                        {"topic_id": self.topic.id, "ordinal": entry.ordinal, "entry": entry.to_bytes()}
                        for entry in result.entries
                    ],
                )
        crash_points.reach("topic-record:after")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.abort()
        except StorageError as failure:
            if error is None:
                raise
            # What broke the upload is what its client should hear. Orphan cleanup finds the files.
            logger.warning("the files of a broken upload could not be removed: %s", failure)
