"""The commands that docs/sql.md starts Spark and Trino with, as they are typed."""

import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from tests.engines.conftest import PROJECT, Stage
from tests.engines.recordings import ROWS
from tests.processes import die_with_parent, free_port

PAGE = (PROJECT / "docs" / "sql.md").read_text()
STATEMENT = "SELECT sequence, count(*) AS n FROM imu.imu GROUP BY sequence ORDER BY sequence"
pytestmark = pytest.mark.timeout(600)


def documented(engine: str) -> list[str]:
    """The command of the table of engines, to be run with the Python of these tests."""
    (row,) = re.findall(rf"^\| {engine}.*$", PAGE, re.MULTILINE)
    command, *_ = re.findall(r"`(\.venv/bin/python [^`]+)`", row)
    _, *arguments = shlex.split(command)
    return [sys.executable, *(STATEMENT if each == "SELECT ..." else each for each in arguments)]


@pytest.mark.spark
def test_spark_answers_on_the_command_line(stage: Stage) -> None:
    environment = stage.lake("production").environment
    ran = subprocess.run(documented("Spark"), cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert re.findall(r"\|(robot_\d) *\|(\d+) *\|", ran.stdout) == [(f"robot_{n}", str(ROWS)) for n in range(3)]


@pytest.mark.trino
def test_trino_is_started_asked_and_stopped_on_the_command_line(stage: Stage) -> None:
    lake, port = stage.lake("production"), str(free_port())
    environment = {**lake.environment, "PYTHONUNBUFFERED": "1"}
    command = [*documented("Trino"), "--port", port]
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert f"listens on http://127.0.0.1:{port}" in said
        # It needs nothing but the server.
        asking = {"PATH": os.environ["PATH"]}
        asked = subprocess.run([*command, STATEMENT], cwd=PROJECT, env=asking, capture_output=True, text=True)
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    assert asked.returncode == 0, asked.stderr[-3000:]
    assert asked.stdout.splitlines() == ["sequence\tn", *(f"robot_{n}\t{ROWS}" for n in range(3))]
