"""Deleting topics, sessions and sequences: rows, control plane and SQL metadata vanish in one transaction."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, select

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.metadata_tables import MetadataPlan, MetadataTables
from lakehouse.catalog.commits.pending_deletions import (
    PendingDeletion,
    add_pending,
    find_pending,
    read_pending,
    remove_pending,
)
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError, TableChange
from lakehouse.catalog.commits.stepwise import DELETION_SUMMARY
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import select_topics, topic_record
from lakehouse.catalog.control_plane.schema import data_files, notifications, sequences, sessions, topics
from lakehouse.catalog.errors import CommitConflictError, NotFoundError, StateError, quoted
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.locators import SessionLocator, TopicLocator, parse_resource
from lakehouse.catalog.records import SessionState, TopicRecord
from lakehouse.catalog.storage import Warehouse


@dataclass(frozen=True)
class _Target:
    """What is to be deleted: the row itself, and which topics go with it.

    A topic path is unique within its sequence, and a table holds one path: so the rows of a topic are exactly the
    rows of its sequence in its table, and every deletion drops whole files of that partition.
    """

    kind: str
    name: str
    table: Table
    row_id: Callable[[Connection], int | None]
    topics_of: Callable[[int], ColumnElement[bool]]
    only_in: SessionState | None = None

    @property
    def sequence(self) -> str:
        resource = parse_resource(self.name)
        return resource if isinstance(resource, str) else resource.sequence


Check = Callable[[Connection], None]


def _let_pass(_connection: Connection) -> None:
    """No further condition."""


class Deletion:
    """Plans and commits deletions, in any state of what is deleted."""

    def __init__(
        self, database: Database, warehouse: Warehouse, committer: Committer, metadata_tables: MetadataTables
    ) -> None:
        self._database = database
        self._warehouse = warehouse
        self._committer = committer
        self._metadata_tables = metadata_tables

    def delete_sequence(self, name: str, *, check: Check = _let_pass) -> None:
        """See `Sequences.delete`; `check` may refuse in the transaction of the deletion by raising."""
        self._delete(
            _Target(
                "sequence",
                name,
                sequences,
                lambda connection: connection.scalar(select(sequences.c.id).where(sequences.c.name == name)),
                lambda row_id: topics.c.sequence_id == row_id,
            ),
            check,
        )

    def delete_session(self, locator: SessionLocator, *, only_in: SessionState | None = None) -> None:
        """See `Sessions.delete`.

        Args:
            locator: The session.
            only_in: Refuse one in any other state, also if it gets there meanwhile.

        Raises:
            NotFoundError: If there is none.
            StateError: If it may not be deleted.
        """
        query = (
            select(sessions.c.id)
            .join_from(sessions, sequences)
            .where(sequences.c.name == locator.sequence, sessions.c.ulid == locator.ulid)
        )
        self._delete(
            _Target(
                "session",
                str(locator),
                sessions,
                lambda connection: connection.scalar(query),
                lambda row_id: topics.c.session_id == row_id,
                only_in,
            )
        )

    def delete_topic(self, locator: TopicLocator, *, check: Check = _let_pass) -> None:
        """See `Topics.delete`; `check` as above."""
        query = (
            select(topics.c.id)
            .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
            .where(sequences.c.name == locator.sequence, topics.c.path == locator.path)
        )
        self._delete(
            _Target(
                "topic",
                str(locator),
                topics,
                lambda connection: connection.scalar(query),
                lambda row_id: topics.c.id == row_id,
            ),
            check,
        )

    def finish_interrupted(self, sequence: str | None = None) -> int:
        """Carry through deletions that were interrupted, of one sequence or of all; returns how many there were.

        Raises:
            StorageError: If the warehouse, the database or the catalog fails.
            CommitConflictError: If other writers kept winning the race for the tables.
        """
        with self._database.snapshot() as connection:
            pending = read_pending(connection, sequence)
        for deletion in pending:
            self._committer.commit(partial(self._prepare_rest, deletion.ticket))
        return len(pending)

    def _delete(self, target: _Target, check: Check = _let_pass) -> None:
        actor = audit.current_actor()
        ticket = str(uuid.uuid4())
        unpublished: list[str] = []

        def prepare() -> CommitPlan:
            with self._database.snapshot() as connection:
                if find_pending(connection, ticket) is not None:
                    return self._prepare_rest(ticket)
                row_id = target.row_id(connection)
                if row_id is None:
                    raise NotFoundError(target.kind, target.name)
                _check_state(connection, target, row_id)
                condition = target.topics_of(row_id)
                members = [topic_record(row) for row in connection.execute(select_topics().where(condition))]
                has_notes = bool(connection.scalar(select(exists().where(notifications.c.topic_id == row_id))))
            published = [topic for topic in members if topic.session_is_finalized]
            removed = _tables_with_rows(published)
            retracted = self._retract(target, published, has_notes)

            def announce(connection: Connection) -> None:
                retracted.check(connection)
                check(connection)
                unpublished[:] = _remove(connection, target, row_id, published)
                add_pending(connection, PendingDeletion(ticket, target.kind, target.name, target.sequence, removed))
                audit.record(connection, f"{target.kind}_delete", target.name, actor=actor, topics=len(members))

            return self._plan(target.kind, target.name, target.sequence, removed, retracted, ticket, announce)

        self._committer.commit(prepare)
        self._warehouse.discard(unpublished)

    def _prepare_rest(self, ticket: str) -> CommitPlan:
        """What is left of a deletion that was announced: every step of it may be repeated."""
        with self._database.snapshot() as connection:
            pending = find_pending(connection, ticket)
        if pending is None:
            return CommitPlan([], _nothing)
        retracted = self._metadata_tables.retract(pending.kind, pending.name)
        return self._plan(pending.kind, pending.name, pending.sequence, pending.tables, retracted, ticket, _nothing)

    def _plan(
        self,
        kind: str,
        name: str,
        sequence: str,
        tables: Sequence[str],
        retracted: MetadataPlan,
        ticket: str,
        announce: Callable[[Connection], None],
    ) -> CommitPlan:
        removals = [TableChange(identifier, delete_sequence=sequence) for identifier in tables]
        return CommitPlan(
            [*removals, *retracted.changes],
            lambda connection: remove_pending(connection, ticket),
            summary={DELETION_SUMMARY: f"{kind} {name}"},
            announce=announce,
        )

    def _retract(self, target: _Target, published: list[TopicRecord], has_notes: bool) -> MetadataPlan:
        if target.table is topics and not published and not has_notes:
            return MetadataPlan([])
        return self._metadata_tables.retract(target.kind, target.name)


def _nothing(_connection: Connection) -> None:
    """A part of a plan that writes no rows."""


def _tables_with_rows(published: list[TopicRecord]) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                topic.table_identifier
                for topic in published
                if topic.table_identifier is not None and topic.row_count > 0
            }
        )
    )


def _remove(connection: Connection, target: _Target, row_id: int, published: list[TopicRecord]) -> list[str]:
    """Remove the row and all below it; returns the URIs of files that were never published.

    Raises:
        NotFoundError: If someone else was faster.
        StalePlanError: If a session was finalized since the plan was made.
    """
    # Lock in the order every writer takes: sequence, session, topic.
    if target.table is not topics:
        connection.execute(select(target.table.c.id).where(target.table.c.id == row_id).with_for_update())
    _check_state(connection, target, row_id)
    condition = target.topics_of(row_id)
    session_ids = select(topics.c.session_id).where(condition)
    connection.execute(select(sessions.c.id).where(sessions.c.id.in_(session_ids)).order_by("id").with_for_update())
    connection.execute(select(topics.c.id).where(condition).order_by("id").with_for_update())
    now_published = connection.scalars(
        select(topics.c.id).join_from(topics, sessions).where(and_(condition, sessions.c.state == "finalized"))
    )
    if set(now_published) != {topic.id for topic in published}:
        raise StalePlanError
    states = select(sessions.c.state).where(sessions.c.id.in_(session_ids))
    if SessionState.COMMITTING in connection.scalars(states).all():
        raise CommitConflictError(
            f"a session of {target.kind} {quoted(target.name)} is being finalized: try again when it is; "
            "an interrupted one is carried through when a gateway starts"
        )
    entries = connection.scalars(select(data_files.c.entry).join_from(data_files, topics).where(condition)).all()
    if connection.execute(delete(target.table).where(target.table.c.id == row_id)).rowcount != 1:
        raise NotFoundError(target.kind, target.name)
    return [DataFileEntry.from_bytes(entry).path for entry in entries]


def _check_state(connection: Connection, target: _Target, session_id: int) -> None:
    if target.only_in is None:
        return
    state = connection.scalar(select(sessions.c.state).where(sessions.c.id == session_id))
    if state is not None and state != target.only_in:
        raise StateError(f"session {quoted(target.name)} is {state}: only {target.only_in} sessions can be discarded")
