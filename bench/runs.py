"""One run of the benchmarks: where it may write, how much it does, and how it shows progress."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

QUICK_DIVISOR = 8
QUICK_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """What a benchmark is given.

    Attributes:
        directory: Empty; removed when the benchmark has ended.
        quick: Whether everything is done on a small scale.
        progress: Shown to whoever waits.
    """

    directory: Path
    quick: bool
    progress: Progress

    def size(self, full: int) -> int:
        """Bytes to work with."""
        return full // QUICK_DIVISOR if self.quick else full

    def rounds(self, full: int) -> int:
        return min(full, QUICK_ROUNDS) if self.quick else full

    def step(self, description: str, rounds: int, per_round: int = 1) -> Callable[[], None]:
        """Show a bar of `rounds * per_round` steps; returns what advances it."""
        task = self.progress.add_task(description, total=rounds * per_round)

        def advance() -> None:
            self.progress.advance(task)

        return advance
