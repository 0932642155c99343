"""Processes that hold rows of their own and do what they are told with them."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, TypeVar

from bench.rows import RowSource

Result = TypeVar("Result")


class Workers:
    """A number of processes, each with its own rows: clients must not share a processor's time through one lock.

    Args:
        make_rows: Called in each process, with its number.
    """

    def __init__(self, count: int, make_rows: Callable[[int], RowSource]) -> None:
        # A fresh interpreter each: gRPC does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._processes = []
        self._pipes: list[Connection] = []
        for number in range(count):
            own, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make_rows, number), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(own)
        for pipe in self._pipes:
            _receive(pipe)

    def run(self, function: Callable[..., Result], *arguments: tuple[Any, ...]) -> list[Result]:
        """Call `function(rows, *arguments[n])` in the first processes, one per tuple of arguments, all at once."""
        used = self._pipes[: len(arguments)]
        for pipe, own in zip(used, arguments, strict=True):
            pipe.send((function, own))
        return [_receive(pipe) for pipe in used]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=30)
            if process.is_alive():
                process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _receive(pipe: Connection) -> Any:
    try:
        value, failure = pipe.recv()
    except EOFError:
        raise RuntimeError("a worker process ended") from None
    if failure is not None:
        raise RuntimeError(f"a worker process failed:\n{failure}")
    return value


def _serve(pipe: Connection, make_rows: Callable[[int], RowSource], number: int) -> None:
    rows = make_rows(number)
    pipe.send((None, None))
    while True:
        try:
            function, arguments = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send((function(rows, *arguments), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))
