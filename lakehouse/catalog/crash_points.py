"""Named points at which a test may end the process, as `kill -9` or a power cut would.

Nothing happens unless the environment variable `LAKEHOUSE_CRASH_AT` names a point, optionally with the number of the
visit that kills: `pointer-swap:after:2` ends the process at the second visit of `pointer-swap:after`.
"""

import os
import signal
import threading

_SPECIFICATION = os.environ.get("LAKEHOUSE_CRASH_AT", "")
_visits = 0
_lock = threading.Lock()


def reach(point: str) -> None:
    """Mark that the process is at `point`; kills it with SIGKILL when the environment asks for it."""
    if not _SPECIFICATION:
        return
    name, _, ordinal = _SPECIFICATION.rpartition(":")
    if not ordinal.isdigit():
        name, ordinal = _SPECIFICATION, "1"
    if point != name:
        return
    global _visits
    with _lock:
        _visits += 1
        reached = _visits == int(ordinal)
    if reached:
        os.kill(os.getpid(), signal.SIGKILL)
