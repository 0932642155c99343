"""Sessions: immutable layers of a sequence, uploaded as a unit and then finalized."""

import time
import uuid
from collections.abc import Callable, Collection

from sqlalchemy import Connection, insert, or_

from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.finalization import Finalization
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_sequence, select_sessions, session_record
from lakehouse.catalog.control_plane.schema import sessions
from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.locators import SessionLocator, new_ulid, parse_sequence_name, parse_uuid
from lakehouse.catalog.records import SessionRecord, SessionState

Admission = Callable[[SessionRecord], Collection[int]]
"""Looks at a session that is about to be committed; returns the ids of the topics it has judged, or raises a
`ContractBreachError`."""


class Sessions:
    """Creates, finalizes and deletes sessions.

    Attributes:
        admission: What every session of this process has to pass before it is committed; None: all pass.
    """

    def __init__(self, database: Database, finalization: Finalization, deletion: Deletion) -> None:
        self.admission: Admission | None = None
        self._database = database
        self._finalization = finalization
        self._deletion = deletion

    def create(self, sequence_name: str) -> SessionRecord:
        """Open a session on a sequence.

        Raises:
            NotFoundError: If there is no such sequence.
        """
        parse_sequence_name(sequence_name)
        now_ns = time.time_ns()
        with self._database.transaction() as connection:
            sequence = find_sequence(connection, sequence_name, lock=True)
            if sequence is None:
                raise NotFoundError("sequence", sequence_name)
            session_uuid = str(uuid.uuid4())
            connection.execute(
                insert(sessions).values(
                    sequence_id=sequence.id,
                    uuid=session_uuid,
                    public_uuid=str(uuid.uuid4()),
                    ulid=new_ulid(now_ns),
                    state=SessionState.OPEN,
                    created_at_ns=now_ns,
                )
            )
            return _find_by_uuid(connection, session_uuid)

    def finalize(self, session_uuid: str) -> None:
        """Make the session visible to every reader, at one instant, and immutable.

        Raises:
            NotFoundError: If there is no such session.
            StateError: If it is finalized already, holds no topic, a topic's upload has not ended, or it is in
                quarantine.
            ContractBreachError: If it does not pass the admission.
            CommitConflictError: If other writers kept winning the race for its tables.
        """
        session_uuid = parse_uuid(session_uuid)
        if self.admission is None:
            self._finalization.finalize(session_uuid)
            return
        session = self._finalization.check_ready(session_uuid)
        # One that is being committed has passed.
        is_new = session.state is not SessionState.COMMITTING
        judged = self.admission(session) if is_new else None
        self._finalization.finalize(session_uuid, judged=judged, releases=is_new)

    def delete(self, locator: SessionLocator) -> None:
        """Delete the session with its topics, rows and notifications; the sequence stays.

        Raises:
            NotFoundError: If there is no such session.
        """
        self._deletion.delete_session(locator)

    def delete_by_uuid(self, session_uuid: str) -> None:
        """The same, for clients that name a session by its public UUID or hold its secret one.

        Raises:
            NotFoundError: If there is no such session.
        """
        with self._database.snapshot() as connection:
            locator = _find_by_uuid(connection, parse_uuid(session_uuid), public_too=True).locator
        self._deletion.delete_session(locator)


def _find_by_uuid(connection: Connection, session_uuid: str, *, public_too: bool = False) -> SessionRecord:
    matches = sessions.c.uuid == session_uuid
    if public_too:
        matches = or_(matches, sessions.c.public_uuid == session_uuid)
    row = connection.execute(select_sessions().where(matches)).one_or_none()
    if row is None:
        raise NotFoundError("session", session_uuid)
    return session_record(row)
