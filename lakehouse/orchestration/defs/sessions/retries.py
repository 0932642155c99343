"""When to try again what may never succeed: soon at first, then ever more rarely."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Self

FIRST_PAUSE_S = 60
LONGEST_PAUSE_S = 3600


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often a session was tried, and from when on it is again [s since 1970-01-01 UTC]."""

    tries: int
    next_s: float


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is known from the last look.

    Attributes:
        stale: Open sessions that were reported.
        interrupted: Attempts to finish the others, by session.
    """

    stale: frozenset[str] = frozenset()
    interrupted: dict[str, Attempt] = field(default_factory=dict)

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """From a cursor; nothing if it cannot be read, as those of earlier versions."""
        try:
            data = json.loads(cursor or "{}")
            attempts = {
                str(name): Attempt(int(tries), float(at_s)) for name, (tries, at_s) in data["interrupted"].items()
            }
            return cls(frozenset(map(str, data["stale"])), attempts)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def __str__(self) -> str:
        attempts = {name: (each.tries, each.next_s) for name, each in sorted(self.interrupted.items())}
        return json.dumps({"stale": sorted(self.stale), "interrupted": attempts})

    def due(self, interrupted: Iterable[str], now_s: float) -> list[str]:
        """Those that are new, or whose pause is over."""
        return [name for name in interrupted if name not in self.interrupted or self.interrupted[name].next_s <= now_s]

    def after_run(
        self, interrupted: Collection[str], tried: Collection[str], stale: Collection[str], now_s: float
    ) -> Self:
        """What is known once a run is launched that tries some, and reports all stale ones."""
        known = self.after_look(interrupted, stale).interrupted
        return type(self)(frozenset(stale), known | {name: self._next(name, now_s) for name in tried})

    def after_look(self, interrupted: Collection[str], stale: Collection[str]) -> Self:
        """What is known if none is launched: sessions that are gone are forgotten."""
        return type(self)(
            self.stale.intersection(stale),
            {name: attempt for name, attempt in self.interrupted.items() if name in interrupted},
        )

    def _next(self, name: str, now_s: float) -> Attempt:
        tries = self.interrupted[name].tries + 1 if name in self.interrupted else 1
        return Attempt(tries, now_s + pause_s(tries))


def pause_s(attempts: int) -> int:
    """Seconds after so many attempts that failed: one minute, two, four, up to an hour."""
    # The exponent is bounded too: numbers without end are for nobody.
    return min(FIRST_PAUSE_S << min(attempts - 1, 10), LONGEST_PAUSE_S)
