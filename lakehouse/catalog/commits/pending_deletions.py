"""Deletions that were announced and may not have reached all tables yet."""

import json
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, exists, insert, select

from lakehouse.catalog.control_plane.schema import pending_deletions


@dataclass(frozen=True)
class PendingDeletion:
    """One deletion.

    Attributes:
        ticket: Names it.
        kind, name: What is deleted: "sequence", "session" or "topic", and its locator.
        sequence: That it is, or is part of.
        tables: Identifiers of the tables that hold, or held, its rows.
    """

    ticket: str
    kind: str
    name: str
    sequence: str
    tables: tuple[str, ...]


def add_pending(connection: Connection, deletion: PendingDeletion) -> None:
    connection.execute(
        insert(pending_deletions).values(
            ticket=deletion.ticket,
            kind=deletion.kind,
            name=deletion.name,
            sequence=deletion.sequence,
            tables=json.dumps(deletion.tables),
            created_at_ns=time.time_ns(),
        )
    )


def remove_pending(connection: Connection, ticket: str) -> None:
    connection.execute(delete(pending_deletions).where(pending_deletions.c.ticket == ticket))


def find_pending(connection: Connection, ticket: str) -> PendingDeletion | None:
    row = connection.execute(select(pending_deletions).where(pending_deletions.c.ticket == ticket)).one_or_none()
    return None if row is None else _deletion(row)


def read_pending(connection: Connection, sequence: str | None = None) -> list[PendingDeletion]:
    """Those of one sequence, or all, oldest first."""
    query = select(pending_deletions).order_by(pending_deletions.c.created_at_ns)
    if sequence is not None:
        query = query.where(pending_deletions.c.sequence == sequence)
    return [_deletion(row) for row in connection.execute(query)]


def is_pending(connection: Connection, sequence: str) -> bool:
    """Whether a deletion within the sequence, or of one that had its name, is not through yet."""
    return bool(connection.scalar(select(exists().where(pending_deletions.c.sequence == sequence))))


def _deletion(row: Row[tuple[str, ...]]) -> PendingDeletion:
    return PendingDeletion(row.ticket, row.kind, row.name, row.sequence, tuple(json.loads(row.tables)))
