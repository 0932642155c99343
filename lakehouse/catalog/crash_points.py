"""Named points at which a test may end the process, as `kill -9` or a power cut would.

Nothing happens unless the environment variable `LAKEHOUSE_CRASH_FILE` names a file whose content is a point, optionally
with the number of the visit that kills: `metadata-write:after:2` ends the process at the second visit of
`metadata-write:after`, counted from when the file was written.
"""

import os
import signal
import threading
from pathlib import Path

_visits: dict[str, int] = {}
_lock = threading.Lock()


def reach(point: str) -> None:
    """Mark that the process is at `point`; kills it with SIGKILL when the crash file asks for it."""
    file = os.environ.get("LAKEHOUSE_CRASH_FILE")
    if not file:
        return
    try:
        specification = Path(file).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return
    name, _, ordinal = specification.rpartition(":")
    if not ordinal.isdigit():
        name, ordinal = specification, "1"
    if point != name:
        return
    with _lock:
        _visits[specification] = _visits.get(specification, 0) + 1
        reached = _visits[specification] == int(ordinal)
    if reached:
        os.kill(os.getpid(), signal.SIGKILL)
