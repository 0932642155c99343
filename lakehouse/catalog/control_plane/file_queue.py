"""A queue of processes at a file: one has the turn, the others wait for it in the kernel, nearly in their order.

The kernel releases locks of `flock` when a process ends, however it does. It has no way to take one from a process that
hangs, nor to wait for a limited time: so a thread waits, and whoever gives up leaves it behind. As long as that one
waits, nobody of this process does.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class FileQueue:
    """One turn, for all processes that name the same file.

    Args:
        path: Of the file; it is created, stays empty, and may be removed while nobody waits. Beside it is another,
            called `.next`, that the first of those who wait holds: whoever has just had its turn and wants another
            is behind those who wait already.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._left_behind: threading.Thread | None = None

    def try_take(self) -> Callable[[], None] | None:
        """Take the turn if nobody has it or waits for it; returns what gives it back, None if somebody does.

        Raises:
            OSError: If the file system has no such files or locks.
        """
        with _locked(self._path + ".next", blocking=False) as is_first:
            return _lock(self._path, blocking=False) if is_first else None

    def take(self, patience_s: float) -> Callable[[], None] | None:
        """Take the turn when it comes; None if it does not, or an earlier call still waits for it.

        Raises:
            OSError: If the file system has no such files or locks.
        """
        if self._left_behind is not None and self._left_behind.is_alive():
            return None
        waiting = _Waiting(self._path)
        thread = threading.Thread(target=waiting.wait, name="commit-turn", daemon=True)
        thread.start()
        try:
            thread.join(patience_s)
        except BaseException:
            # Nobody would give back what the thread gets.
            if not waiting.give_up() and (end := waiting.result()) is not None:
                end()
            self._left_behind = thread
            raise
        if waiting.give_up():
            self._left_behind = thread
        return waiting.result()


class _Waiting:
    """One wait, which may be given up; what comes after that is given back at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._is_given_up = False
        self._release: Callable[[], None] | None = None
        self._error: OSError | None = None

    def wait(self) -> None:
        release = None
        try:
            with _locked(self._path + ".next", blocking=True):
                release = _lock(self._path, blocking=True)
        except OSError as error:
            self._error = error
        with self._mutex:
            if not self._is_given_up:
                self._release, release = release, None
        if release is not None:
            release()

    def give_up(self) -> bool:
        """Whether there is nothing yet; it will never be there then."""
        with self._mutex:
            self._is_given_up = self._release is None and self._error is None
            return self._is_given_up

    def result(self) -> Callable[[], None] | None:
        if self._error is not None:
            raise self._error
        return self._release


@contextmanager
def _locked(path: str, *, blocking: bool) -> Iterator[bool]:
    release = _lock(path, blocking=blocking)
    try:
        yield release is not None
    finally:
        if release is not None:
            release()


def _lock(path: str, *, blocking: bool) -> Callable[[], None] | None:
    """Lock a file; returns what unlocks it, None if somebody else has locked it and this is not to wait."""
    # For reading: the lock of a user whose files others may not write is good for these too.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise

    def unlock() -> None:
        # Not by closing alone: a process forked meanwhile has the descriptor too.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    return unlock
