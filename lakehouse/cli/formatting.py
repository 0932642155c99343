"""How sizes, times and counts look on a terminal."""

import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from lakehouse.catalog.time_window import TimeInterval

PIPE_WIDTH = 160


def human_bytes(count: int) -> str:
    """`12.3 MB`: decimal units, as disks and networks are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def human_time(unix_ns: int) -> str:
    """UTC with milliseconds; plain nanoseconds where the calendar ends."""
    try:
        moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{unix_ns % 1_000_000_000 // 1_000_000:03d}"


def human_span(interval: TimeInterval | None) -> str:
    """Length of an interval in seconds."""
    return "-" if interval is None else f"{(interval.end_ns - interval.start_ns) / 1e9:.2f} s"


def wide_console() -> Console:
    """A console that shows names as they are, with tables that are not squeezed when the output is no terminal.

    Names may hold anything, `[bold]` and `:smile:` included: nothing in a text is taken for markup.
    """
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def bold(text: str) -> Text:
    """A text that stands out."""
    return Text(text, style="bold")


def error_console() -> Console:
    """Standard error, lines as long as they are: people search logs by line."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
