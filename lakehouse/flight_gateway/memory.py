"""Giving memory back to the operating system after bursts, but not between two messages.

Serving hundreds of calls at once touches gigabytes for a moment. The C library keeps what is freed, per thread arena,
unless told otherwise, and a gateway runs for months. Told to return every large block at once, it does so after every
message: the kernel then clears new pages for the next one, which takes three times the processor time of passing
the message through gRPC. So blocks of the size of messages stay in few arenas, which are trimmed now and then.
"""

import ctypes
import threading

import pyarrow as pa

_INTERVAL_S = 30.0
# Parameters of mallopt(3). Setting the thresholds also stops them from growing with the sizes that are freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Above the largest message of the official client.
_LARGE_BLOCK = 64 << 20
_FREE_AT_TOP = 128 << 20
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
    """Few arenas, and only blocks larger than messages outside of them. Only glibc needs it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_ARENA_MAX, _ARENAS)
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _FREE_AT_TOP)
