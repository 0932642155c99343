"""Sequences, sessions, topics and notifications as Iceberg tables `mosaico.*`, so that SQL can join metadata with data.

A row appears when its first session is finalized (a notification at once) and goes with the deletion that removes it,
in the same transaction as the data. Together the tables hold everything that is needed to rebuild the control plane
from the warehouse alone; except capabilities (session UUIDs), which are secrets.

They are separate, unpartitioned tables with one small file per commit, merged in size classes by maintenance:
partitioning them by sequence would leave one file per sequence for ever.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import BinaryType, IcebergType, LongType, NestedField, StringType, TimestamptzType
from sqlalchemy import Connection, exists, select

from lakehouse.catalog.commits.plan import StalePlanError, TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_sequence, to_json
from lakehouse.catalog.control_plane.schema import sequences, sessions
from lakehouse.catalog.iceberg.identifiers import METADATA_NAMESPACE
from lakehouse.catalog.iceberg.row_changes import RowChange
from lakehouse.catalog.iceberg.table_catalog import changing
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import MAINTENANCE_PROPERTIES, create_table
from lakehouse.catalog.locators import SessionLocator, TopicLocator
from lakehouse.catalog.records import NotificationRecord, SequenceRecord, SessionRecord, SessionState, TopicRecord

SEQUENCES = f"{METADATA_NAMESPACE}.sequences"
SESSIONS = f"{METADATA_NAMESPACE}.sessions"
TOPICS = f"{METADATA_NAMESPACE}.topics"
NOTIFICATIONS = f"{METADATA_NAMESPACE}.notifications"

# Tells tables of this system from those that users keep in the same catalog.
METADATA_PROPERTY = "mosaico.metadata"

_TEXT, _NUMBER, _TIME = StringType(), LongType(), TimestamptzType()
_Column = tuple[str, IcebergType, bool, str]

_CREATED: tuple[_Column, ...] = (
    ("created_at", _TIME, True, "Creation time, rounded down to microseconds."),
    ("created_at_ns", _NUMBER, True, "Creation time, exact. [ns since 1970-01-01 UTC]"),
)
_COMPLETED: tuple[_Column, ...] = (
    ("completed_at", _TIME, True, "Time of completion, rounded down to microseconds."),
    ("completed_at_ns", _NUMBER, True, "Time of completion, exact. [ns since 1970-01-01 UTC]"),
)
_COLUMNS: dict[str, tuple[_Column, ...]] = {
    SEQUENCES: (
        ("sequence", _TEXT, True, "Name of the sequence (one recording)."),
        ("user_metadata", _TEXT, True, "Metadata given by the user, JSON."),
        *_CREATED,
    ),
    SESSIONS: (
        ("session", _TEXT, True, "Locator of the session."),
        ("sequence", _TEXT, True, "Sequence it belongs to."),
        ("public_uuid", _TEXT, True, "Public identity for clients of older generations."),
        *_CREATED,
        *_COMPLETED,
    ),
    TOPICS: (
        ("topic", _TEXT, True, "Locator of the topic: sequence, slash, path."),
        ("sequence", _TEXT, True, "Sequence it belongs to."),
        ("session", _TEXT, True, "Locator of the session that wrote it."),
        ("path", _TEXT, True, "Path of the topic within its sequence."),
        ("uuid", _TEXT, True, "Identity of the topic; its data files are named after it."),
        ("ontology_tag", _TEXT, True, "What its rows mean."),
        ("serialization_format", _TEXT, True, "Storage hint given by the writer."),
        ("user_metadata", _TEXT, True, "Metadata given by the user, JSON."),
        ("table_identifier", _TEXT, False, "Iceberg table with its rows: namespace.table."),
        ("arrow_schema", BinaryType(), False, "Schema exactly as uploaded, Arrow IPC."),
        ("row_count", _NUMBER, True, "Number of rows."),
        ("total_bytes", _NUMBER, True, "Size of its data files. [B]"),
        ("chunk_count", _NUMBER, True, "Number of its data files when it was written."),
        ("first_at", _TIME, False, "Smallest record time, rounded down to microseconds."),
        ("last_at", _TIME, False, "Largest record time, rounded down to microseconds."),
        ("start_ns", _NUMBER, False, "Smallest record time, exact. [ns since 1970-01-01 UTC]"),
        ("end_ns", _NUMBER, False, "Largest record time, exact. [ns since 1970-01-01 UTC]"),
        *_CREATED,
        *_COMPLETED,
    ),
    NOTIFICATIONS: (
        ("resource", _TEXT, True, "What it is about: locator of a sequence or a topic."),
        ("sequence", _TEXT, True, "Sequence that is, or has, the resource."),
        ("session", _TEXT, False, "Locator of the session of the topic it is about."),
        ("notification_type", _TEXT, True, "What kind of note it is."),
        ("message", _TEXT, True, "The note."),
        *_CREATED,
    ),
}
METADATA_TABLES = tuple(_COLUMNS)
_PUBLISHED = (SessionState.FINALIZED,)
_PUBLISHED_OR_ABOUT_TO_BE = (SessionState.COMMITTING, SessionState.FINALIZED)
_ARROW_TYPES = {
    StringType(): pa.string(),
    LongType(): pa.int64(),
    TimestamptzType(): pa.timestamp("us", tz="UTC"),
    BinaryType(): pa.binary(),
}


@dataclass(frozen=True)
class MetadataPlan:
    """Changes of the metadata tables.

    Attributes:
        changes: Per table.
        check: To be called in the transaction of the commit, after the pointers are swapped: nobody else can change the
            tables then. Raises `StalePlanError` if what the changes rest on has changed.
    """

    changes: list[TableChange]
    check: Callable[[Connection], None] = lambda _connection: None


class MetadataTables:
    """Plans the changes of the metadata tables that go with a commit."""

    def __init__(self, database: Database, files: TableFiles) -> None:
        self._database = database
        self._files = files
        self._is_ensured = False

    def ensure(self) -> None:
        """Create the tables where they are missing.

        Raises:
            StorageError: If database or warehouse fail.
        """
        if self._is_ensured:
            return
        with changing(self._files.catalog, self._database) as connection:
            self._files.catalog.create_namespace(connection, METADATA_NAMESPACE, {})
            present = self._files.catalog.locations(connection, METADATA_TABLES)
        for identifier in METADATA_TABLES:
            if identifier not in present:
                metadata = new_table_metadata(
                    _schema(identifier),
                    UNPARTITIONED_PARTITION_SPEC,
                    UNSORTED_SORT_ORDER,
                    f"{self._files.warehouse.uri}/{identifier.replace('.', '/')}",
                    {**MAINTENANCE_PROPERTIES, METADATA_PROPERTY: identifier},
                )
                create_table(self._database, self._files, identifier, metadata)
        self._is_ensured = True

    def publish(
        self,
        connection: Connection,
        sequence: SequenceRecord,
        session: SessionRecord,
        members: Sequence[TopicRecord],
        completed_at_ns: int,
    ) -> MetadataPlan:
        """The changes that show a session which is being finalized, with its topics, and its sequence if need be.

        Args:
            connection: What was read of them comes from the same snapshot. Call `ensure` before.
            sequence, session, members: What is to be shown.
            completed_at_ns: When it is finalized.
        """
        rows = {
            SESSIONS: [
                {
                    "session": str(session.locator),
                    "sequence": sequence.name,
                    "public_uuid": session.public_uuid,
                    "created_at_ns": session.created_at_ns,
                    "completed_at_ns": completed_at_ns,
                }
            ],
            TOPICS: [_topic_row(topic, completed_at_ns) for topic in members],
        }
        # What may have been published before, or is being published by another session of the sequence, is replaced.
        replaced: dict[str, dict[str, str]] = {}
        if session.state is SessionState.COMMITTING:
            of_session = {"sequence": sequence.name, "session": str(session.locator)}
            replaced = {SESSIONS: of_session, TOPICS: of_session}
        if replaced or not self._files.catalog.shares_transactions:
            replaced[SEQUENCES] = {"sequence": sequence.name}
        is_alone = _is_alone(connection, session.locator, _PUBLISHED)
        if is_alone:
            rows[SEQUENCES] = [
                {
                    "sequence": sequence.name,
                    "user_metadata": to_json(sequence.user_metadata),
                    "created_at_ns": sequence.created_at_ns,
                }
            ]
        changes = [
            _published(identifier, sequence.name, found, replaced.get(identifier, {}))
            for identifier, found in rows.items()
            if found
        ]
        check_alone = _check_alone(session.locator, is_alone)

        def check(connection: Connection) -> None:
            check_alone(connection)
            if is_alone:
                _check_unchanged(connection, sequence)

        return MetadataPlan(changes, check)

    def retract(self, kind: str, name: str) -> MetadataPlan:
        """The changes that go with deleting a sequence, session or topic.

        Args:
            kind: "sequence", "session" or "topic".
            name: Its locator.
        """
        self.ensure()
        if kind == "sequence":
            everything = {identifier: {"sequence": name} for identifier in METADATA_TABLES}
            return MetadataPlan(_removals(name, everything))
        if kind == "topic":
            sequence = TopicLocator.parse(name).sequence
            removals = {TOPICS: {"sequence": sequence, "topic": name}, NOTIFICATIONS: _notes_on(sequence, name)}
            return MetadataPlan(_removals(sequence, removals))
        locator = SessionLocator.parse(name)
        session = {"sequence": locator.sequence, "session": name}
        removals = {SESSIONS: session, TOPICS: session, NOTIFICATIONS: session}
        with self._database.snapshot() as connection:
            is_alone = _is_alone(connection, locator, _PUBLISHED_OR_ABOUT_TO_BE)
        if is_alone:
            removals[SEQUENCES] = {"sequence": locator.sequence}
        check = _check_alone(locator, is_alone, _PUBLISHED_OR_ABOUT_TO_BE)
        return MetadataPlan(_removals(locator.sequence, removals), check)

    def note(self, record: NotificationRecord, session: SessionLocator | None) -> MetadataPlan:
        """The changes that show a notification.

        Args:
            record: The notification.
            session: Of the topic it is about, if it is about one.
        """
        self.ensure()
        row = {
            "resource": record.name,
            "sequence": record.sequence,
            "session": session and str(session),
            "notification_type": record.notification_type,
            "message": record.message,
            "created_at_ns": record.created_at_ns,
        }
        change = RowChange(record.sequence, append=_table(NOTIFICATIONS, [row]))
        return MetadataPlan([TableChange(NOTIFICATIONS, rows=change)])

    def remove_notes(self, resource: str | TopicLocator) -> MetadataPlan:
        """The changes that go with removing all notifications on exactly this resource."""
        self.ensure()
        sequence = resource if isinstance(resource, str) else resource.sequence
        return MetadataPlan(_removals(sequence, {NOTIFICATIONS: _notes_on(sequence, str(resource))}))


def _is_alone(connection: Connection, session: SessionLocator, states: Collection[SessionState]) -> bool:
    """Whether no other session of the sequence is in one of these states."""
    others = (
        select(sessions.c.id)
        .join_from(sessions, sequences)
        .where(
            sequences.c.name == session.sequence,
            sessions.c.ulid != session.ulid,
            sessions.c.state.in_(states),
        )
    )
    return not connection.scalar(select(exists(others)))


def _check_alone(
    session: SessionLocator, expected: bool, states: Collection[SessionState] = _PUBLISHED
) -> Callable[[Connection], None]:
    def check(connection: Connection) -> None:
        if _is_alone(connection, session, states) is not expected:
            raise StalePlanError

    return check


def _check_unchanged(connection: Connection, sequence: SequenceRecord) -> None:
    """Until something of a sequence is published its metadata may be replaced; the lock orders this against that."""
    current = find_sequence(connection, sequence.name, lock=True)
    if current is None or to_json(current.user_metadata) != to_json(sequence.user_metadata):
        raise StalePlanError


def _published(identifier: str, key: str, rows: list[dict[str, Any]], replaced: dict[str, str]) -> TableChange:
    return TableChange(identifier, rows=RowChange(key, _table(identifier, rows), replaced))


def _removals(key: str, filters: dict[str, dict[str, str]]) -> list[TableChange]:
    return [TableChange(identifier, rows=RowChange(key, remove=values)) for identifier, values in filters.items()]


def _notes_on(sequence: str, resource: str) -> dict[str, str]:
    return {"sequence": sequence, "resource": resource}


def _topic_row(topic: TopicRecord, completed_at_ns: int) -> dict[str, Any]:
    return {
        "topic": str(topic.locator),
        "sequence": topic.locator.sequence,
        "session": str(topic.session_locator),
        "path": topic.locator.path,
        "uuid": topic.uuid,
        "ontology_tag": topic.ontology_tag,
        "serialization_format": str(topic.serialization_format),
        "user_metadata": to_json(topic.user_metadata),
        "table_identifier": topic.table_identifier,
        "arrow_schema": topic.arrow_schema,
        "row_count": topic.row_count,
        "total_bytes": topic.total_bytes,
        "chunk_count": topic.chunk_count,
        "start_ns": topic.interval.start_ns if topic.interval else None,
        "end_ns": topic.interval.end_ns if topic.interval else None,
        "created_at_ns": topic.created_at_ns,
        "completed_at_ns": topic.completed_at_ns or completed_at_ns,
    }


_DERIVED_FROM = {
    "created_at": "created_at_ns",
    "completed_at": "completed_at_ns",
    "first_at": "start_ns",
    "last_at": "end_ns",
}


def _schema(identifier: str) -> Schema:
    return Schema(
        *(
            NestedField(number, name, kind, required=required, doc=doc)
            for number, (name, kind, required, doc) in enumerate(_COLUMNS[identifier], start=1)
        )
    )


def _table(identifier: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    columns = {}
    for name, kind, _, _ in _COLUMNS[identifier]:
        arrow_type = _ARROW_TYPES[kind]  # type: ignore[index]
        if name in _DERIVED_FROM:
            exact = [row[_DERIVED_FROM[name]] for row in rows]
            columns[name] = pa.array([None if ns is None else ns // 1000 for ns in exact], pa.int64()).cast(arrow_type)
        else:
            columns[name] = pa.array([row[name] for row in rows], arrow_type)
    return pa.table(columns)
