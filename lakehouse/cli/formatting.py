"""How sizes, times and counts look on a terminal."""

from datetime import UTC, datetime

from rich.console import Console

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
    """A console whose tables are not squeezed when the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)
