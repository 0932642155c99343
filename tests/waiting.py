"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable


def eventually(is_so: Callable[[], bool], *, seconds: float = 30.0, every: float = 0.02) -> bool:
    """Whether a condition holds within some time; it is looked at every so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(every)
    return False
