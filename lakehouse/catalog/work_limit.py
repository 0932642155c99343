"""How long the work on one request may take, known to whatever works on it without being handed around.

`limited` says it once, at the door; long loops call `check` as they go. A thread that helps with the work runs in a
copy of the context (`contextvars.copy_context`).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lakehouse.catalog.errors import ResourceExhaustedError

_deadline: ContextVar[float] = ContextVar("work_deadline", default=float("inf"))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Give the work inside the block so many seconds."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def check() -> None:
    """Go on only while there is time.

    Raises:
        ResourceExhaustedError: If it is over.
    """
    if time.monotonic() > _deadline.get():
        raise ResourceExhaustedError(
            "the query takes longer than this server allows; narrow it by sequence, topic or time, or ask for less"
        )
