"""Rows of the control plane, made again from the published metadata tables."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from lakehouse.catalog.commits.metadata_tables import NOTIFICATIONS, SEQUENCES, SESSIONS, TOPICS
from lakehouse.catalog.control_plane.metadata_index import index_sequence_metadata, index_topic_metadata
from lakehouse.catalog.control_plane.rows import schema_digest
from lakehouse.catalog.control_plane.schema import notifications, sequences, sessions, topics
from lakehouse.catalog.locators import SessionLocator, TopicLocator, parse_resource
from lakehouse.catalog.records import SessionState, TopicState

_Row = Mapping[str, Any]


@dataclass
class RestoredRows:
    """What was added to the control plane.

    Attributes:
        sequences, sessions, topics, notifications: Numbers of rows.
        left_out: Locators of sessions that were left out, since a table of theirs is missing.
    """

    sequences: int = 0
    sessions: int = 0
    topics: int = 0
    notifications: int = 0
    left_out: list[str] = field(default_factory=list)


def restore_rows(
    connection: Connection,
    published: Mapping[str, Sequence[_Row]],
    tables: Iterable[str],
    on_progress: Callable[[str, int], None] = lambda _kind, _done: None,
) -> RestoredRows:
    """Add what the control plane lacks; what it has already stays as it is.

    Rows get new numbers in the order of their creation, which is the order that listings keep. Secrets are not
    published: a finalized session has no use for the one that entitled to write to it and gets a fresh one.

    Args:
        connection: Inside the transaction that registers the tables.
        published: Rows of the metadata tables by identifier.
        tables: Identifiers of the tables that are registered.
        on_progress: Told what is being added, and how many so far.
    """
    restored = RestoredRows()
    restored.left_out = sorted(_without_tables(published[TOPICS], set(tables)))
    left_out = set(restored.left_out)
    sequence_ids = _restore_sequences(connection, published[SEQUENCES], restored)
    session_ids = _restore_sessions(connection, published[SESSIONS], sequence_ids, left_out, restored)
    on_progress("sessions", restored.sessions)
    new_topics = _restore_topics(connection, published[TOPICS], session_ids, sequence_ids, on_progress, restored)
    _restore_notifications(connection, published[NOTIFICATIONS], sequence_ids, new_topics, restored)
    return restored


def _without_tables(topic_rows: Sequence[_Row], tables: set[str]) -> set[str]:
    return {row["session"] for row in topic_rows if row["row_count"] and row["table_identifier"] not in tables}


@dataclass(frozen=True)
class _Known:
    """Row ids by name, and which of them are new."""

    ids: dict[Any, int]
    new: frozenset[Any]


def _restore_sequences(connection: Connection, rows: Sequence[_Row], restored: RestoredRows) -> _Known:
    present = {row.name: row.id for row in connection.execute(select(sequences.c.id, sequences.c.name))}
    missing = {row["sequence"]: row for row in _oldest_first(rows, "sequence") if row["sequence"] not in present}
    values = [
        {"name": name, "user_metadata": row["user_metadata"], "created_at_ns": row["created_at_ns"]}
        for name, row in missing.items()
    ]
    new = dict(zip(missing, _insert(connection, sequences, values), strict=True))
    for name, row in missing.items():
        index_sequence_metadata(connection, new[name], json.loads(row["user_metadata"]))
    restored.sequences = len(new)
    return _Known(present | new, frozenset(new))


def _restore_sessions(
    connection: Connection, rows: Sequence[_Row], sequence_ids: _Known, left_out: set[str], restored: RestoredRows
) -> dict[str, int]:
    """Ids of the new sessions by locator."""
    present = set(connection.scalars(select(sessions.c.ulid)))
    missing = {
        row["session"]: row
        for row in _oldest_first(rows, "session")
        if row["session"] not in left_out
        and row["sequence"] in sequence_ids.ids
        and SessionLocator.parse(row["session"]).ulid not in present
    }
    values = [
        {
            "sequence_id": sequence_ids.ids[row["sequence"]],
            "uuid": str(uuid.uuid4()),
            "public_uuid": row["public_uuid"],
            "ulid": SessionLocator.parse(locator).ulid,
            "state": SessionState.FINALIZED,
            "created_at_ns": row["created_at_ns"],
            "completed_at_ns": row["completed_at_ns"],
        }
        for locator, row in missing.items()
    ]
    new = dict(zip(missing, _insert(connection, sessions, values), strict=True))
    restored.sessions = len(new)
    return new


def _restore_topics(
    connection: Connection,
    rows: Sequence[_Row],
    session_ids: Mapping[str, int],
    sequence_ids: _Known,
    on_progress: Callable[[str, int], None],
    restored: RestoredRows,
) -> dict[TopicLocator, tuple[int, int]]:
    """Id and creation time of the new topics."""
    missing = [row for row in _oldest_first(rows, "topic") if row["session"] in session_ids]
    values = [
        {
            "sequence_id": sequence_ids.ids[row["sequence"]],
            "session_id": session_ids[row["session"]],
            "state": TopicState.FINALIZED,
            "arrow_schema_digest": schema_digest(row["arrow_schema"]) if row["arrow_schema"] is not None else "",
            **{name: row[name] for name in _TOPIC_COLUMNS},
        }
        for row in missing
    ]
    new: dict[TopicLocator, tuple[int, int]] = {}
    for row, topic_id in zip(missing, _insert(connection, topics, values), strict=True):
        index_topic_metadata(connection, topic_id, json.loads(row["user_metadata"]))
        new[TopicLocator(row["sequence"], row["path"])] = topic_id, row["created_at_ns"]
        restored.topics += 1
        on_progress("topics", restored.topics)
    return new


_TOPIC_COLUMNS = (
    "uuid",
    "path",
    "ontology_tag",
    "serialization_format",
    "user_metadata",
    "created_at_ns",
    "completed_at_ns",
    "arrow_schema",
    "table_identifier",
    "row_count",
    "total_bytes",
    "chunk_count",
    "start_ns",
    "end_ns",
)


def _restore_notifications(
    connection: Connection,
    rows: Sequence[_Row],
    sequence_ids: _Known,
    new_topics: Mapping[TopicLocator, tuple[int, int]],
    restored: RestoredRows,
) -> None:
    values = []
    for row in _oldest_first(rows, "resource"):
        resource = parse_resource(row["resource"])
        topic_id, topic_created_ns = None, 0
        if isinstance(resource, TopicLocator):
            topic_id, topic_created_ns = new_topics.get(resource, (None, 0))
        is_new = topic_id is not None or (isinstance(resource, str) and resource in sequence_ids.new)
        # A note may outlive the topic of that name it was about by the blink of an eye.
        if is_new and row["created_at_ns"] >= topic_created_ns:
            values.append(
                {
                    "sequence_id": sequence_ids.ids[row["sequence"]],
                    "topic_id": topic_id,
                    "notification_type": row["notification_type"],
                    "message": row["message"],
                    "created_at_ns": row["created_at_ns"],
                }
            )
    restored.notifications = len(_insert(connection, notifications, values))


def _oldest_first(rows: Sequence[_Row], name: str) -> list[_Row]:
    return sorted(rows, key=lambda row: (row["created_at_ns"], row[name]))


def _insert(connection: Connection, table: Table, values: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows and return their ids in the same order."""
    if not values:
        return []
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(connection.scalars(statement, values))
