"""What happened to sessions and sequences lately, in the order in which it took effect: the audit log, read forward."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import audit_log

FINALIZED, SEQUENCE_DELETED = "session_finalize", "sequence_delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry.

    Attributes:
        id: Grows with time, but for entries of transactions that overlap.
        at_ns: Unix ns.
        operation: `FINALIZED` or `SEQUENCE_DELETED`.
        resource: Locator of the session, or name of the sequence.
        actor: Who did it.
    """

    id: int
    at_ns: int
    operation: str
    resource: str
    actor: str
    details: dict[str, Any]


def changes_after(
    database: Database, last_id: int, *, overlap_s: float, seen: Collection[int], limit: int
) -> list[Change]:
    """The next changes, oldest first.

    Args:
        database: Where to look.
        last_id: The largest id known.
        overlap_s: For how many seconds an entry may become visible after later ones.
        seen: Ids within the overlap that are known already.
        limit: Most entries to return.

    Raises:
        StorageError: If the database fails.
    """
    overlap = audit_log.c.at_ns > time.time_ns() - int(overlap_s * 1e9)
    query = (
        select(audit_log)
        .where(
            audit_log.c.operation.in_((FINALIZED, SEQUENCE_DELETED)),
            or_(audit_log.c.id > last_id, overlap & audit_log.c.id.not_in(sorted(seen))),
        )
        .order_by(audit_log.c.id)
        .limit(limit)
    )
    with database.snapshot() as connection:
        return [
            Change(row.id, row.at_ns, row.operation, row.resource, row.actor, json.loads(row.details))
            for row in connection.execute(query)
        ]
