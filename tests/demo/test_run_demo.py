"""The demo as a newcomer runs it: a report at the end, and nothing left behind however it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def demo(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    ports = ["--port", str(free_port()), "--ui-port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.run_demo", *ports, *options],
        cwd=PROJECT,
        env={**os.environ, "LAKEHOUSE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that work for a lake, known by their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(home).encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait_for(condition: Callable[[], bool], timeout_s: float = 200.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_reports_what_it_did_and_leaves_no_process_twice_in_a_row(tmp_path: Path) -> None:
    for _ in range(2):
        with demo(tmp_path, "--once") as process:
            report, _ = process.communicate(timeout=280)
        assert process.returncode == 0, report
        assert re.search(r"imu/front +IMU +10,399 +51\.99 s .* lake\.imu\.imu_front", report)
        assert "official SDK      lists ['city_drive']" in report
        assert "read the same 400 IMU rows" in report
        assert re.search(r"^passed +\d+ rules", report, re.MULTILINE)
        assert "failed" not in report
        assert "Traceback" not in report
        assert processes_of(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_demo_however_it_ends(end: signal.Signals, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        wait_for(lambda: any("dagster api grpc" in line for line in processes_of(tmp_path)))
        process.send_signal(end)
        process.wait(120)
        wait_for(lambda: processes_of(tmp_path) == [])
    assert process.returncode == (-end if end == signal.SIGKILL else 0)


@pytest.mark.parametrize(("option", "variable"), [("--port", "PORT"), ("--ui-port", "UI_PORT")])
def test_a_taken_port_is_said_before_anything_starts(option: str, variable: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo(tmp_path, option, str(port)) as process:
            text, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"port {port}" in text
    assert f"make demo {variable}=" in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []
