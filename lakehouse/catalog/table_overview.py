"""Every table of the lake as people ask about it: what its rows are, its columns with units, how much it holds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from lakehouse.catalog.errors import ChangedTableError
from lakehouse.catalog.iceberg.identifiers import METADATA_NAMESPACE
from lakehouse.catalog.iceberg.sql_catalog import split_identifier
from lakehouse.catalog.iceberg.table_documents import TableDocument
from lakehouse.catalog.iceberg.tables import TAG_PROPERTY, TOPIC_PROPERTY
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.ontology.registry import load_models


@dataclass(frozen=True, slots=True)
class ColumnOverview:
    """One column, or one field of a nested column.

    Attributes:
        name: Path with dots between: `acceleration.x`.
        type: Iceberg type.
        comment: What it is, with the unit in brackets; empty if nobody says.
        is_required: Whether it is never null.
    """

    name: str
    type: str
    comment: str
    is_required: bool


@dataclass(frozen=True, slots=True)
class TableOverview:
    """One table as of its current snapshot.

    Attributes:
        identifier: `namespace.table`.
        ontology_tag: What its rows mean; None for tables that are not a topic's.
        topic: Path of the topic; None for tables that are not a topic's.
        description: One sentence on what a row is; empty if nobody says.
        columns: All columns and nested fields, outer ones first; empty if another engine gave the table some of a type
            that is not known here.
        snapshot_id: Current snapshot; None before the first commit.
        committed_at_ms: When it was committed, Unix ms; None before the first commit.
        rows, files, total_bytes: What the snapshot holds.
        history: Ids of the snapshots that are kept and led to it, the latest first, and whether each brought rows.
            Compaction and deletion do not.
    """

    identifier: str
    ontology_tag: str | None
    topic: str | None
    description: str
    columns: tuple[ColumnOverview, ...]
    location: str
    snapshot_id: int | None
    committed_at_ms: int | None
    rows: int
    files: int
    total_bytes: int
    history: tuple[tuple[int, bool], ...] = ()

    def has_new_rows(self, since: int | None) -> bool:
        """Whether rows came after a snapshot; if that is not kept any more, they may have."""
        for snapshot_id, brought_rows in self.history:
            if snapshot_id == since:
                return False
            if brought_rows:
                return True
        return True

    @property
    def namespace(self) -> str:
        return split_identifier(self.identifier)[0]

    @property
    def name(self) -> str:
        return split_identifier(self.identifier)[1]


def table_overviews(lake: Lakehouse, changed_since: Mapping[str, str] | None = None) -> dict[str, TableOverview]:
    """Overviews of all topic tables and tables of the system, by identifier.

    Args:
        lake: The lake.
        changed_since: What `table_states` said earlier; tables that still are in that state are left out.

    Raises:
        StorageError: If database or warehouse fail.
    """
    with lake.database.snapshot() as connection:
        pointers = lake.table_files.catalog.locations(connection)
    found = {}
    for identifier, location in sorted(pointers.items()):
        if changed_since is None or changed_since.get(identifier) != location:
            overview = _overview(identifier, lake.table_files.document(location))
            if overview is not None:
                found[identifier] = overview
    return found


def table_states(lake: Lakehouse) -> dict[str, str]:
    """A text for each table, by identifier, that changes with every commit.

    Raises:
        StorageError: If the database fails.
    """
    with lake.database.snapshot() as connection:
        return lake.table_files.catalog.locations(connection)


def _overview(identifier: str, document: TableDocument) -> TableOverview | None:
    tag, topic = document.properties.get(TAG_PROPERTY), document.properties.get(TOPIC_PROPERTY)
    if topic is None and split_identifier(identifier)[0] != METADATA_NAMESPACE:
        return None  # somebody else's
    snapshot = document.current_snapshot or {}
    summary = snapshot.get("summary") or {}
    model = load_models().get(tag or "")
    return TableOverview(
        identifier=identifier,
        ontology_tag=tag,
        topic=topic,
        description=model.description if model else "",
        columns=tuple(_columns(document)),
        location=document.location,
        snapshot_id=snapshot.get("snapshot-id"),
        committed_at_ms=snapshot.get("timestamp-ms"),
        rows=_number(summary, "total-records"),
        files=_number(summary, "total-data-files"),
        total_bytes=_number(summary, "total-files-size"),
        history=tuple((each["snapshot-id"], _brought_rows(each.get("summary") or {})) for each in _lineage(document)),
    )


def _lineage(document: TableDocument) -> Iterator[Mapping[str, Any]]:
    by_id = {snapshot["snapshot-id"]: snapshot for snapshot in document.snapshots}
    snapshot = document.current_snapshot
    while snapshot is not None:
        yield snapshot
        snapshot = by_id.get(snapshot.get("parent-snapshot-id"))


def _brought_rows(summary: Mapping[str, Any]) -> bool:
    # Iceberg spec, snapshot summary: `replace` changes files and no rows, `delete` only removes.
    return summary.get("operation") in ("append", "overwrite") and _number(summary, "added-records") > 0


def _number(summary: Mapping[str, Any], key: str) -> int:
    return int(summary.get(key, 0))


def _columns(document: TableDocument) -> list[ColumnOverview]:
    columns: list[ColumnOverview] = []
    try:
        schema = document.schema
    except ChangedTableError:
        return columns
    pending = [(field.name, field) for field in reversed(schema.fields)]
    while pending:
        path, field = pending.pop()
        columns.append(ColumnOverview(path, _type_name(field.field_type), field.doc or "", field.required))
        pending += [(f"{path}.{child.name}", child) for child in reversed(_children(field.field_type))]
    return columns


def _children(of: IcebergType) -> tuple[NestedField, ...]:
    if isinstance(of, StructType):
        return of.fields
    if isinstance(of, ListType) and isinstance(of.element_type, StructType):
        return of.element_type.fields
    return ()


def _type_name(of: IcebergType) -> str:
    match of:
        case StructType():
            return "struct"
        case ListType():
            return f"list<{_type_name(of.element_type)}>"
        case MapType():
            return f"map<{_type_name(of.key_type)}, {_type_name(of.value_type)}>"
    return str(of)
