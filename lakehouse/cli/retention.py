"""`lakehouse retention`: carry out the retention policies, now."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn
from rich.table import Table

from lakehouse.cli.formatting import error_console, human_bytes, wide_console
from lakehouse.cli.maintenance_report import print_busy, print_counts, print_json
from lakehouse.cli.progress import progress_bar

if TYPE_CHECKING:
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.maintenance.retention import RetentionReport


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be deleted, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Delete what the retention policies say is too old or too much, the oldest first.

    The policies are in the file LAKEHOUSE_RETENTION_FILE names, by default `retention.yaml` in LAKEHOUSE_HOME. What an
    open session needs is kept. A policy that would delete what a tag of a table pins is refused, and the exit status
    is 1.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        report = _retain(lake, dry_run, error_console())
        if not dry_run:
            lake.maintenance.run_pending()
    if report is None:
        print_busy("carrying out the retention policies", as_json)
        return
    if as_json:
        print_json(report)
    else:
        _print(wide_console(), report, lake.settings.retention_path)
    if not report.is_clean:
        raise typer.Exit(1)


def _retain(lake: "Lakehouse", dry_run: bool, console: Console) -> "RetentionReport | None":
    from lakehouse.catalog.maintenance.retention import run_retention

    with progress_bar(console, "retention", MofNCompleteColumn()) as progress:
        return run_retention(lake.database, lake.table_files, lake.deletion, lake.settings, dry_run, progress)


def _print(console: Console, report: "RetentionReport", file: Path) -> None:
    if not report.policies:
        state = "names none" if file.exists() else "does not exist"
        console.print(f"There is no retention policy, nothing is deleted: the file {file} {state}.", soft_wrap=True)
        console.print("LAKEHOUSE_RETENTION_FILE names another one; docs/maintenance.md tells what it holds.")
        return
    print_counts(console, report.before, report.after, dry_run=report.dry_run)
    for outcome in report.policies:
        verb = "would delete" if report.dry_run else "deleted"
        held = f"{outcome.candidates:,} candidates with {human_bytes(outcome.candidate_bytes)}"
        gone = f"{verb} {len(outcome.deleted):,} with {human_bytes(outcome.deleted_bytes)}"
        console.print(f"policy {outcome.policy}: {held}, {gone}")
        if outcome.doubted:
            doubted = f"{outcome.doubted:,} hold times that cannot be right; their age counts from their arrival"
            console.print(doubted, style="yellow")
        if outcome.deleted:
            table = Table("name", "size", "because", box=None, header_style="bold")
            for name, reason, size in outcome.deleted:
                table.add_row(name, human_bytes(size), reason)
            console.print(table)
        for name in outcome.kept:
            console.print(f"kept, though it is due: {name}", style="yellow")
        for name, reason in outcome.failed.items():
            console.print(f"not deleted: {name}: {reason}", style="yellow")
        if outcome.refused:
            console.print(f"refused: {outcome.refused}", style="red")
