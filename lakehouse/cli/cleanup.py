"""`lakehouse cleanup`: one maintenance cycle, now."""

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lakehouse.cli.formatting import wide_console

if TYPE_CHECKING:
    from lakehouse.catalog.maintenance.cleanup import CleanupReport

LABELS = {"files": "files looked at", "bytes": "bytes looked at", "row_compactions": "merges of mosaico.* row files"}


def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")] = False,
) -> None:
    """Expire old snapshots, merge small manifests, and purge files that nothing refers to any more.

    The gateway does the same on its own every MOSAICOD_CLEANUP_TIME_INTERVAL seconds. Orphaned files are marked first
    and purged by a later cycle, once MOSAICOD_CLEANUP_RETENTION_DURATION seconds have passed.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        report = run_cleanup_cycle(lake.database, lake.table_files, lake.committer, lake.settings, dry_run)
    if report is None:
        typer.echo("Another process is cleaning up; nothing done.")
        return
    _print(report)


def _print(report: "CleanupReport") -> None:
    counts = Table("", "before", "after", box=None, header_style="bold")
    for field in fields(report.before):
        before, after = getattr(report.before, field.name), getattr(report.after, field.name)
        counts.add_row(field.name.replace("_", " "), f"{before:,}", f"{after:,}")
    console = wide_console()
    console.print(counts)
    console.print("would be done:" if report.dry_run else "done:")
    for name, value in _figures(report):
        console.print(f"  {LABELS.get(name, name.replace('_', ' '))}: {value:,}", highlight=False)


def _figures(report: Any) -> list[tuple[str, int]]:
    """All counters of the report and of its parts, but for the counts before and after."""
    figures: list[tuple[str, int]] = []
    for field in fields(report):
        value = getattr(report, field.name)
        if is_dataclass(value) and field.name not in ("before", "after"):
            figures += _figures(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            figures.append((field.name, value))
    return figures
