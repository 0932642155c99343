"""Sequences: one recording each, identified by name."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.metadata_index import index_sequence_metadata
from lakehouse.catalog.control_plane.metadata_lookup import sequences_with
from lakehouse.catalog.control_plane.rows import (
    find_sequence,
    select_sessions,
    select_topics,
    sequence_record,
    session_record,
    to_json,
    topic_record,
)
from lakehouse.catalog.control_plane.schema import sequence_metadata, sequences, sessions, topics
from lakehouse.catalog.errors import AlreadyExistsError, NotFoundError, StateError, quoted
from lakehouse.catalog.locators import check_metadata_keys, parse_sequence_name
from lakehouse.catalog.records import SequenceRecord, SessionRecord, SessionState, TopicRecord


@dataclass(frozen=True, slots=True)
class SequenceDescription:
    """A sequence with all its sessions and topics, each in creation order."""

    sequence: SequenceRecord
    sessions: list[SessionRecord]
    topics: list[TopicRecord]


class Sequences:
    """Creates, lists, describes and deletes sequences."""

    def __init__(self, database: Database, deletion: Deletion) -> None:
        self._database = database
        self._deletion = deletion

    def create(self, name: str, user_metadata: dict[str, Any] | None = None) -> SequenceRecord:
        """Create an empty sequence.

        Raises:
            InvalidNameError: If the name breaks the rules.
            BadRequestError: If a metadata key does.
            AlreadyExistsError: If the name is taken.
        """
        parse_sequence_name(name)
        check_metadata_keys(user_metadata or {})
        values = {"name": name, "user_metadata": to_json(user_metadata or {}), "created_at_ns": time.time_ns()}
        with self._database.transaction() as connection:
            try:
                row = connection.execute(insert(sequences).values(values).returning(sequences)).one()
            except IntegrityError:
                raise AlreadyExistsError("sequence", name) from None
            index_sequence_metadata(connection, row.id, user_metadata or {})
            return sequence_record(row)

    def replace_metadata(self, name: str, user_metadata: dict[str, Any]) -> None:
        """Replace the metadata of a sequence of which nothing is published yet.

        What an ingestion finds out while it reads a recording belongs to what the sequence says about itself.

        Raises:
            NotFoundError: If there is no such sequence.
            BadRequestError: If a metadata key breaks the rules.
            StateError: If a session of it is finalized, or being finalized: what is published never changes.
        """
        check_metadata_keys(user_metadata)
        published = (SessionState.COMMITTING, SessionState.FINALIZED)
        with self._database.transaction() as connection:
            row = connection.execute(
                select(sequences.c.id).where(sequences.c.name == name).with_for_update()
            ).one_or_none()
            if row is None:
                raise NotFoundError("sequence", name)
            is_published = exists().where(sessions.c.sequence_id == row.id, sessions.c.state.in_(published))
            if connection.scalar(select(is_published)):
                raise StateError(f"sequence {quoted(name)} is published: its metadata does not change any more")
            connection.execute(
                update(sequences).where(sequences.c.id == row.id).values(user_metadata=to_json(user_metadata))
            )
            connection.execute(delete(sequence_metadata).where(sequence_metadata.c.owner_id == row.id))
            index_sequence_metadata(connection, row.id, user_metadata)

    def get(self, name: str) -> SequenceRecord:
        """The sequence of that name.

        Raises:
            NotFoundError: If there is none.
        """
        parse_sequence_name(name)
        with self._database.snapshot() as connection:
            record = find_sequence(connection, name)
        if record is None:
            raise NotFoundError("sequence", name)
        return record

    def names(self) -> list[str]:
        """The names of all sequences, sorted by code point."""
        with self._database.snapshot() as connection:
            return sorted(connection.scalars(select(sequences.c.name)))

    def with_metadata(self, path: str, value: str) -> list[SequenceRecord]:
        """The sequences whose user metadata has this text at this path (`a.b[0]`), in creation order."""
        with self._database.snapshot() as connection:
            return sequences_with(connection, path, value)

    def describe(self, name: str) -> SequenceDescription:
        """The sequence with its sessions and topics, as of one moment.

        Raises:
            NotFoundError: If there is none.
        """
        parse_sequence_name(name)
        with self._database.snapshot() as connection:
            sequence = find_sequence(connection, name)
            if sequence is None:
                raise NotFoundError("sequence", name)
            return SequenceDescription(
                sequence,
                [
                    session_record(row)
                    for row in connection.execute(select_sessions().where(sessions.c.sequence_id == sequence.id))
                ],
                [
                    topic_record(row)
                    for row in connection.execute(select_topics().where(topics.c.sequence_id == sequence.id))
                ],
            )

    def delete(self, name: str) -> None:
        """Delete the sequence with all sessions, topics, rows and notifications, whatever their state.

        Raises:
            NotFoundError: If there is none.
        """
        self._deletion.delete_sequence(parse_sequence_name(name))
