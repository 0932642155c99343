"""Taking turns: of all processes on one control plane, one at a time does what would be in vain if two did it at once.

This saves work and promises nothing. A turn is lost when its owner hangs or its connection breaks, and whoever has
waited long enough goes on without one: what is done in a turn must be right outside of one too.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Protocol

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.file_queue import FileQueue

# An owner that shows no life for so long was stopped, or its machine is gone. PostgreSQL ends its turn then.
LONGEST_SILENCE_S = 10.0
SIGNS_OF_LIFE_PER_SILENCE = 4
# An owner that lives and has not come to an end by then hangs: it waits for an object store, say, that never answers.
LONGEST_TURN_S = 60.0
# Longer than the silence, so that those who wait behind one that hangs keep their order.
PATIENCE_S = 15.0
# Waiting for a turn takes a connection of the pool; two must be left, for whoever writes and for those who read.
FEWEST_CONNECTIONS = 3
_LOCK = 0x6D6F7361_7475726E  # any constant that nobody else uses for a PostgreSQL advisory lock

logger = logging.getLogger(__name__)

# The parts of a SELECT are evaluated in this order. A lock of the transaction, not of the session, is also right behind
# a pooler that lends out a connection for one transaction at a time. Attempts do not overtake those who wait.
_TAKE = text(
    "SELECT set_config('lock_timeout', :patience_ms, true), "
    "set_config('idle_in_transaction_session_timeout', :longest_silence_ms, true), "
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
        longest_silence_s: PostgreSQL ends a turn whose owner has shown no life for so many seconds.
        longest_turn_s: On PostgreSQL an owner that is still at work after so many seconds gives its turn back. A turn
            at a file ends with the work or the process, not before.
    """

    def __init__(
        self,
        database: Database,
        activity: Activity,
        patience_s: float = PATIENCE_S,
        longest_silence_s: float = LONGEST_SILENCE_S,
        longest_turn_s: float = LONGEST_TURN_S,
    ) -> None:
        self._activity = activity
        self._told_at = logging.WARNING
        self._queue = _queue(database, patience_s, longest_silence_s, longest_turn_s)

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


def _queue(database: Database, patience_s: float, longest_silence_s: float, longest_turn_s: float) -> _Queue | None:
    if database.is_sqlite:
        path = make_url(database.url).database
        return _SqliteQueue(path, patience_s) if path and not path.startswith((":memory:", "file:")) else None
    if database.connections()[1] < FEWEST_CONNECTIONS:
        return None
    return _PostgresQueue(database, patience_s, longest_silence_s, longest_turn_s)


class _SqliteQueue:
    """At a file beside the database."""

    def __init__(self, database_path: str, patience_s: float) -> None:
        self._file = FileQueue(f"{database_path}-turn")
        self._patience_s = patience_s

    def take(self) -> tuple[Callable[[], None] | None, bool]:
        end = self._file.try_take()
        return (end, False) if end is not None else (self._file.take(self._patience_s), True)


class _PostgresQueue:
    """At an advisory lock. The server hands it on in order, also when its owner dies or is stopped."""

    def __init__(self, database: Database, patience_s: float, longest_silence_s: float, longest_turn_s: float) -> None:
        self._engine = database.engine
        self._life = _SignsOfLife(longest_silence_s / SIGNS_OF_LIFE_PER_SILENCE, longest_turn_s)
        self._parameters = {
            "patience_ms": str(max(1, int(patience_s * 1000))),  # 0 would be for ever
            "longest_silence_ms": str(int(longest_silence_s * 1000)),
            "key": _LOCK,
        }

    def take(self) -> tuple[Callable[[], None] | None, bool]:
        connection = self._engine.connect()
        try:
            waited = connection.execute(_TAKE, self._parameters).one()[2]
            self._life.begin(connection)
        except BaseException as error:
            _end(connection)
            if getattr(getattr(error, "orig", None), "sqlstate", None) == "55P03":  # lock not available
                return None, True
            raise
        return self._life.end, waited


class _SignsOfLife:
    """Uses the connection of a turn now and then, which is idle while its owner works and looks as if that hung.

    One thread does so for turn after turn, and ends when it finds none: starting one for each would cost every commit.

    Args:
        interval_s: Between two signs, in seconds.
        longest_turn_s: The turn is given back after so many seconds.
    """

    def __init__(self, interval_s: float, longest_turn_s: float) -> None:
        self._interval_s = interval_s
        self._longest_turn_s = longest_turn_s
        self._mutex = threading.Lock()
        self._connection: Connection | None = None
        self._began_at = 0.0
        self._has_thread = False

    def begin(self, connection: Connection) -> None:
        with self._mutex:
            if not self._has_thread:
                threading.Thread(target=self._run, name="commit-turn-life", daemon=True).start()
                self._has_thread = True
            self._connection = connection
            self._began_at = time.monotonic()

    def end(self) -> None:
        """End the turn, if it has not ended already."""
        with self._mutex:
            self._end()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _end(connection)

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            with self._mutex:
                if self._connection is None:
                    self._has_thread = False
                    return
                if time.monotonic() - self._began_at > self._longest_turn_s or not _shows_life(self._connection):
                    self._end()


def _shows_life(connection: Connection) -> bool:
    """Whether the turn of this connection lasts, by asking the server."""
    try:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
    except connection.dialect.loaded_dbapi.Error:
        return False
    return True


def _end(connection: Connection) -> None:
    """End the transaction and with it the turn, if the server has not done so already.

    Not by way of SQLAlchemy: when it finds one connection closed it gives up all of the pool, as after a restart of the
    server, while here the server has closed just this one.
    """
    if not connection.invalidated:
        try:
            connection.dialect.do_rollback(connection.connection)
        except connection.dialect.loaded_dbapi.Error:
            connection.invalidate()
    connection.close()
