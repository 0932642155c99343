"""Topic tables: one Iceberg table per topic path and ontology tag, shared by all sequences that have the topic.

A schema that a table cannot hold even after growing opens a sibling table (`..._v2`). Every step is safe when threads
and processes race: the catalog row of a name is inserted once, later changes swap a guarded pointer.
"""

import random
import time
from dataclasses import dataclass
from typing import Any

from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil, new_table_metadata
from pyiceberg.table.sorting import NullOrder, SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from sqlalchemy import Connection, exists, select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.orphan_marks import mark
from lakehouse.catalog.control_plane.schema import topics
from lakehouse.catalog.errors import CommitConflictError, NotFoundError, StorageError
from lakehouse.catalog.iceberg.column_history import COLUMNS_PROPERTY, uploaded_columns
from lakehouse.catalog.iceberg.identifiers import namespace_candidates, table_candidates
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError, changing
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.ontology.arrow_iceberg import StoragePlan, evolution, topic_table_schema
from lakehouse.ontology.evolution import Evolution, Verdict
from lakehouse.ontology.storage_names import RECORDED_AT_COLUMN, SEQUENCE_COLUMN, TIMESTAMP_COLUMN
from lakehouse.ontology.storage_types import walk

TAG_PROPERTY = "mosaico.ontology-tag"
TOPIC_PROPERTY = "mosaico.topic"
DAY_FIELD = "recorded_at_day"
FIRST_PARTITION_FIELD_ID = 1000
_ATTEMPTS = 50
_VERSIONS_PER_LOOKUP = 4

# For other engines that write to our tables; our own commits and maintenance do as much by themselves.
MAINTENANCE_PROPERTIES = {
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Rewritten files keep bounds for every leaf; engines stop at a hundred columns by default.
    "write.metadata.metrics.default": "truncate(16)",
    "write.metadata.metrics.max-inferred-column-defaults": "2000",
    "write.parquet.compression-codec": "zstd",
}


@dataclass(frozen=True)
class TopicTable:
    """One state of a topic table.

    Attributes:
        identifier: `namespace.table`.
        uuid: Tells the table from others that had its name before.
        location: Root URI of its files, without trailing slash.
        schema: Current Iceberg schema.
        spec: The partition spec our data files are written in.
    """

    identifier: str
    uuid: str
    location: str
    schema: Schema
    spec: PartitionSpec


class TopicTables:
    """Finds, creates, grows and drops topic tables."""

    def __init__(self, database: Database, files: TableFiles) -> None:
        self._database = database
        self._files = files

    def ensure(self, ontology_tag: str, topic_path: str, plan: StoragePlan) -> TopicTable:
        """The table that holds rows of `plan` for this topic; created or grown when needed.

        Raises:
            StorageError: If database or warehouse fail.
            CommitConflictError: If others kept changing the same table.
        """
        namespace = self._ensure_namespace(ontology_tag)
        for attempt in range(_ATTEMPTS):
            table = self._try_ensure(namespace, ontology_tag, topic_path, plan)
            if table is not None:
                return table
            time.sleep(random.uniform(0, 0.005 * (attempt + 1)))
        raise CommitConflictError("other writers kept changing the same table; try again later")

    def load(self, identifier: str) -> TopicTable:
        """The current state of a table.

        Raises:
            NotFoundError: If there is no such table.
            StorageError: If database or warehouse fail.
        """
        with self._database.snapshot() as connection:
            location = self._files.catalog.locations(connection, [identifier]).get(identifier)
        if location is None:
            raise NotFoundError("table", identifier)
        return _topic_table(identifier, self._files.document(location))

    def hold(self, connection: Connection, table: TopicTable) -> bool:
        """Whether this very table still exists; if so, it cannot be dropped before this transaction ends."""
        if not self._files.catalog.shares_transactions:
            return True  # we never drop there, and the transaction waits for no answer over the network
        location = self._files.catalog.hold(connection, table.identifier)
        return location is not None and self._files.document(location).fields["table-uuid"] == table.uuid

    def is_where_it_was(self, table: TopicTable) -> bool:
        """Whether this very table still exists, in the same place.

        Raises:
            ChangedTableError: If it does, and another engine has made it one that we do not write to.
            StorageError: If the catalog, the database or the warehouse fails.
        """
        with self._database.snapshot() as connection:
            location = self._files.catalog.locations(connection, [table.identifier]).get(table.identifier)
        if location is None:
            return False
        document = self._files.document(location)
        if document.fields["table-uuid"] != table.uuid or document.location != table.location:
            return False
        document.check_writable()
        return True

    def drop_if_unused(self, identifier: str) -> bool:
        """Drop a topic table that never held a row and has no topic. Its files are marked for orphan cleanup.

        Returns:
            Whether it was dropped.
        """
        with self._database.snapshot() as connection:
            location = self._files.catalog.locations(connection, [identifier]).get(identifier)
        if location is None:
            return False
        document = self._files.document(location)
        if not is_unfilled_topic_table(document):
            return False
        left_behind = [file.uri for file in self._files.warehouse.list_files(document.location)]
        with self._database.transaction() as connection, connection.begin_nested() as savepoint:
            # Deleting first locks the row: an upload that claims the table meanwhile waits, or is seen below.
            dropped = self._files.catalog.drop_table(connection, identifier, location)
            used = connection.scalar(select(exists().where(topics.c.table_identifier == identifier)))
            if used or not dropped:
                savepoint.rollback()
                return False
            mark(connection, left_behind, time.time_ns())
            return True

    def _ensure_namespace(self, ontology_tag: str) -> str:
        candidates = namespace_candidates(ontology_tag)
        with self._database.snapshot() as connection:
            for namespace in candidates:
                if self._files.catalog.namespace_properties(connection, namespace).get(TAG_PROPERTY) == ontology_tag:
                    return namespace
        with changing(self._files.catalog, self._database) as connection:
            for namespace in candidates:
                if self._files.catalog.create_namespace(connection, namespace, {TAG_PROPERTY: ontology_tag}):
                    return namespace
                if self._files.catalog.namespace_properties(connection, namespace).get(TAG_PROPERTY) == ontology_tag:
                    return namespace
        raise CommitConflictError("the namespace of the ontology tag is taken")

    def _try_ensure(self, namespace: str, tag: str, path: str, plan: StoragePlan) -> TopicTable | None:
        """One attempt; None if another writer came first and everything has to be looked at again."""
        own, free_name = self._look_up(namespace, tag, path)
        differences = [
            (identifier, document, evolution(document.schema, plan))
            for identifier, document in own
            if _takes_uploads(document, plan)
        ]
        for identifier, document, difference in differences:
            if difference.verdict is Verdict.COMPATIBLE:
                return _topic_table(identifier, document)
        for identifier, document, difference in differences:
            if difference.verdict is Verdict.NEEDS_UPDATE:
                return self._evolve(identifier, document, difference)
        return self._create(f"{namespace}.{free_name}", tag, path, plan)

    def _look_up(self, namespace: str, tag: str, path: str) -> tuple[list[tuple[str, TableDocument]], str]:
        """The tables of a topic in order of their version, and the name of the next one."""
        own: list[tuple[str, TableDocument]] = []
        first_version = 1
        while True:
            versions = range(first_version, first_version + _VERSIONS_PER_LOOKUP)
            names = {version: table_candidates(path, version) for version in versions}
            with self._database.snapshot() as connection:
                pointers = self._files.catalog.locations(
                    connection, [f"{namespace}.{name}" for candidates in names.values() for name in candidates]
                )
            for candidates in names.values():
                found = [name for name in candidates if f"{namespace}.{name}" in pointers]
                documents = {name: self._files.document(pointers[f"{namespace}.{name}"]) for name in found}
                mine = [name for name in found if _belongs_to(documents[name], tag, path)]
                own += [(f"{namespace}.{name}", documents[name]) for name in mine]
                if not mine and len(found) < len(candidates):
                    return own, next(name for name in candidates if name not in documents)
            first_version += _VERSIONS_PER_LOOKUP

    def _create(self, identifier: str, tag: str, path: str, plan: StoragePlan) -> TopicTable | None:
        metadata = new_topic_metadata(
            f"{self._files.warehouse.uri}/{identifier.replace('.', '/')}",
            topic_table_schema(plan, tag),
            {TAG_PROPERTY: tag, TOPIC_PROPERTY: path},
        )
        document = create_table(self._database, self._files, identifier, metadata)
        return None if document is None else _topic_table(identifier, document)

    def _evolve(self, identifier: str, base: TableDocument, difference: Evolution) -> TopicTable | None:
        catalog, warehouse = self._files.catalog, self._files.warehouse
        location = base.next_metadata_location()
        staged = StagedTable(identifier, base.metadata_location, location, evolved_fields(base, difference), ())
        warehouse.make_durable(*catalog.write_metadata(self._files, staged, {}))
        try:
            with changing(catalog, self._database) as connection:
                catalog.commit(connection, self._files, staged)
                current = catalog.locations(connection, [identifier])[identifier]
        except CatalogConflictError:
            warehouse.discard(staged.everything)
            return None
        except CatalogUncertainError as error:
            raise StorageError("the catalog failed while a table was changed; try again") from error
        return _topic_table(identifier, self._files.document(current))


def create_table(
    database: Database, files: TableFiles, identifier: str, metadata: TableMetadata
) -> TableDocument | None:
    """Register a new, empty table; None if the name is taken."""
    if not files.catalog.create_table(database, files.warehouse, identifier, metadata):
        return None
    with database.snapshot() as connection:
        location = files.catalog.locations(connection, [identifier]).get(identifier)
    return None if location is None else files.document(location)


def new_topic_metadata(location: str, schema: Schema, properties: dict[str, str]) -> TableMetadata:
    """Metadata of an empty topic table: partitioned by sequence and day, files sorted by time."""
    sequence, recorded_at = schema.find_field(SEQUENCE_COLUMN), schema.find_field(RECORDED_AT_COLUMN)
    timestamp = schema.find_field(TIMESTAMP_COLUMN)
    spec = PartitionSpec(
        PartitionField(sequence.field_id, FIRST_PARTITION_FIELD_ID, IdentityTransform(), SEQUENCE_COLUMN),
        PartitionField(recorded_at.field_id, FIRST_PARTITION_FIELD_ID + 1, DayTransform(), DAY_FIELD),
    )
    order = SortOrder(SortField(timestamp.field_id, IdentityTransform(), null_order=NullOrder.NULLS_FIRST))
    metadata = new_table_metadata(schema, spec, order, location, {**MAINTENANCE_PROPERTIES, **properties})
    uploaded = uploaded_columns(metadata.schema().model_dump(mode="json", by_alias=True), metadata.last_column_id)
    return metadata.model_copy(update={"properties": {**metadata.properties, COLUMNS_PROPERTY: uploaded}})


def evolved_fields(base: TableDocument, difference: Evolution) -> dict[str, Any]:
    """The metadata fields of the table after its schema has grown."""
    metadata = TableMetadataUtil.parse_obj(dict(base.fields))
    location = base.metadata_location
    table = Table(("topic",), metadata, location, load_file_io({}, location), NoopCatalog("unused"))
    transaction = Transaction(table)
    with transaction.update_schema() as update:
        difference.apply_to(update)
    grown = transaction.table_metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    changed = {key: grown[key] for key in ("schemas", "current-schema-id", "last-column-id")}
    if base.columns.is_plain:
        # Names that others have changed are never marked as those of uploads.
        after = TableDocument(location, {**base.fields, **changed})
        uploaded = uploaded_columns(after.schema_fields, grown["last-column-id"])
        changed["properties"] = {**base.properties, COLUMNS_PROPERTY: uploaded}
    return {**base.successor(base.next_timestamp_ms()), **changed}


def is_unfilled_topic_table(document: TableDocument) -> bool:
    """Whether this is a topic table, not one of somebody else, that never held a row."""
    return TOPIC_PROPERTY in document.properties and not document.snapshots


def _topic_table(identifier: str, document: TableDocument) -> TopicTable:
    spec = next(spec for spec in document.fields["partition-specs"] if spec["spec-id"] == 0)
    return TopicTable(
        identifier,
        document.fields["table-uuid"],
        document.location,
        document.schema,
        PartitionSpec.model_validate(spec),
    )


def _takes_uploads(document: TableDocument, plan: StoragePlan) -> bool:
    """Whether other engines have left a table so that rows can be added under the names of the upload.

    Where a column got another name there, one of the old name beside it would tear the topic's values in two.
    """
    if not document.is_writable:
        return False
    columns = document.columns
    if columns.is_plain:
        return True
    return columns.takes_names(path for _, path, _ in walk(plan.payload))


def _belongs_to(document: TableDocument, tag: str, path: str) -> bool:
    properties = document.properties
    return properties.get(TAG_PROPERTY) == tag and properties.get(TOPIC_PROPERTY) == path
