"""The `lakehouse` command: one program, one module per command."""

import sys
from typing import Annotated

import typer

from lakehouse import __version__
from lakehouse.catalog.actor import acting_as, system_user
from lakehouse.catalog.errors import LakehouseError
from lakehouse.cli import (
    api_key,
    audit,
    cleanup,
    compact,
    contracts,
    info,
    ingest,
    query,
    rebuild,
    retention,
    run,
    sequences,
    sql,
)
from lakehouse.cli.help_style import App
from lakehouse.cli.log_options import add_log_options
from lakehouse.cli.log_output import LogLevel

app = App(
    name="lakehouse",
    help=(
        "Mosaico Lakehouse: robot recordings as Apache Iceberg tables.\n\n"
        "Without any configuration everything lives under ./.lakehouse; see `lakehouse info` for every setting.\n\n"
        "First steps: `lakehouse ingest FILE`, `lakehouse sequences`, `lakehouse run`."
    ),
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run.run)
app.command("ingest")(ingest.ingest)
app.command("sequences")(sequences.sequences)
app.command("query")(query.query)
app.command("sql")(sql.sql)
app.add_typer(contracts.app, name="contracts")
app.command("cleanup")(cleanup.cleanup)
app.command("compact")(compact.compact)
app.command("retention")(retention.retention)
app.command("audit")(audit.audit)
app.add_typer(api_key.app, name="api-key")
app.command("rebuild")(rebuild.rebuild)
app.command("info")(info.info)
# What serves for months says what it does; what prints an answer says only what is wrong.
add_log_options(app, {"run": LogLevel.INFO})


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lakehouse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    # Whatever the command does is put down in the audit log under this name.
    context.with_resource(acting_as(system_user(), door=f"lakehouse {context.invoked_subcommand}"))


def main() -> None:
    """Run the command line; errors meant for people end it with status 1 and one line on standard error."""
    try:
        app()
    except LakehouseError as error:
        typer.secho(f"error: {error.plain_message}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
