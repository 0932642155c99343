"""Giving memory back to the operating system after bursts.

Serving hundreds of calls at once touches gigabytes for a moment. The C library keeps what is freed, per thread arena,
unless told otherwise, and a gateway runs for months.
"""

import ctypes
import threading

import pyarrow as pa

_INTERVAL_S = 30.0
# Parameters of mallopt(3). Setting the threshold also stops it from growing with the sizes that are freed.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BLOCK = 1 << 20
_ARENAS = 4


class MemoryReturner:
    """A background thread that releases unused memory now and then."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-returner", daemon=True)

    def start(self) -> None:
        _limit_arenas()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            pa.default_memory_pool().release_unused()
            pa.system_memory_pool().release_unused()


def _limit_arenas() -> None:
    """Few arenas, and large blocks outside of them, where freeing returns them at once. Only glibc needs it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_ARENA_MAX, _ARENAS)
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
