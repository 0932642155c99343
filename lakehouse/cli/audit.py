"""`lakehouse audit`: who did what, when, and from where."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.cli.formatting import human_time, wide_console

if TYPE_CHECKING:
    from lakehouse.catalog.audit import AuditEntry


def audit(
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Not earlier than this, e.g. 2026-03-14.")] = None,
    operation: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this operation, e.g. sequence_delete; repeatable.")
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="TEXT", help="Only actors with this in their name.")] = None,
    resource: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only resources with this in their name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The latest so many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Show administrative and destructive operations, the latest first.

    This is the log of the control plane. SQL engines find it in the table `mosaico.audit_log`, where entries stay when
    LAKEHOUSE_AUDIT_RETENTION_DURATION has removed them here.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.audit import latest_entries
    from lakehouse.catalog.control_plane.migrate import open_database
    from lakehouse.catalog.settings import Settings

    since_ns = None if since is None else _instant_ns(since)
    database = open_database(Settings.load())
    try:
        with database.snapshot() as connection:
            entries = latest_entries(
                connection, limit=limit, since_ns=since_ns, operations=operation or (), actor=actor, resource=resource
            )
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        _print(entries)


def _instant_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequestError(f"--since {quoted(text)} is no time; e.g. 2026-03-14 or 2026-03-14T09:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000


def _print(entries: "list[AuditEntry]") -> None:
    if not entries:
        typer.echo("No entry.")
        return
    table = Table(
        "when (UTC)", "operation", "resource", "who", "through", "from", "details", box=None, header_style="bold"
    )
    for entry in entries:
        details = ", ".join(f"{name} {value}" for name, value in entry.details.items())
        columns = (entry.operation, entry.resource, entry.actor, entry.door, entry.origin, details)
        table.add_row(human_time(entry.at_ns), *columns)
    wide_console().print(table)
