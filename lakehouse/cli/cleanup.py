"""`lakehouse cleanup`: one maintenance cycle, now."""

from typing import Annotated

import typer

from lakehouse.cli.formatting import wide_console
from lakehouse.cli.maintenance_report import print_busy, print_counts, print_figures, print_json


def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
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
        print_busy("cleaning up", as_json)
    elif as_json:
        print_json(report)
    else:
        console = wide_console()
        print_counts(console, report.before, report.after, dry_run=dry_run)
        print_figures(console, report, dry_run=report.dry_run)
