"""Work on several recordings at a time: while one waits for the disk or the database, another is decoded."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised inside a task that is not to go on, because another one failed or the run is being ended."""


def side_by_side(
    tasks: Sequence[Callable[[], Iterable[Result]]], at_once: int, is_stopping: Event | None = None
) -> Generator[Result, None, None]:
    """The results of the tasks, each as soon as it is there, computed on threads that act as whoever calls this.

    Whoever may stop half-way closes the iterator: it waits for the tasks that have begun.

    Args:
        tasks: What to do; each begins when the ones before it have begun.
        at_once: How many are worked on at a time.
        is_stopping: Set when a task has raised or the caller goes away; tasks that look at it end early. Those that
            have not begun never do.

    Raises:
        BaseException: What the first task to fail raised, when those that have begun have ended.
    """
    stopping = is_stopping or Event()
    # None is the end of a task.
    results: SimpleQueue[tuple[Result] | BaseException | None] = SimpleQueue()

    def work(task: Callable[[], Iterable[Result]]) -> None:
        try:
            for result in task():
                results.put((result,))
            results.put(None)
        except BaseException as error:
            results.put(error)

    with ThreadPoolExecutor(max(1, min(at_once, len(tasks))), thread_name_prefix="recording") as pool:
        try:
            for task in tasks:
                # Each in a context of its own: a context is entered by one thread at a time.
                pool.submit(copy_context().run, work, task)
            running = len(tasks)
            while running:
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    running -= 1
                else:
                    yield result[0]
        except BaseException:
            stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
