"""Programs in processes of their own that are there at once: forked from a server that has imported everything.

What a process of the project needs to start is imports, seconds of them; tests that kill processes start hundreds.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from tests.processes import die_with_parent

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "lakehouse.cli.main",  # the first: it chooses Arrow's allocator
        "lakehouse.cli.run",
        "lakehouse.flight_gateway.server",
        "lakehouse.flight_gateway.status_server",
        "psycopg",
        "tests.catalog.committing_process",
        "tests.catalog.maintaining_process",
    ]
)


class ForkedProgram:
    """`python -m MODULE ARGUMENTS...`, with the interface of `subprocess.Popen` as far as tests use it.

    Args:
        environment: All of its environment.
        output: File for what it writes to standard output and error; None: the test's own.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str], output: Path | None = None
    ) -> None:
        self._output = output
        self._process = context.Process(
            target=_run, args=(module, arguments, dict(environment), output and str(output)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Negative: the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def written(self) -> str:
        """The end of what it has written."""
        return "" if self._output is None else self._output.read_text(errors="replace")[-3000:]


def _run(module: str, arguments: tuple[str, ...], environment: dict[str, str], output: str | None) -> None:
    dies_with_us = die_with_parent(signal.SIGKILL)
    if dies_with_us is not None:
        dies_with_us()
    os.environ.clear()
    os.environ.update(environment)
    if output is not None:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    sys.argv = [module, *arguments]
    warnings.simplefilter("ignore")  # among them that the module has been imported before
    runpy.run_module(module, run_name="__main__")
