"""What the benchmarks found, as Markdown."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("pyarrow", "grpcio", "pyiceberg", "sqlalchemy")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table.

    Attributes:
        what: What was measured.
        ours: Its value.
        reference: What it is compared with, and that value; empty if nothing.
        ratio: Ours to the reference; empty if there is none.
        goal: What is wanted; empty for figures that only inform.
        met: Whether the goal is met; None without a goal.
    """

    what: str
    ours: str
    reference: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        return "" if self.met is None else "met" if self.met else "**missed**"


@dataclass(slots=True)
class Section:
    """The lines of one benchmark, under a heading, with a sentence on how to read them."""

    title: str
    explanation: str
    lines: list[Line] = field(default_factory=list)


def markdown(sections: Sequence[Section], *, quick: bool, loads: tuple[float, float]) -> str:
    """The whole report.

    Args:
        sections: In the order of the report.
        quick: Whether sizes were reduced.
        loads: Load of the machine (one minute) before the first and after the last benchmark.
    """
    parts = ["# Benchmark results", "", _preamble(quick), "", *_environment(loads), ""]
    for section in sections:
        parts += [f"## {section.title}", "", section.explanation, ""]
        parts += ["| What | Ours | Compared with | Ratio | Goal | Verdict |", "|---|---|---|---|---|---|"]
        parts += [
            f"| {line.what} | {line.ours} | {line.reference} | {line.ratio} | {line.goal} | {line.verdict} |"
            for line in section.lines
        ]
        parts.append("")
    return "\n".join(parts)


def _preamble(quick: bool) -> str:
    text = (
        "Written by `make bench`; [docs/benchmarks.md](../docs/benchmarks.md) tells how it is measured and how to read "
        "it. Values are medians with smallest and largest in brackets. The ratios are the result; absolute values "
        "belong to the machine below. MB are 10⁶ bytes of Arrow data."
    )
    return f"{text} **Quick run: sizes and rounds are reduced; not for comparison.**" if quick else text


def _environment(loads: tuple[float, float]) -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return [
        "| Environment | |",
        "|---|---|",
        f"| Date | {datetime.now(UTC):%Y-%m-%d %H:%M} UTC |",
        f"| Commit | {_commit()} |",
        f"| Machine | {_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB memory, {platform.system()} "
        f"{platform.release().split('-')[0]} |",
        f"| Load before and after | {loads[0]:.1f}, {loads[1]:.1f} |",
        f"| Versions | Python {platform.python_version()}, {packages} |",
    ]


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "lakehouse")
        return git("rev-parse", "--short", "HEAD") + (" with local changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1024 * _MIB)
