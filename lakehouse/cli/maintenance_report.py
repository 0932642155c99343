"""How reports of maintenance look: counts before and after, then what was done."""

import json
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

LABELS = {"files": "files looked at", "bytes": "bytes looked at", "row_compactions": "merges of mosaico.* row files"}


def print_counts(console: Console, before: Any, after: Any, *, dry_run: bool) -> None:
    """A table of two dataclasses of counts."""
    columns = ("now", "would become") if dry_run else ("before", "after")
    counts = Table("", *columns, box=None, header_style="bold")
    for field in fields(before):
        counts.add_row(
            field.name.replace("_", " "), f"{getattr(before, field.name):,}", f"{getattr(after, field.name):,}"
        )
    console.print(counts)


def print_figures(console: Console, report: Any, *, dry_run: bool) -> None:
    """All counters of a report and of its parts, but for the counts before and after."""
    console.print("would be done:" if dry_run else "done:")
    for name, value in _figures(report):
        console.print(f"  {LABELS.get(name, name.replace('_', ' '))}: {value:,}", highlight=False)


def _figures(report: Any) -> list[tuple[str, int]]:
    figures: list[tuple[str, int]] = []
    for field in fields(report):
        value = getattr(report, field.name)
        if is_dataclass(value) and field.name not in ("before", "after"):
            figures += _figures(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            figures.append((field.name, value))
    return figures


def print_json(report: Any, **more: Any) -> None:
    """A report for programs."""
    typer.echo(json.dumps({**asdict(report), **more}, indent=2))


def print_busy(what: str, as_json: bool) -> None:
    """Another process holds the lease: nothing was done, and that is no failure."""
    if as_json:
        typer.echo(json.dumps({"skipped": f"another process is {what}"}))
    else:
        typer.echo(f"Another process is {what}; nothing done.")
