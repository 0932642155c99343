"""`lakehouse rebuild`: the database again, from the warehouse alone."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse.catalog.rebuild.rebuild import RebuildReport


def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be restored, and do nothing.")] = False,
    add_missing: Annotated[
        bool,
        typer.Option("--add-missing", help="Restore into a database that is not empty: what it has is left alone."),
    ] = False,
) -> None:
    """Restore a lost database from the warehouse: tables, sequences, sessions, topics, metadata, notifications.

    Everything finalized comes back as it was. What only the database knew does not: open sessions with their uploads,
    sequences without any finalized session, API keys and the audit log. Refuses a database that holds anything, unless
    told to add what is missing. It happens in one transaction: wholly, or not at all.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.rebuild.rebuild import rebuild as run_rebuild
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load(), may_be_lost=True) as lake:
        report = run_rebuild(
            lake.database,
            lake.table_files,
            add_missing=add_missing,
            dry_run=dry_run,
            on_progress=lambda text: typer.echo(text, err=True),
        )
    _print(report)


def _print(report: "RebuildReport") -> None:
    typer.echo("would be restored:" if report.dry_run else "restored:")
    rows = report.rows
    counts = {
        "tables": report.tables,
        "sequences": rows.sequences,
        "sessions": rows.sessions,
        "topics": rows.topics,
        "notifications": rows.notifications,
    }
    for name, count in counts.items():
        typer.echo(f"  {name}: {count:,}")
    for text, names in (
        ("newest files belong to a commit that never happened", report.undone),
        ("table cannot be read", report.damaged),
        ("session left out, a table of it is missing", rows.left_out),
    ):
        for name in names:
            typer.echo(f"  {name}: {text}")
