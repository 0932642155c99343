"""Threads that encode and store data files while the doors go on receiving.

Arrow releases the interpreter lock while it encodes, so receiving and encoding overlap.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from lakehouse.catalog.errors import StorageError


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
        self._workers = workers
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encoder")
        self._busy_lanes = 0
        self._counting = threading.Lock()

    def lane(self) -> "Lane":
        """A queue of its own for one upload."""
        return Lane(self)

    @property
    def is_saturated(self) -> bool:
        """Whether some lane has to wait for a thread."""
        return self._busy_lanes > self._workers

    def run(self, step: Callable[[], None]) -> None:
        """Call `step` in one of the threads.

        Raises:
            RuntimeError: If the pool is closed.
        """
        self._executor.submit(step)

    def count_lane(self, change: int) -> None:
        """A lane has work from now on (1), or no longer (-1)."""
        with self._counting:
            self._busy_lanes += change

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

    def __init__(self, pool: EncoderPool) -> None:
        self._pool = pool
        self._waiting: deque[Job] = deque()
        self._running = False
        self._failure: BaseException | None = None
        self._cancelled = False
        self._changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Queue a job; never blocks. See `wait_for_room` for back-pressure."""
        with self._changed:
            accepted = not self._cancelled and self._failure is None
            if accepted:
                self._waiting.append(job)
            start = accepted and not self._running
            if start:
                self._set_running(True)
        if start:
            self._schedule()
        elif not accepted:
            job.discard()

    def wait_for_room(self, limit: int) -> None:
        """Wait until at most `limit` jobs are queued behind the running one, and none while the pool is saturated.

        A queue keeps a thread busy that would else wait for rows. Where lanes wait for threads it only takes memory.

        Raises:
            Exception: The failure of an earlier job.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._waiting) <= (0 if self._pool.is_saturated else limit) or self._failure is not None
            )
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

    def _set_running(self, is_running: bool) -> None:
        self._running = is_running
        self._pool.count_lane(1 if is_running else -1)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _schedule(self) -> None:
        try:
            self._pool.run(self._run_next)
        except RuntimeError:
            self._stop(StorageError("the server is shutting down"))

    def _stop(self, failure: BaseException | None) -> None:
        """End the run; with a failure nothing will follow."""
        with self._changed:
            discarded: list[Job] = []
            if failure is not None:
                self._failure = failure
                discarded = list(self._waiting)
                self._waiting.clear()
            self._set_running(False)
            self._changed.notify_all()
        for job in discarded:
            job.discard()

    def _run_next(self) -> None:
        with self._changed:
            job = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
        try:
            if job is not None:
                job.run()
        except BaseException as error:
            self._stop(error)
            return
        with self._changed:
            more = bool(self._waiting)
            if not more:
                self._set_running(False)
            self._changed.notify_all()
        if more:
            self._schedule()
