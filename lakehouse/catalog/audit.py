"""The append-only record of administrative and destructive operations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, insert

from lakehouse.catalog.control_plane.rows import to_json
from lakehouse.catalog.control_plane.schema import audit_log

_actor: ContextVar[str] = ContextVar("audit_actor", default="local")


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Name who acts, for every operation inside the block: a door and, where known, a key or a run."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str:
    return _actor.get()


def record(
    connection: Connection, operation: str, resource: object, *, actor: str | None = None, **details: Any
) -> None:
    """Add one entry, in the transaction of the operation itself."""
    connection.execute(
        insert(audit_log).values(
            at_ns=time.time_ns(),
            operation=operation,
            resource=str(resource),
            actor=actor or current_actor(),
            details=to_json(details),
        )
    )
