"""Engine and transactions of the control-plane database."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import InvalidatePoolError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.pool import QueuePool

from lakehouse.catalog.errors import ConfigurationError, LakehouseError, StorageError

SQLITE_BUSY_TIMEOUT_S = 60
# Asking before every use whether a connection still lives would add a way to the server and back to each transaction.
TRUSTED_WHEN_IDLE_S = 1.0
_RETURNED_AT = "returned_at"
_TOO_BUSY = "the database is not available or too busy"


class Database:
    """One engine; every change goes through `transaction()`.

    On SQLite write transactions start with BEGIN IMMEDIATE, so that a transaction which read before it writes never
    fails half-way because another writer came between; WAL keeps readers unblocked and `synchronous=FULL` makes an
    acknowledged commit survive power loss. Writers of one process queue up before they take a connection, so that there
    is always one left to read with.
    """

    def __init__(self, url: str, max_connections: int = 10) -> None:
        parsed = make_url(url)
        self.url = url
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigurationError(f"MOSAICOD_DB_URL: unsupported database {parsed.get_backend_name()!r}")
        options: dict[str, Any] = {"poolclass": QueuePool, "pool_size": max_connections, "max_overflow": 0}
        # Errors end up in logs; parameters hold the UUIDs that entitle to write.
        options["hide_parameters"] = True
        if self.is_sqlite:
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            options["connect_args"] = {"timeout": SQLITE_BUSY_TIMEOUT_S, "check_same_thread": False}
        self._writing = threading.Lock()
        self.engine: Engine = create_engine(parsed, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "checkin", _note_return)
            event.listen(self.engine, "checkout", self._replace_if_dead)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A read-write transaction: committed on leaving, rolled back on any error.

        Raises:
            StorageError: If the database fails.
        """
        with self._translated_errors(), self._turn_to_write(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction that sees one consistent state and never waits for writers.

        Raises:
            StorageError: If the database fails.
        """
        options: dict[str, Any] = (
            {"sqlite_read_only": True} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        )
        with (
            self._translated_errors(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def connections(self) -> tuple[int, int]:
        """Connections at work at the moment, and the most there can be."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.size()

    def close(self) -> None:
        self.engine.dispose()

    def _replace_if_dead(self, dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        """The server, or something on the way to it, may have closed a connection that was not used for a while."""
        returned_at = record.info.get(_RETURNED_AT)
        if returned_at is None or time.monotonic() - returned_at < TRUSTED_WHEN_IDLE_S:
            return
        dialect = self.engine.dialect
        try:
            dialect.do_ping(dbapi_connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
        elif self._writing.acquire(timeout=SQLITE_BUSY_TIMEOUT_S):
            try:
                yield
            finally:
                self._writing.release()
        else:
            raise StorageError(_TOO_BUSY)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except LakehouseError:
            raise
        except (OperationalError, TimeoutError) as error:
            raise StorageError(_TOO_BUSY) from error
        except SQLAlchemyError as error:
            raise StorageError("the database refused the operation") from error


def _note_return(_dbapi_connection: Any, record: Any) -> None:
    record.info[_RETURNED_AT] = time.monotonic()


def _configure_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # SQLAlchemy must not emit its own BEGIN: see _begin_sqlite.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("sqlite_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
