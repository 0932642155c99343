"""How far a sensor has read what happened to sessions and sequences; each change is handed out once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lakehouse.catalog.history import Change, changes_after
from lakehouse.catalog.lakehouse import Lakehouse

OVERLAP_S = 60.0


@dataclass(frozen=True, slots=True)
class Position:
    """How far the history was read: the largest id, and the ids of the last minute."""

    last_id: int = 0
    recent: dict[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """The position from a cursor, whatever else that holds; the beginning if it cannot be read."""
        try:
            data = json.loads(cursor or "{}")
            return cls(int(data["last_id"]), {int(number): int(at_ns) for number, at_ns in data["recent"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def as_json(self) -> dict[str, Any]:
        return {"last_id": self.last_id, "recent": self.recent}

    def __str__(self) -> str:
        return json.dumps(self.as_json())

    def after(self, changes: Sequence[Change]) -> Self:
        recent = self.recent | {change.id: change.at_ns for change in changes}
        # Twice the overlap: clocks of several machines differ a little.
        oldest_ns = max(recent.values(), default=0) - int(2 * OVERLAP_S * 1e9)
        kept = {number: at_ns for number, at_ns in recent.items() if at_ns >= oldest_ns}
        return type(self)(max([self.last_id, *(change.id for change in changes)]), kept)


def next_changes(lake: Lakehouse, cursor: str | None, limit: int) -> tuple[list[Change], Position]:
    """What happened since the look that left this cursor, oldest first and no more than `limit`, and how far that is.

    Raises:
        StorageError: If the database fails.
    """
    position = Position.parse(cursor)
    changes = changes_after(lake.database, position.last_id, overlap_s=OVERLAP_S, seen=position.recent, limit=limit)
    return changes, position.after(changes)
