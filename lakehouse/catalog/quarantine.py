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
from lakehouse.catalog.failing_rules import accept as accept_failing
from lakehouse.catalog.locators import SessionLocator, parse_sequence_name
from lakehouse.catalog.records import SessionRecord, SessionState, TopicState

MAX_REASON_LENGTH = 900
"""Leaves room for the name of the session in an error text."""
_NAMED = 5


class _HoldsMoreError(StateError):
    """The sequence of a session holds others."""


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
            accept_failing(connection, session.id)
            audit.record(connection, "session_release", locator, actor=actor, reason=session.quarantine_reason)

        self._finalization.finalize(session.uuid, releases=True, released=record)

    def discard(self, locator: SessionLocator) -> bool:
        """Delete a session in quarantine with everything uploaded to it, and its sequence if that holds nothing else.

        A sequence without any session is what a client has before it uploads; after this it would be a name that
        nobody can explain, and that stands in the way of the next upload.

        Returns:
            Whether the sequence was deleted too.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is not in quarantine.
        """
        session = self._in_quarantine(locator)
        actor = audit.current_actor()

        def check(connection: Connection) -> None:
            # Held first: no session can be added from here on.
            held = select(sequences.c.id).where(sequences.c.id == session.sequence_id).with_for_update()
            connection.execute(held)
            members = connection.execute(
                select(sessions.c.id, sessions.c.state).where(sessions.c.sequence_id == session.sequence_id)
            ).all()
            if [(row.id, row.state) for row in members] != [(session.id, SessionState.QUARANTINED)]:
                raise _HoldsMoreError(f"sequence {quoted(locator.sequence)} holds other sessions")
            audit.record(connection, "session_delete", locator, actor=actor, reason=session.quarantine_reason)

        try:
            self._deletion.delete_sequence(locator.sequence, check=check)
        except _HoldsMoreError:
            self._deletion.delete_session(locator, only_in=SessionState.QUARANTINED)
            return False
        return True

    def named(self, name: str) -> SessionLocator:
        """The session in quarantine that a locator, or the name of its sequence alone, stands for.

        Raises:
            InvalidNameError: If it can be neither.
            NotFoundError: If no session of that sequence is in quarantine.
            StateError: If several are.
        """
        if ":" in name:
            return SessionLocator.parse(name)
        sequence = parse_sequence_name(name)
        found = [session.locator for session in self.sessions() if session.locator.sequence == sequence]
        if len(found) > 1:
            listed = ", ".join(str(locator) for locator in found[:_NAMED])
            raise StateError(f"sequence {quoted(sequence)} has {len(found)} sessions in quarantine, name one: {listed}")
        if not found:
            raise NotFoundError("session in quarantine of sequence", sequence)
        return found[0]

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
