"""`lakehouse compact`: make many small data files few."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import DownloadColumn
from rich.table import Table

from lakehouse.cli.formatting import error_console, human_bytes, wide_console
from lakehouse.cli.maintenance_report import print_busy, print_counts, print_json
from lakehouse.cli.progress import progress_bar

if TYPE_CHECKING:
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.maintenance.compaction import CompactionReport


def compact(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Rewrite the small data files of each topic and day as few.

    Rows, their order and the answers of queries stay the same; gateways, readers and writers go on meanwhile. The files
    that are replaced go with a later `lakehouse cleanup`, when nobody can be reading them. See the settings
    LAKEHOUSE_COMPACTION_TARGET_SIZE and LAKEHOUSE_COMPACTION_MIN_FILES.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        report = _compact(lake, dry_run, error_console())
        if not dry_run:
            lake.maintenance.run_pending()
    if report is None:
        print_busy("compacting", as_json)
    elif as_json:
        print_json(report, total=asdict(report.total))
    else:
        _print(wide_console(), report)


def _compact(lake: "Lakehouse", dry_run: bool, console: Console) -> "CompactionReport | None":
    from lakehouse.catalog.maintenance.compaction import run_compaction

    with progress_bar(console, "looking for small files", DownloadColumn()) as progress:
        return run_compaction(lake.database, lake.table_files, lake.committer, lake.settings, dry_run, progress)


def _print(console: Console, report: "CompactionReport") -> None:
    print_counts(console, report.before, report.after, dry_run=report.dry_run)
    if not report.work:
        console.print("no topic has enough small files to be worth it")
    else:
        console.print("would be rewritten:" if report.dry_run else "rewritten:")
        columns = (
            ["table", "rows", "files", "bytes"] if report.dry_run else ["table", "rows", "files", "bytes", "given up"]
        )
        table = Table(*columns, box=None, header_style="bold")
        for identifier, work in report.work.items():
            row = [identifier, f"{work.rows:,}", f"{work.files_replaced:,}", human_bytes(work.bytes_replaced)]
            row[2] += f" -> {work.files_written:,}"
            if not report.dry_run:
                row[3] += f" -> {human_bytes(work.bytes_written)}"
                row.append(str(work.groups_given_up))
            table.add_row(*row)
        console.print(table)
    for name, reason in report.left_alone.items():
        console.print(f"left alone: {name}: {reason}", style="yellow")
