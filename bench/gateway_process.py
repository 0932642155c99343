"""A gateway, or the stand-in it is compared with, in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.flight as flight

START_PATIENCE_S = 60.0
HOST = "127.0.0.1"


class GatewayProcess:
    """Runs as long as the context lasts.

    Args:
        home: Directory of its data and its log.
        module: Python module to run with `--port`; by default the product's own `lakehouse run`.
        environment: Settings that differ from the defaults.
    """

    def __init__(self, home: Path, module: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", module] if module else [sys.executable, "-m", "lakehouse.cli.main", "run"]
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MOSAICOD_", "LAKEHOUSE_"))
        }
        self._log = home / "gateway.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                env={**inherited, "LAKEHOUSE_HOME": str(home), "LAKEHOUSE_STATUS_PORT": "0", **(environment or {})},
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers()

    @property
    def location(self) -> str:
        return f"grpc://{HOST}:{self.port}"

    def resident_bytes(self) -> int:
        """Resident memory at the moment."""
        return self._status("VmRSS")

    def peak_resident_bytes(self) -> int:
        """The most resident memory since the start or the last `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Count the peak from now on (proc(5): writing 5 to clear_refs)."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def processor_seconds(self) -> float:
        """Time on all processors so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _status(self, field: str) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with flight.FlightClient(self.location) as client:
                try:
                    list(client.do_action(flight.Action("version", b"{}")))
                except flight.FlightUnavailableError:
                    time.sleep(0.05)
                else:
                    return
        self.stop()
        raise RuntimeError(f"the gateway did not start:\n{self._log.read_text()[-2000:]}")
