"""Taking turns: of all processes on one control plane, one at a time does what would be in vain if two did it at once.

This saves work and promises nothing. A turn is lost when its owner hangs or its connection breaks, and whoever has
waited long enough goes on without one: what is done in a turn must be right outside of one too.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.file_queue import FileQueue

# An owner that does nothing for so long has hung, or its machine is gone. PostgreSQL ends its turn then.
LONGEST_TURN_S = 10.0
# Longer than that, so that those who wait behind one that hangs keep their order.
PATIENCE_S = 15.0
# Waiting for a turn takes a connection of the pool; two must be left, for whoever writes and for those who read.
FEWEST_CONNECTIONS = 3
_LOCK = 0x6D6F7361_7475726E  # any constant that nobody else uses for a PostgreSQL advisory lock

logger = logging.getLogger(__name__)

# The parts of a SELECT are evaluated in this order. A lock of the transaction, not of the session, is also right behind
# a pooler that lends out a connection for one transaction at a time. Attempts do not overtake those who wait.
_TAKE = text(
    "SELECT set_config('lock_timeout', :patience_ms, true), "
    "set_config('idle_in_transaction_session_timeout', :longest_turn_ms, true), "
    "CASE WHEN pg_try_advisory_xact_lock(:key) THEN false ELSE pg_advisory_xact_lock(:key)::text IS NOT NULL END"
)


class _Queue(Protocol):
    def take(self) -> tuple[Callable[[], None] | None, bool]:
        """What ends the turn, None if it did not come; and whether there was somebody to wait for.

        Raises:
            OSError, SQLAlchemyError: If there is no way to take turns.
        """
        ...


class Turns:
    """The turns of one process on a control plane; its threads must not want several at once.

    Args:
        database: Of the control plane.
        activity: Counts turns that were waited for.
        patience_s: The longest wait, in seconds.
        longest_turn_s: After so many seconds in which its owner does nothing with it, a turn may end.
    """

    def __init__(
        self,
        database: Database,
        activity: Activity,
        patience_s: float = PATIENCE_S,
        longest_turn_s: float = LONGEST_TURN_S,
    ) -> None:
        self._activity = activity
        self._told_at = logging.WARNING
        self._queue = _queue(database, patience_s, longest_turn_s)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, then have it, or go on without one. Nobody waits while another connection is held."""
        end = self._take()
        try:
            yield
        finally:
            if end is not None:
                end()

    def _take(self) -> Callable[[], None] | None:
        if self._queue is None:
            return None
        try:
            end, waited = self._queue.take()
        except (OSError, SQLAlchemyError) as error:
            logger.log(self._told_at, "no turns are taken with other processes: %s", type(error).__name__)
            self._told_at = logging.DEBUG
            return None
        self._activity.add(commit_turns_waited_for=waited, commit_turns_missed=end is None)
        return end


def _queue(database: Database, patience_s: float, longest_turn_s: float) -> _Queue | None:
    if database.is_sqlite:
        path = make_url(database.url).database
        return _SqliteQueue(path, patience_s) if path and not path.startswith((":memory:", "file:")) else None
    if database.connections()[1] < FEWEST_CONNECTIONS:
        return None
    return _PostgresQueue(database, patience_s, longest_turn_s)


class _SqliteQueue:
    """At a file beside the database."""

    def __init__(self, database_path: str, patience_s: float) -> None:
        self._file = FileQueue(f"{database_path}-turn")
        self._patience_s = patience_s

    def take(self) -> tuple[Callable[[], None] | None, bool]:
        end = self._file.try_take()
        return (end, False) if end is not None else (self._file.take(self._patience_s), True)


class _PostgresQueue:
    """At an advisory lock. The server hands it on in order, also when its owner dies or hangs."""

    def __init__(self, database: Database, patience_s: float, longest_turn_s: float) -> None:
        self._engine = database.engine
        self._parameters = {
            "patience_ms": str(max(1, int(patience_s * 1000))),  # 0 would be for ever
            "longest_turn_ms": str(int(longest_turn_s * 1000)),
            "key": _LOCK,
        }

    def take(self) -> tuple[Callable[[], None] | None, bool]:
        connection = self._engine.connect()
        try:
            waited = connection.execute(_TAKE, self._parameters).one()[2]
        except BaseException as error:
            _end(connection)
            if getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03":  # lock not available
                return None, True
            raise
        return lambda: _end(connection), waited


def _end(connection: Connection) -> None:
    """End the transaction and with it the turn, if the server has not done so already."""
    with suppress(SQLAlchemyError):
        connection.rollback()
    connection.close()
