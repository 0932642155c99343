"""From rows of the control plane to records, and back to JSON text."""

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, Row, Select, literal, select

from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.locators import SessionLocator, TopicLocator
from lakehouse.catalog.records import (
    SequenceRecord,
    SerializationFormat,
    SessionRecord,
    SessionState,
    TopicRecord,
    TopicState,
)
from lakehouse.catalog.time_window import TimeInterval


def to_json(value: dict[str, Any]) -> str:
    # ASCII only: PostgreSQL refuses NUL and lone surrogates in text, their JSON escapes pass everywhere.
    return json.dumps(value, separators=(",", ":"))


def schema_digest(arrow_schema: bytes) -> str:
    """The name by which the control plane tells schemas (IPC bytes) apart."""
    return hashlib.sha256(arrow_schema).hexdigest()[:32]


def sequence_record(row: Row[Any]) -> SequenceRecord:
    return SequenceRecord(row.id, row.name, json.loads(row.user_metadata), row.created_at_ns)


def select_sessions() -> Select[Any]:
    """Sessions with the name of their sequence, in creation order."""
    return (
        select(sessions, sequences.c.name.label("sequence_name")).join_from(sessions, sequences).order_by(sessions.c.id)
    )


def session_record(row: Row[Any]) -> SessionRecord:
    return SessionRecord(
        id=row.id,
        sequence_id=row.sequence_id,
        locator=SessionLocator(row.sequence_name, row.ulid),
        uuid=row.uuid,
        public_uuid=row.public_uuid,
        state=SessionState(row.state),
        created_at_ns=row.created_at_ns,
        completed_at_ns=row.completed_at_ns if row.state == SessionState.FINALIZED else None,
        quarantine_reason=row.quarantine_reason if row.state == SessionState.QUARANTINED else None,
        quarantined_at_ns=row.quarantined_at_ns if row.state == SessionState.QUARANTINED else None,
    )


def select_topics(*, with_metadata: bool = True) -> Select[Any]:
    """Topics with the names of their sequence and session, in creation order; user metadata may be left out."""
    columns = [column for column in topics.c if with_metadata or column.name != "user_metadata"]
    left_out = [] if with_metadata else [literal("{}").label("user_metadata")]
    return (
        select(
            *columns,
            *left_out,
            sequences.c.name.label("sequence_name"),
            sessions.c.ulid,
            sessions.c.state.label("session_state"),
        )
        .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
        .join(sessions, topics.c.session_id == sessions.c.id)
        .order_by(topics.c.id)
    )


def topic_record(row: Row[Any]) -> TopicRecord:
    return TopicRecord(
        id=row.id,
        sequence_id=row.sequence_id,
        session_id=row.session_id,
        locator=TopicLocator(row.sequence_name, row.path),
        session_locator=SessionLocator(row.sequence_name, row.ulid),
        session_is_finalized=row.session_state == SessionState.FINALIZED,
        uuid=row.uuid,
        ontology_tag=row.ontology_tag,
        serialization_format=SerializationFormat(row.serialization_format),
        user_metadata=json.loads(row.user_metadata),
        state=TopicState(row.state),
        created_at_ns=row.created_at_ns,
        completed_at_ns=row.completed_at_ns,
        arrow_schema=row.arrow_schema,
        table_identifier=row.table_identifier,
        row_count=row.row_count,
        total_bytes=row.total_bytes,
        chunk_count=row.chunk_count,
        interval=None if row.start_ns is None else TimeInterval(row.start_ns, row.end_ns),
    )


def find_sequence(connection: Connection, name: str, *, lock: bool = False) -> SequenceRecord | None:
    """The sequence of that name; with `lock` it cannot be deleted before the transaction ends."""
    query = select(sequences).where(sequences.c.name == name)
    row = connection.execute(query.with_for_update(read=True, key_share=True) if lock else query).one_or_none()
    return None if row is None else sequence_record(row)


def find_topic(connection: Connection, locator: TopicLocator) -> TopicRecord | None:
    query = select_topics().where(sequences.c.name == locator.sequence, topics.c.path == locator.path)
    row = connection.execute(query).one_or_none()
    return None if row is None else topic_record(row)
