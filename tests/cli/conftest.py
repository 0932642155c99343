"""The `lakehouse` command on a lake of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lakehouse.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


@pytest.fixture
def lakehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command with its arguments, on the lake in `tmp_path / "lake"`."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path / "lake"))

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lakehouse", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        written = capsys.readouterr()
        return Outcome(int(end.value.code or 0), written.out, written.err)

    return run
