"""Threads that encode and store data files while the doors go on receiving.

Arrow releases the interpreter lock while it encodes, so receiving and encoding overlap.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Job:
    """A step of work.

    Attributes:
        run: Does the work, in a thread of the pool.
        discard: Called instead of `run` when an earlier job failed or the lane was cancelled; must not raise.
    """

    run: Callable[[], None]
    discard: Callable[[], None]


class EncoderPool:
    """A bounded number of threads shared by all uploads of a process."""

    def __init__(self, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encoder")

    def lane(self) -> "Lane":
        """A queue of its own for one upload."""
        return Lane(self._executor)

    def close(self) -> None:
        """Wait for the work in hand and stop the threads."""
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lane:
    """Runs jobs one after another in the order of submission; lanes share the pool fairly, job by job.

    The first exception of a job stays: later jobs are discarded, and whoever waits gets the exception.
    """

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._waiting: deque[Job] = deque()
        self._running = False
        self._failure: BaseException | None = None
        self._cancelled = False
        self._changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Queue a job; never blocks. See `wait_for_room` for back-pressure."""
        with self._changed:
            if not self._cancelled and self._failure is None:
                self._waiting.append(job)
                if not self._running:
                    self._running = True
                    try:
                        self._executor.submit(self._run_next)
                    except BaseException:
                        self._running = False
                        self._waiting.pop()
                        raise
                return
        job.discard()

    def wait_for_room(self, limit: int) -> None:
        """Wait until at most `limit` jobs are queued behind the running one.

        Raises:
            Exception: The failure of an earlier job.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) <= limit or self._failure is not None)
            self._raise_failure()

    def drain(self) -> None:
        """Wait until every job has run.

        Raises:
            Exception: The failure of a job.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._running)
            self._raise_failure()

    def cancel(self) -> None:
        """Discard what has not begun and wait for what has; nothing runs afterwards."""
        with self._changed:
            self._cancelled = True
            discarded = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for job in discarded:
            job.discard()
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run_next(self) -> None:
        with self._changed:
            job = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
        failure: BaseException | None = None
        if job is not None:
            try:
                job.run()
            except BaseException as error:
                failure = error
        with self._changed:
            discarded: list[Job] = []
            if failure is not None:
                self._failure = failure
                discarded = list(self._waiting)
                self._waiting.clear()
            more = bool(self._waiting)
            if not more:
                self._running = False
            self._changed.notify_all()
        for dropped in discarded:
            dropped.discard()
        if more:
            self._executor.submit(self._run_next)
