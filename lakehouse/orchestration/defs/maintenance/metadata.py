"""Reports of maintenance as Dagster metadata."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import dagster as dg

Metadata = dict[str, dg.MetadataValue[Any]]

COUNTS = dg.TableSchema(
    columns=[
        dg.TableColumn("what"),
        dg.TableColumn("before", "int"),
        dg.TableColumn("after", "int", description="In a dry run, what it would become"),
    ]
)


def counts(before: Any, after: Any) -> dg.MetadataValue[Any]:
    """A table of two dataclasses of counts."""
    rows = [
        dg.TableRecord(
            {
                "what": field.name.replace("_", " "),
                "before": getattr(before, field.name),
                "after": getattr(after, field.name),
            }
        )
        for field in fields(before)
    ]
    return dg.MetadataValue.table(rows, schema=COUNTS)


def figures(of: Any) -> Metadata:
    """The numbers of a dataclass, each plotted over the runs."""
    return {
        field.name: dg.MetadataValue.int(value)
        for field in fields(of)
        if isinstance(value := getattr(of, field.name), int) and not isinstance(value, bool)
    }


def table(rows: Iterable[Mapping[str, Any]]) -> Metadata:
    """A table under the name `details`, if there is a row at all."""
    records = [dg.TableRecord(dict(row)) for row in rows]
    return {"details": dg.MetadataValue.table(records)} if records else {}
