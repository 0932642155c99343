"""`lakehouse info`: where everything lives and how it is set."""

import typer
from rich.table import Table

from lakehouse import __version__
from lakehouse.cli.formatting import wide_console


def info() -> None:
    """Show the version, where data lives, and every setting with its value.

    Settings are read from environment variables, or from a file `.env` in the current directory. Secrets are shown as
    `set` only.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from pydantic import SecretStr

    from lakehouse.catalog.settings import Settings

    settings = Settings.load()
    typer.echo(f"lakehouse {__version__}\ndatabase  {settings.database_name}\nwarehouse {settings.warehouse_uri}\n")
    table = Table("variable", "value", "meaning", box=None, header_style="bold")
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            shown = "set" if value.get_secret_value() else "-"
        elif name == "db_url":
            shown = settings.database_name if value else "-"
        else:
            shown = str(value) or "-"
        table.add_row(str(field.validation_alias), shown, field.description or "")
    wide_console().print(table)
