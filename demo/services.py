"""Starts the gateway and the Dagster UI as child processes, and ends them again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
PROJECT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_S = 20.0


class DemoError(Exception):
    """The demo cannot go on; the text tells the user why and what to do."""


def require_free_port(port: int, purpose: str, variable: str) -> None:
    """Raise DemoError when something listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise DemoError(
                f"port {port} for {purpose} is taken on {HOST}: stop what listens there, "
                f"or choose another port with `make demo {variable}={port + 1}`"
            ) from None


class Services:
    """Child processes, each in a process group of its own so that none outlives the demo, however that ends."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log_folder = home / "logs"
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._leash = subprocess.Popen(
            [sys.executable, "-m", "demo.leash"], stdin=subprocess.PIPE, start_new_session=True, cwd=PROJECT
        )

    def start_gateway(self, port: int) -> None:
        self._start(
            "gateway", [_tool("lakehouse"), "run", "--host", HOST, "--port", str(port)], LAKEHOUSE_STATUS_PORT="0"
        )

    def start_dagster(self, port: int) -> None:
        dagster_home = self.home / "dagster"
        dagster_home.mkdir(exist_ok=True)
        shutil.copyfile(PROJECT / "dagster.yaml", dagster_home / "dagster.yaml")
        self._start(
            "dagster",
            [_tool("dagster"), "dev", "-h", HOST, "-p", str(port), "-w", str(PROJECT / "workspace.yaml")],
            DAGSTER_HOME=str(dagster_home.resolve()),
            LAKEHOUSE_DAGSTER_URL=f"http://{HOST}:{port}",
        )

    def wait_until(self, name: str, is_ready: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait for a service, noticing when its process ends."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._processes[name].poll() is not None:
                raise DemoError(f"the {name} ended unexpectedly:\n{self._log_tail(name)}")
            if is_ready():
                return
            time.sleep(0.2)
        raise DemoError(f"the {name} did not answer within {timeout_s:.0f} s:\n{self._log_tail(name)}")

    def wait_for_any_end(self) -> None:
        """Block until one of the processes ends by itself."""
        while all(process.poll() is None for process in self._processes.values()):
            time.sleep(0.5)

    def stop(self) -> None:
        """End every process group: politely first, then for certain."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            _signal_group(process, signal.SIGKILL)  # whatever the leader left behind in its group
        self._processes.clear()
        self._leash.kill()  # nothing is left to end
        self._leash.wait()

    def _start(self, name: str, command: list[str], **variables: str) -> None:
        environment = {**os.environ, "LAKEHOUSE_HOME": str(self.home.resolve()), "PYTHONUNBUFFERED": "1", **variables}
        with (self.log_folder / f"{name}.log").open("wb") as log:
            self._processes[name] = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        assert self._leash.stdin is not None
        self._leash.stdin.write(b"%d\n" % process.pid)
        self._leash.stdin.flush()

    def _log_tail(self, name: str, lines: int = 15) -> str:
        text = (self.log_folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _tool(name: str) -> str:
    """A console script of the running virtual environment."""
    return str(Path(sys.executable).with_name(name))


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
