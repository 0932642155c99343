"""Which waiting recordings are new, for sensors that look again and again and remember one small text between.

Recordings are requested in the order in which they landed. The cursor keeps how far that went, and, because recordings
may turn up late, which of the latest ones were requested already.
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from lakehouse.orchestration.landing.place import LandedRecording

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """What was requested so far.

    Attributes:
        reached_ns: `modified_ns` of the latest recording requested.
        requested: Short digests of the versions requested that are not older than the lookback before it.
    """

    reached_ns: int = 0
    requested: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The cursor from its text; what cannot be read counts as none, and everything waiting as new."""
        try:
            data = json.loads(text or "{}")
            return cls(int(data["reached_ns"]), frozenset(map(str, data["requested"])))
        except (ValueError, KeyError, TypeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps({"reached_ns": self.reached_ns, "requested": sorted(self.requested)})


def next_arrivals(
    waiting: Iterable[LandedRecording], cursor: Cursor, *, settle_time_s: float, lookback_s: float, limit: int
) -> tuple[list[LandedRecording], Cursor]:
    """The recordings to request now, in the order in which they landed, and the cursor afterwards.

    Args:
        waiting: Everything that waits.
        cursor: What was requested before.
        settle_time_s: Seconds a recording must not have changed.
        lookback_s: By how many seconds a recording may turn up later than its `modified_ns` says.
        limit: Most recordings to request.
    """
    lookback_ns, settled_ns = int(lookback_s * _NS), time.time_ns() - int(settle_time_s * _NS)
    recent = [item for item in waiting if item.modified_ns >= cursor.reached_ns - lookback_ns]
    new = [item for item in recent if item.modified_ns <= settled_ns and _digest(item) not in cursor.requested]
    taken = sorted(new, key=lambda item: (item.modified_ns, item.name))[:limit]
    reached_ns = max([cursor.reached_ns, *(item.modified_ns for item in taken)])
    # Of those still waiting: what has gone need not be remembered.
    remembered = {_digest(item) for item in recent if item.modified_ns >= reached_ns - lookback_ns}
    requested = (cursor.requested & remembered) | {_digest(item) for item in taken} & remembered
    return taken, Cursor(reached_ns, frozenset(requested))


def _digest(item: LandedRecording) -> str:
    digest = hashlib.sha256(f"{item.location}\n{item.version}".encode("utf-8", "surrogatepass")).digest()
    return base64.b64encode(digest[:9]).decode("ascii")
