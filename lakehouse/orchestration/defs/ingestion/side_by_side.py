"""Work on several recordings at a time: while one waits for the disk or the database, another is decoded."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised inside a task that is not to go on, because another one failed or the run is being ended."""


def side_by_side(
    tasks: Sequence[Callable[[], Result]], at_once: int, is_stopping: Event | None = None
) -> Iterator[Result]:
    """The results of the tasks in their order, computed on threads that act as whoever calls this.

    Args:
        tasks: What to do; each begins when the ones before it have begun.
        at_once: How many are worked on at a time.
        is_stopping: Set when a task has raised or the caller goes away; tasks that look at it end early. Those that
            have not begun never do.

    Raises:
        BaseException: What the first task to fail raised, when those that have begun have ended.
    """
    stopping = is_stopping or Event()
    with ThreadPoolExecutor(max(1, min(at_once, len(tasks))), thread_name_prefix="recording") as pool:
        # Each in a context of its own: a context is entered by one thread at a time.
        futures = [pool.submit(copy_context().run, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
