"""What the demo is doing, as it does it: a spinner on a terminal, lines anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# Told what to say now, in place of what was said when the step began.
Say = Callable[[str], None]


class Steps:
    """The steps of the demo, one after another.

    Off a terminal, as in a log of continuous integration, each step is a line when it begins, one for every change of
    what it says, and one with its time when it has ended.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console) if console.is_terminal else None

    def step(self, begins: str, ended: str) -> AbstractContextManager[Say]:
        """A step that ends with the block; without being told so if the block fails.

        Args:
            begins, ended: What to say of it.
        """
        return self._lines(begins, ended) if self._progress is None else self._spinner(self._progress, begins, ended)

    @contextmanager
    def _spinner(self, progress: Progress, begins: str, ended: str) -> Iterator[Say]:
        task = progress.add_task(begins, total=None)
        yield lambda text: progress.update(task, description=text)
        progress.update(task, description=ended, total=1, completed=1)

    @contextmanager
    def _lines(self, begins: str, ended: str) -> Iterator[Say]:
        said = ""

        def say(text: str) -> None:
            nonlocal said
            if text != said:
                self._console.print(f"{text} ...")
                said = text

        started = time.monotonic()
        say(begins)
        yield say
        self._console.print(f"{ended} ({time.monotonic() - started:.1f} s)")

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
