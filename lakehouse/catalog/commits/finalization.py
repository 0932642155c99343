"""Finalizing a session: everything it holds becomes visible to every reader in one transaction."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import replace
from threading import Event

from sqlalchemy import Connection, delete, select, update

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.metadata_tables import MetadataTables
from lakehouse.catalog.commits.pending_deletions import is_pending
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError, TableChange
from lakehouse.catalog.commits.stepwise import SESSION_SUMMARY
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import (
    find_sequence,
    select_sessions,
    select_topics,
    session_record,
    topic_record,
)
from lakehouse.catalog.control_plane.schema import data_files, pending_deletions, sequences, sessions, topics
from lakehouse.catalog.errors import CommitConflictError, LakehouseError, NotFoundError, StateError, quoted
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.records import SessionRecord, SessionState, TopicRecord, TopicState


class Finalization:
    """Turns an open session into a commit over its topic tables, the metadata tables and the control plane."""

    def __init__(
        self, database: Database, committer: Committer, metadata_tables: MetadataTables, deletion: Deletion
    ) -> None:
        self._database = database
        self._deletion = deletion
        self._committer = committer
        self._metadata_tables = metadata_tables

    def finalize(
        self,
        session_uuid: str,
        *,
        judged: Collection[int] | None = None,
        releases: bool = False,
        released: Callable[[Connection], None] = lambda _connection: None,
    ) -> None:
        """See `Sessions.finalize`.

        Args:
            session_uuid: The session.
            judged: Ids of the topics that were judged before: the session must hold these and no others.
            releases: Whether it may be in quarantine.
            released: Called in the transaction that takes it out of quarantine.
        """
        actor = audit.current_actor()
        self._finish_deletions(session_uuid)
        announced = Event()

        def prepare() -> CommitPlan:
            plan = self._prepare(session_uuid, actor, judged, releases, released)

            def announce(connection: Connection) -> None:
                plan.announce(connection)
                announced.set()

            return replace(plan, announce=announce)

        try:
            self._committer.commit(prepare)
        except StateError:
            # Whoever finds it announced may carry it through first: a gateway that has just started, say.
            if not (self._committer.announces and announced.is_set() and self._is_finalized(session_uuid)):
                raise

    def _is_finalized(self, session_uuid: str) -> bool:
        with self._database.snapshot() as connection:
            state = connection.scalar(select(sessions.c.state).where(sessions.c.uuid == session_uuid))
        return bool(state == SessionState.FINALIZED)

    def check_ready(self, session_uuid: str) -> SessionRecord:
        """The session, if all of it is uploaded and it is not finalized yet.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is finalized already, holds no topic, or a topic's upload has not ended.
        """
        with self._database.snapshot() as connection:
            session, members, _ = _read(connection, session_uuid)
        _check_ready(session, members)
        return session

    def _finish_deletions(self, session_uuid: str) -> None:
        """Rows that an interrupted deletion left must be gone before others come in their place."""
        query = (
            select(pending_deletions.c.sequence)
            .join_from(pending_deletions, sequences, pending_deletions.c.sequence == sequences.c.name)
            .join(sessions, sessions.c.sequence_id == sequences.c.id)
            .where(sessions.c.uuid == session_uuid)
        )
        with self._database.snapshot() as connection:
            sequence = connection.scalar(query.limit(1))
        if sequence is not None:
            self._deletion.finish_interrupted(sequence)

    def _prepare(
        self,
        session_uuid: str,
        actor: audit.Actor,
        judged: Collection[int] | None,
        releases: bool,
        released: Callable[[Connection], None],
    ) -> CommitPlan:
        self._metadata_tables.ensure()
        with self._database.snapshot() as connection:
            session, members, announced_ns = _read(connection, session_uuid)
            _check_ready(session, members)
            _check_admitted(session, members, judged, releases)
            entries = _recorded_files(connection, session.id)
            sequence = find_sequence(connection, session.locator.sequence)
            if sequence is None:
                raise NotFoundError("session", session_uuid)
            # A finalize that is taken up again ends the session at the time that was announced.
            completed_at_ns = announced_ns or time.time_ns()
            published = self._metadata_tables.publish(connection, sequence, session, members, completed_at_ns)
        is_repeated = session.state is SessionState.COMMITTING
        changes = [
            TableChange(topic.table_identifier, add=entries[topic.id], is_repeated=is_repeated)
            for topic in members
            if topic.table_identifier is not None and entries[topic.id]
        ]
        announces = self._committer.announces

        def announce(connection: Connection) -> None:
            if is_pending(connection, session.locator.sequence):
                raise CommitConflictError("a deletion in the same sequence is not through yet; try again")
            published.check(connection)
            # In the transaction in which it is finalized too, nobody sees it on the way there.
            state = SessionState.COMMITTING if announces else SessionState.FINALIZED
            _mark(connection, session, state, {topic.id for topic in members}, completed_at_ns, releases)
            if session.state is SessionState.QUARANTINED:
                released(connection)

        def apply(connection: Connection) -> None:
            if announces:
                published.check(connection)
                _mark_finalized(connection, session, completed_at_ns)
            _forget_recorded_files(connection, session)
            audit.record(connection, "session_finalize", session.locator, actor=actor, topics=len(members))

        summary = {SESSION_SUMMARY: str(session.locator)}
        return CommitPlan([*changes, *published.changes], apply, announce=announce, summary=summary)


def _read(connection: Connection, session_uuid: str) -> tuple[SessionRecord, list[TopicRecord], int | None]:
    """A session, its topics, and the time that an interrupted finalize has announced."""
    row = connection.execute(select_sessions().where(sessions.c.uuid == session_uuid)).one_or_none()
    if row is None:
        raise NotFoundError("session", session_uuid)
    of_session = select_topics().where(topics.c.session_id == row.id)
    return session_record(row), [topic_record(each) for each in connection.execute(of_session)], row.completed_at_ns


def _check_admitted(
    session: SessionRecord, members: list[TopicRecord], judged: Collection[int] | None, releases: bool
) -> None:
    if session.state is SessionState.QUARANTINED and not releases:
        raise _kept_back(session)
    if judged is not None and {topic.id for topic in members} != set(judged):
        raise CommitConflictError(
            f"session {quoted(session.locator)} has other topics than when it was judged: finalize it again"
        )


def _kept_back(session: SessionRecord) -> StateError:
    return StateError(
        f"session {quoted(session.locator)} is in quarantine until an operator releases or discards it: "
        f"{session.quarantine_reason}"
    )


def _check_ready(session: SessionRecord, members: list[TopicRecord]) -> None:
    if session.state is SessionState.FINALIZED:
        raise StateError(f"session {quoted(session.locator)} is already finalized")
    if not members:
        raise StateError(f"session {quoted(session.locator)} is empty: it has no topic")
    for topic in members:
        if topic.state is TopicState.EMPTY:
            raise StateError(f"topic {quoted(topic.locator)} has not been uploaded yet")
        if topic.state is TopicState.UPLOADING:
            raise StateError(f"topic {quoted(topic.locator)} is still uploading, or its upload broke off")


def _recorded_files(connection: Connection, session_id: int) -> dict[int, list[DataFileEntry]]:
    entries: dict[int, list[DataFileEntry]] = defaultdict(list)
    query = (
        select(data_files.c.topic_id, data_files.c.entry)
        .join_from(data_files, topics)
        .where(topics.c.session_id == session_id)
        .order_by(data_files.c.topic_id, data_files.c.ordinal)
    )
    for topic_id, entry in connection.execute(query):
        entries[topic_id].append(DataFileEntry.from_bytes(entry))
    return entries


def _mark(
    connection: Connection,
    session: SessionRecord,
    state: SessionState,
    planned_topics: set[int],
    completed_at_ns: int,
    releases: bool,
) -> None:
    """Take a session from the state that the plan was made for to the next, or the last one.

    Once another has announced it, files may be in the tables already, which only a plan made afterwards looks for. And
    of several who release it from quarantine, one does.
    """
    # The session's row first: it orders this against topic_create, deletes and another finalize.
    marked = connection.execute(
        update(sessions)
        .where(sessions.c.id == session.id, sessions.c.state == session.state)
        .values(state=state, completed_at_ns=completed_at_ns, quarantine_reason=None)
    )
    if marked.rowcount != 1:
        found = connection.scalar(select(sessions.c.state).where(sessions.c.id == session.id))
        if found == SessionState.COMMITTING or (found == SessionState.QUARANTINED and releases):
            raise StalePlanError
        raise _no_longer_open(connection, session)
    current = connection.execute(select(topics.c.id).where(topics.c.session_id == session.id)).scalars().all()
    if set(current) != planned_topics:
        raise StalePlanError


def _mark_finalized(connection: Connection, session: SessionRecord, completed_at_ns: int) -> None:
    marked = connection.execute(
        update(sessions)
        .where(sessions.c.id == session.id, sessions.c.state == SessionState.COMMITTING)
        .values(state=SessionState.FINALIZED, completed_at_ns=completed_at_ns)
    )
    if marked.rowcount != 1:
        raise _no_longer_open(connection, session)


def _forget_recorded_files(connection: Connection, session: SessionRecord) -> None:
    of_session = select(topics.c.id).where(topics.c.session_id == session.id)
    connection.execute(delete(data_files).where(data_files.c.topic_id.in_(of_session)))


def _no_longer_open(connection: Connection, session: SessionRecord) -> LakehouseError:
    row = connection.execute(select_sessions().where(sessions.c.id == session.id)).one_or_none()
    if row is None:
        return NotFoundError("session", session.uuid)
    if row.state == SessionState.QUARANTINED:
        return _kept_back(session_record(row))
    return StateError(f"session {quoted(session.locator)} is already finalized")
