"""Sessions kept from being committed because what they hold was found wanting.

A quarantined session is whole and sealed. Readers see of it what they see of an open one; nobody commits it but an
operator who releases it, or an audit that lets it pass after all.
"""

import time
from collections.abc import Collection

from sqlalchemy import Connection, select, update

from lakehouse.catalog import audit
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.finalization import Finalization
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import select_sessions, session_record
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.errors import CommitConflictError, NotFoundError, StateError, quoted, shorten
from lakehouse.catalog.locators import SessionLocator
from lakehouse.catalog.records import SessionRecord, SessionState, TopicState

MAX_REASON_LENGTH = 900
"""Leaves room for the name of the session in an error text."""


class Quarantine:
    """Puts sessions aside, and ends that one way or the other."""

    def __init__(self, database: Database, finalization: Finalization, deletion: Deletion) -> None:
        self._database = database
        self._finalization = finalization
        self._deletion = deletion

    def sessions(self) -> list[SessionRecord]:
        """All that are in quarantine, oldest first."""
        with self._database.snapshot() as connection:
            query = select_sessions().where(sessions.c.state == SessionState.QUARANTINED)
            return [session_record(row) for row in connection.execute(query)]

    def put(self, locator: SessionLocator, reason: str, judged: Collection[int] | None = None) -> None:
        """Put an open session aside; if it is already, the reason is replaced.

        Args:
            locator: The session.
            reason: For the operator.
            judged: Ids of the topics that were found wanting: the session must hold these and no others.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is finalized, or being finalized.
            CommitConflictError: If a topic is not uploaded, or it has other topics than those judged.
        """
        waiting = (SessionState.OPEN, SessionState.QUARANTINED)
        of_sequence = select(sequences.c.id).where(sequences.c.name == locator.sequence).scalar_subquery()
        with self._database.transaction() as connection:
            marked = connection.execute(
                update(sessions)
                .where(
                    sessions.c.sequence_id == of_sequence,
                    sessions.c.ulid == locator.ulid,
                    sessions.c.state.in_(waiting),
                )
                .values(
                    state=SessionState.QUARANTINED,
                    quarantine_reason=shorten(reason, MAX_REASON_LENGTH),
                    quarantined_at_ns=time.time_ns(),
                )
            )
            if marked.rowcount:
                _check_whole(connection, locator, judged)
                audit.record(connection, "session_quarantine", locator, reason=shorten(reason))
        if not marked.rowcount:
            raise StateError(
                f"session {quoted(locator)} is {self._session(locator).state}: it can only be kept back before"
            )

    def release(self, locator: SessionLocator) -> None:
        """Commit a session in spite of what was found.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is not in quarantine, or not ready to be committed.
            CommitConflictError: If other writers kept winning the race for its tables.
            StorageError: If database or warehouse fail.
        """
        session = self._in_quarantine(locator)
        actor = audit.current_actor()

        def record(connection: Connection) -> None:
            audit.record(connection, "session_release", locator, actor=actor, reason=session.quarantine_reason)

        self._finalization.finalize(session.uuid, releases=True, released=record)

    def discard(self, locator: SessionLocator) -> None:
        """Delete a session in quarantine with everything uploaded to it; its sequence stays.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is not in quarantine.
        """
        self._in_quarantine(locator)
        self._deletion.delete_session(locator, only_in=SessionState.QUARANTINED)

    def _in_quarantine(self, locator: SessionLocator) -> SessionRecord:
        session = self._session(locator)
        if session.state is not SessionState.QUARANTINED:
            raise StateError(f"session {quoted(locator)} is {session.state}: it is not in quarantine")
        return session

    def _session(self, locator: SessionLocator) -> SessionRecord:
        with self._database.snapshot() as connection:
            query = select_sessions().where(sequences.c.name == locator.sequence, sessions.c.ulid == locator.ulid)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError("session", locator)
        return session_record(row)


def _check_whole(connection: Connection, locator: SessionLocator, judged: Collection[int] | None) -> None:
    """Nothing comes into a session once its row is marked; what came before must be complete, and have been judged."""
    members = connection.execute(
        select(topics.c.id, topics.c.state)
        .join_from(topics, sessions, topics.c.session_id == sessions.c.id)
        .join(sequences, sessions.c.sequence_id == sequences.c.id)
        .where(sequences.c.name == locator.sequence, sessions.c.ulid == locator.ulid)
    ).all()
    is_whole = all(row.state == TopicState.FINALIZED for row in members)
    if not is_whole or (judged is not None and {row.id for row in members} != set(judged)):
        raise CommitConflictError(
            f"session {quoted(locator)} has topics that are not uploaded, or others than when it was judged: "
            "finalize it again"
        )
