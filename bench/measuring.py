"""Measuring things side by side: interleaved, repeated, with ratios taken within a round."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self, TypeVar

Measured = TypeVar("Measured")

# A measurement begins when others use less than this share of the machine, or when patience with them ends: with one
# moment, and with all of a run.
QUIET_SHARE = 0.15
PATIENCE_S = 5.0
TOTAL_PATIENCE_S = 180.0
_SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return float(median(self.values))

    def percentile(self, share: float) -> float:
        """The smallest value that `share` of all values do not exceed."""
        ordered = sorted(self.values)
        return ordered[max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1)]

    def text(self, digits: int = 0, unit: str = "") -> str:
        """Median and, in brackets, smallest and largest."""
        suffix = f" {unit}" if unit else ""
        low, high = min(self.values), max(self.values)
        return f"{self.median:,.{digits}f}{suffix} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratio(ours: Spread, *others: Spread) -> Spread:
    """Ours divided by the smallest of the others, round by round, so that a slow moment of the machine cancels out."""
    return Spread(tuple(own / min(rest) for own, *rest in zip(ours.values, *(o.values for o in others), strict=True)))


def ratio_of_times(ours: Spread, *others: Spread) -> Spread:
    """The longest of the others' times divided by ours, round by round: like `ratio`, more is better."""
    return Spread(tuple(max(rest) / own for own, *rest in zip(ours.values, *(o.values for o in others), strict=True)))


def interleave(
    measurements: Mapping[str, Callable[[], float]], rounds: int, advance: Callable[[], None], warm_ups: int = 1
) -> dict[str, Spread]:
    """`take_turns` for measurements that return one number each."""
    results = take_turns(measurements, rounds, advance, warm_ups)
    return {name: Spread.of(values) for name, values in results.items()}


def take_turns(
    measurements: Mapping[str, Callable[[], Measured]], rounds: int, advance: Callable[[], None], warm_ups: int = 1
) -> dict[str, list[Measured]]:
    """Take every measurement once per round, each round in another order: what one leaves behind (free memory, warm
    caches, a busy disk) must not always meet the same next one.

    Args:
        measurements: What to do.
        rounds: Rounds that count.
        advance: Called after every single measurement, for progress.
        warm_ups: Rounds before, whose results are thrown away.

    Returns:
        The results of each measurement, round by round.
    """
    names = list(measurements)
    results: dict[str, list[Measured]] = {name: [] for name in names}
    generator = random.Random(0)
    for number in range(-warm_ups, rounds):
        for name in generator.sample(names, len(names)):
            wait_for_quiet()
            result = measurements[name]()
            if number >= 0:
                results[name].append(result)
            advance()
    return results


class _Patience:
    left_s = TOTAL_PATIENCE_S


def wait_for_quiet() -> bool:
    """Wait until others leave the machine alone, but not for long; whether they did."""
    started = time.monotonic()
    while True:
        before = _processor_times()
        time.sleep(_SAMPLE_S)
        busy, total = (after - earlier for after, earlier in zip(_processor_times(), before, strict=True))
        if total == 0 or busy / total < QUIET_SHARE:
            return True
        _Patience.left_s -= _SAMPLE_S
        if time.monotonic() - started > PATIENCE_S or _Patience.left_s <= 0:
            return False


def _processor_times() -> Sequence[int]:
    """Busy and total time of all processors so far, in ticks (proc(5): /proc/stat)."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
