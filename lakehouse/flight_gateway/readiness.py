"""Whether calls would succeed: the database and a catalog beside it answer, and the warehouse can be reached."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

from sqlalchemy import text

from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.identifiers import METADATA_NAMESPACE
from lakehouse.catalog.lakehouse import Lakehouse

OK, UNREACHABLE = "ok", "unreachable"
# Orchestrators ask every few seconds and wait for one or a few.
PATIENCE_S = 3.0
# However many ask, the lake is looked at once in this time.
FRESH_S = 1.0

_log = logging.getLogger(__name__)


class Readiness:
    """Looks at the lake when asked, at most once per second, and never makes the asker wait for long."""

    def __init__(self, lakehouse: Lakehouse, patience_s: float = PATIENCE_S) -> None:
        self._checks: dict[str, Callable[[], None]] = {
            "database": lambda: _ask_database(lakehouse),
            "warehouse": lakehouse.warehouse.check_reachable,
        }
        if not lakehouse.table_files.catalog.shares_transactions:
            self._checks["catalog"] = lambda: _ask_catalog(lakehouse)
        self._patience_s = patience_s
        self._pool = ThreadPoolExecutor(len(self._checks), thread_name_prefix="readiness")
        self._pending: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._found: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """By name of what is needed: `ok` or `unreachable`."""
        with self._lock:
            if time.monotonic() - self._looked_at >= FRESH_S:
                self._found = self._look()
                self._looked_at = time.monotonic()
            return dict(self._found)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> dict[str, str]:
        for name, check in self._checks.items():
            # One that hangs since the last look still hangs: another would only wait behind it.
            if name not in self._pending or self._pending[name].done():
                self._pending[name] = self._pool.submit(check)
        deadline = time.monotonic() + self._patience_s
        return {name: _outcome(name, future, deadline) for name, future in self._pending.items()}


def _outcome(name: str, future: "Future[None]", deadline: float) -> str:
    try:
        future.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeoutError:
        return UNREACHABLE
    except StorageError as error:
        _log.warning("not ready: %s: %s", name, error.message)
        return UNREACHABLE
    return OK


def _ask_database(lakehouse: Lakehouse) -> None:
    with lakehouse.database.snapshot() as connection:
        connection.execute(text("SELECT 1"))


def _ask_catalog(lakehouse: Lakehouse) -> None:
    with lakehouse.database.snapshot() as connection:
        lakehouse.table_files.catalog.namespace_properties(connection, METADATA_NAMESPACE)
