"""Append-only records of the system as Iceberg tables: one commit per append, readable by anybody, small for ever."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)
from sqlalchemy import Connection

from lakehouse.catalog.errors import StateError
from lakehouse.catalog.iceberg.arrow_schemas import arrow_schema
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.system_tables import FLAG, NUMBER, REAL, TEXT, TIME, SystemColumn, SystemTable

NOTES = SystemTable(
    "notes",
    "What happened.",
    (
        SystemColumn("text", TEXT, "The note."),
        SystemColumn("weight", REAL, "Its weight. [kg]", required=False),
        SystemColumn("is_urgent", FLAG, "Whether somebody must act."),
        SystemColumn("at", TIME, "Time, rounded down to microseconds.", time_of="at_ns"),
        SystemColumn("at_ns", NUMBER, "Time, exact. [ns since 1970-01-01 UTC]"),
    ),
)
START_NS = 1_700_000_000_123_456_789


@pytest.fixture
def lakehouse(tmp_path: Path, database_url: str) -> Iterator[Lakehouse]:
    settings = Settings.load(
        home=tmp_path, db_url=database_url, store_endpoint="", snapshots_to_keep=2, snapshot_min_age=0
    )
    with Lakehouse.open(settings) as opened:
        yield opened


def note(number: int, **values: Any) -> dict[str, Any]:
    return {"text": f"note {number}", "is_urgent": number % 2 == 0, "at_ns": START_NS + number, **values}


def rows(lakehouse: Lakehouse) -> list[dict[str, Any]]:
    catalog = open_sql_catalog(lakehouse.database, lakehouse.warehouse)
    try:
        found: list[dict[str, Any]] = catalog.load_table(NOTES.identifier).scan().to_arrow().to_pylist()
    finally:
        catalog.close()
    return sorted(found, key=lambda row: row["at_ns"])


def test_columns_are_in_arrow_what_pyiceberg_makes_of_them() -> None:
    inside = StructType(NestedField(20, "x", DoubleType(), required=True, doc="A number."))
    kinds = [
        *(BinaryType(), BooleanType(), DateType(), DoubleType(), FloatType(), IntegerType(), LongType(), StringType()),
        *(TimestamptzType(), inside, ListType(21, StringType(), element_required=True)),
        MapType(22, StringType(), 23, inside, value_required=False),
    ]
    fields = [NestedField(number, f"c{number}", kind, required=number % 2 == 0) for number, kind in enumerate(kinds)]
    for schema in (Schema(*fields), NOTES.iceberg_schema):
        assert arrow_schema(schema).equals(schema_to_pyarrow(schema), check_metadata=True)


def test_nothing_that_opens_a_lake_waits_for_pandas() -> None:
    """Which Arrow's datasets import where it is installed; a quarter of what a process needs to start."""
    program = "import sys, lakehouse.flight_gateway.server; print({'pandas', 'polars', 'duckdb'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_appended_rows_are_read_by_pyiceberg_polars_and_duckdb(lakehouse: Lakehouse) -> None:
    lakehouse.system_tables.append(NOTES, [note(1, weight=2.5), note(2)])
    lakehouse.system_tables.append(NOTES, [note(3)])
    assert [(row["text"], row["weight"], row["is_urgent"]) for row in rows(lakehouse)] == [
        ("note 1", 2.5, False),
        ("note 2", None, True),
        ("note 3", None, False),
    ]
    catalog = open_sql_catalog(lakehouse.database, lakehouse.warehouse)
    table = catalog.load_table(NOTES.identifier)
    assert [field.doc for field in table.schema().fields] == [column.doc for column in NOTES.columns]
    frame = pl.scan_iceberg(table).sort("at_ns").collect()
    assert frame["at"].dt.epoch("us").to_list() == [(START_NS + number) // 1000 for number in (1, 2, 3)]
    notes = table.scan().to_arrow()
    assert duckdb.sql("SELECT count(*) FROM notes WHERE is_urgent").fetchall() == [(1,)], notes.schema
    catalog.close()


def test_an_append_is_all_or_nothing_with_its_control_plane_rows(lakehouse: Lakehouse) -> None:
    lakehouse.system_tables.append(NOTES, [note(1)])

    def refuse(_connection: Connection) -> None:
        raise StateError("not now")

    with pytest.raises(StateError, match="not now"):
        lakehouse.system_tables.append(NOTES, [note(2)], refuse)
    assert [row["text"] for row in rows(lakehouse)] == ["note 1"]


def test_appends_of_many_threads_lose_nothing(lakehouse: Lakehouse) -> None:
    barrier = threading.Barrier(8)

    def append(number: int) -> None:
        barrier.wait()
        lakehouse.system_tables.append(NOTES, [note(number)])

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["text"] for row in rows(lakehouse)] == [f"note {number}" for number in range(8)]


def test_a_row_without_a_required_value_is_refused_before_anything_is_written(lakehouse: Lakehouse) -> None:
    with pytest.raises(KeyError, match="is_urgent"):
        lakehouse.system_tables.append(NOTES, [{"text": "half", "at_ns": 1}])


def test_old_rows_are_removed_by_time(lakehouse: Lakehouse) -> None:
    for number in range(4):
        lakehouse.system_tables.append(NOTES, [note(number), note(number + 10)])
    lakehouse.system_tables.remove_before(NOTES, "at_ns", START_NS + 11)
    assert [row["text"] for row in rows(lakehouse)] == [f"note {number}" for number in (11, 12, 13)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_maintenance_merges_the_files_of_many_appends_and_expires_their_snapshots(lakehouse: Lakehouse) -> None:
    for number in range(30):
        lakehouse.system_tables.append(NOTES, [note(number)])
    report = run_cleanup_cycle(lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings)
    assert report is not None
    assert report.before.data_files == 30
    assert report.after.data_files == 1
    assert report.upkeep.row_compactions == 1
    assert report.after.snapshots <= 3
    assert [row["text"] for row in rows(lakehouse)] == [f"note {number}" for number in range(30)]
