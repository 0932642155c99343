"""The append-only record of administrative and destructive operations: who, what, when, through which door, from where.

The database itself refuses to change entries, and to remove any but those that are published (in `mosaico.audit_log`)
and older than their retention: triggers, see the migration.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from lakehouse.catalog.actor import Actor, acting_as, current_actor
from lakehouse.catalog.control_plane.rows import to_json
from lakehouse.catalog.control_plane.schema import audit_log

__all__ = ["Actor", "AuditEntry", "acting_as", "current_actor", "latest_entries", "record"]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One operation.

    Attributes:
        id: Ascending in the order in which operations were recorded.
        at_ns: Unix time in nanoseconds.
        operation, resource: What was done, to what.
        actor, door, origin: See `Actor`.
        details: Figures of the operation.
    """

    id: int
    at_ns: int
    operation: str
    resource: str
    actor: str
    door: str
    origin: str
    details: dict[str, Any]


def record(
    connection: Connection, operation: str, resource: object, *, actor: Actor | None = None, **details: Any
) -> None:
    """Add one entry, in the transaction of the operation itself.

    Args:
        connection: Of that transaction.
        operation: What is done.
        resource: To what.
        actor: Who asked for it, where that was another thread.
        details: Figures, as JSON can hold them.
    """
    acting = actor or current_actor()
    connection.execute(
        insert(audit_log).values(
            at_ns=time.time_ns(),
            operation=operation,
            resource=str(resource),
            actor=acting.name,
            door=acting.door,
            origin=acting.origin,
            details=to_json(details),
        )
    )


def latest_entries(
    connection: Connection,
    *,
    limit: int,
    since_ns: int | None = None,
    operations: Sequence[str] = (),
    actor: str | None = None,
    resource: str | None = None,
) -> list[AuditEntry]:
    """The youngest entries that fit, youngest first.

    Args:
        connection: To the database.
        limit: How many at most.
        since_ns: Not earlier than this.
        operations: Only these.
        actor, resource: Only with this text in the name.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if since_ns is not None:
        query = query.where(audit_log.c.at_ns >= since_ns)
    if operations:
        query = query.where(audit_log.c.operation.in_(operations))
    if actor is not None:
        query = query.where(audit_log.c.actor.contains(actor, autoescape=True))
    if resource is not None:
        query = query.where(audit_log.c.resource.contains(resource, autoescape=True))
    return [_entry(row) for row in connection.execute(query)]


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        row.id, row.at_ns, row.operation, row.resource, row.actor, row.door, row.origin, json.loads(row.details)
    )
