"""Sessions that somebody began and did not end: interrupted ones are carried through, stale ones may be discarded."""

import logging
import time
from contextlib import AbstractContextManager

from sqlalchemy import exists, or_, select

from lakehouse.catalog import audit
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.finalization import Finalization
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import select_sessions, session_record
from lakehouse.catalog.control_plane.schema import sessions, topics
from lakehouse.catalog.errors import LakehouseError, NotFoundError, StateError, quoted
from lakehouse.catalog.records import SessionRecord, SessionState

NANOSECONDS = 1_000_000_000

logger = logging.getLogger(__name__)


class Recovery:
    """Finds such sessions and ends them; safe beside any number of processes that do the same."""

    def __init__(self, database: Database, finalization: Finalization, deletion: Deletion) -> None:
        self._database = database
        self._finalization = finalization
        self._deletion = deletion

    def interrupted(self) -> list[SessionRecord]:
        """Sessions in the middle of being finalized, oldest first.

        One that another process is finalizing right now is among them; resuming it too does no harm.
        """
        with self._database.snapshot() as connection:
            query = select_sessions().where(sessions.c.state == SessionState.COMMITTING)
            return [session_record(row) for row in connection.execute(query)]

    def resume(self, session: SessionRecord) -> None:
        """Carry an interrupted session through; nothing happens if it is finalized by now.

        Raises:
            NotFoundError: If it was deleted meanwhile.
            StateError: If it was never begun to be finalized.
            CommitConflictError: If other writers kept winning the race for its tables.
            StorageError: If the warehouse, the database or the catalog fails; it stays interrupted then.
        """
        match self._state(session):
            case SessionState.FINALIZED:
                return
            case SessionState.OPEN | SessionState.QUARANTINED as state:
                raise StateError(f"session {quoted(session.locator)} is {state}: nobody has begun to finalize it")
        with _acting_for_whoever_asks():
            try:
                self._finalization.finalize(session.uuid)
            except StateError:
                if self._state(session) is not SessionState.FINALIZED:
                    raise

    def resume_all(self) -> int:
        """Carry through what was interrupted, deletions included, as far as possible; returns how many there were.

        Raises:
            StorageError: If the database fails.
        """
        resumed = 0
        try:
            resumed = self._deletion.finish_interrupted()
        except LakehouseError as error:
            logger.warning("a deletion is still interrupted: %s", error)
        for session in self.interrupted():
            try:
                self.resume(session)
                resumed += 1
            except LakehouseError as error:
                logger.warning("session %s is still interrupted: %s", session.locator, error)
        return resumed

    def stale(self, older_than_s: float) -> list[SessionRecord]:
        """Open sessions in which nothing has begun or ended for that many seconds, oldest first.

        An upload that is running leaves no trace until it ends: choose more than the longest one takes.
        """
        before_ns = time.time_ns() - int(older_than_s * NANOSECONDS)
        recent = exists().where(
            topics.c.session_id == sessions.c.id,
            or_(topics.c.created_at_ns > before_ns, topics.c.completed_at_ns > before_ns),
        )
        query = select_sessions().where(
            sessions.c.state == SessionState.OPEN, sessions.c.created_at_ns <= before_ns, ~recent
        )
        with self._database.snapshot() as connection:
            return [session_record(row) for row in connection.execute(query)]

    def discard(self, session: SessionRecord) -> None:
        """Delete an open session with everything uploaded to it; its sequence stays.

        Raises:
            NotFoundError: If there is no such session any more.
            StateError: If it is finalized or being finalized.
        """
        with _acting_for_whoever_asks():
            self._deletion.delete_session(session.locator, only_in=SessionState.OPEN)

    def _state(self, session: SessionRecord) -> SessionState:
        with self._database.snapshot() as connection:
            state = connection.scalar(select(sessions.c.state).where(sessions.c.uuid == session.uuid))
        if state is None:
            raise NotFoundError("session", session.locator)
        return SessionState(state)


def _acting_for_whoever_asks() -> AbstractContextManager[None]:
    """In the audit log: nobody asked for just this session, but somebody set the recovery going."""
    return audit.acting_as(f"recovery, for {audit.current_actor().name}")
