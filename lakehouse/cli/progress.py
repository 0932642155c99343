"""A bar that moves while a command works."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress_bar(
    console: Console, begins: str, *counts: ProgressColumn
) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar that is gone afterwards; nothing at all off a terminal.

    Args:
        begins: What is said before anything is counted.
        counts: Columns behind the bar that show how much is done.

    Returns:
        Told what is being worked at, how much is done, and of how much; None: nobody knows.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(begins, total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
