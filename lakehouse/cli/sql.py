"""`lakehouse sql`: ask the tables, without any server."""

import shutil
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lakehouse.cli.formatting import error_console, wide_console

if TYPE_CHECKING:
    from lakehouse.catalog.sql.lake_sql import OutputFormat, Statement

_MOST_ROWS = 1000


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def sql(
    statement: Annotated[
        str, typer.Argument(metavar="STATEMENT", help="One SELECT, or SHOW TABLES; - reads it from standard input.")
    ],
    output_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="Default: by the ending of --output, else csv there and a table here.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also tell how many data files were read of each table.")
    ] = False,
) -> None:
    """Ask the tables in SQL (DuckDB's dialect), named like imu.imu_front or mosaico.sequences.

    Only data files are read whose statistics allow a match, conditions on nested fields included. All tables of a
    statement are as they were at one moment: a session is in each of them or in none.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.errors import BadRequestError
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings
    from lakehouse.catalog.sql.lake_sql import LakeSql

    if output_format is None:
        endings = {f".{each}": each for each in Format}
        output_format = endings.get(output.suffix if output else "", Format.CSV if output else Format.TABLE)
    if output_format is Format.PARQUET and output is None:
        raise BadRequestError("--format parquet needs a file: --output FILE")
    if output is not None and output_format is Format.TABLE:
        raise BadRequestError("a table is for the screen: --output takes csv, json and parquet")
    text = sys.stdin.read() if statement == "-" else statement
    with Lakehouse.open(Settings.load()) as lake, LakeSql(lake).opened(text) as prepared:
        if output_format is Format.TABLE:
            _print(prepared)
        else:
            _write(prepared, output, output_format.value)  # type: ignore[arg-type]
        if explain:
            console = error_console()
            for each in prepared.files:
                console.print(f"{each.table}: {each.read} of {each.total} data files read")


def _write(prepared: "Statement", output: Path | None, output_format: "OutputFormat") -> None:
    if output is not None:
        rows = prepared.write(output, output_format)
        error_console().print(f"{rows:,} rows written to {output} as {output_format}")
        return
    with tempfile.TemporaryDirectory(prefix="lakehouse-sql-") as directory:
        result = Path(directory) / "result"
        prepared.write(result, output_format)
        with result.open() as stream:
            shutil.copyfileobj(stream, sys.stdout)


def _print(prepared: "Statement") -> None:
    reader = prepared.batches()
    shown = Table(*reader.schema.names, box=None, header_style="bold")
    count = 0
    for batch in reader:
        for row in batch.slice(0, max(0, _MOST_ROWS - count)).to_pylist():
            shown.add_row(*("" if value is None else str(value) for value in row.values()))
        count += batch.num_rows
    wide_console().print(shown)
    if count > _MOST_ROWS:
        error_console().print(f"{count:,} rows, the first {_MOST_ROWS:,} of them shown; --output writes all")
