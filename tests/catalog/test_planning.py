"""Other programs plan with our bounds: they skip files, and never one that holds a matching row."""

import math
import operator
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg import expressions
from pyiceberg.table import Table

from lakehouse.catalog.iceberg.data_files import NANOSECONDS_PER_DAY, DataFileEntry
from lakehouse.ontology.arrow_iceberg import plan_storage
from tests.catalog.upload_lake import UploadLake, append, local_path

STATE = pa.struct(
    [
        ("flag", pa.bool_()),
        ("tiny", pa.int8()),
        ("int", pa.int32()),
        ("unsigned", pa.uint32()),
        ("long", pa.int64()),
        ("huge", pa.uint64()),
        ("half", pa.float16()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("money", pa.decimal128(9, 2)),
        ("text", pa.string()),
        ("date", pa.date32()),
        ("local", pa.timestamp("us")),
        ("instant", pa.timestamp("us", "UTC")),
    ]
)
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("body", pa.struct([pa.field("state", STATE)])),
        pa.field("top", pa.float64()),
        pa.field("a.dot", pa.float64()),
        pa.field("ranges", pa.list_(pa.float32())),
        pa.field("image", pa.binary()),
    ]
)
FILES, ROWS = 24, 6
COLUMNS = ("timestamp_ns", "recorded_at", "top", *(f"body.state.{field.name}" for field in STATE))
ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
COMPARISONS: dict[str, tuple[Any, Callable[[Any, Any], bool]]] = {
    "less": (expressions.LessThan, operator.lt),
    "less or equal": (expressions.LessThanOrEqual, operator.le),
    "greater": (expressions.GreaterThan, operator.gt),
    "greater or equal": (expressions.GreaterThanOrEqual, operator.ge),
    "equal": (expressions.EqualTo, operator.eq),
    "not equal": (expressions.NotEqualTo, operator.ne),
}


def value_of(kind: pa.DataType, base: int, random: np.random.Generator) -> Any:
    """A value near `base`, so that files differ, or now and then something extreme."""
    number = base * 10 + int(random.integers(0, 12))
    makers: dict[str, Callable[[], Any]] = {
        "bool": lambda: bool(base % 3) and bool(number % 2),
        "int8": lambda: number % 256 - 128,
        "uint64": lambda: number << 56 & 2**64 - 1,
        "int64": lambda: (number << 55) - 2**60,
        "uint32": lambda: number << 24 & 2**32 - 1,
        "string": lambda: chr(97 + base) * int(random.integers(1, 40)) + random.choice(["", "\U0010ffff", "é"]),
        "date32[day]": lambda: date(1970, 1, 1) + timedelta(days=number - 50),
        "timestamp[us]": lambda: datetime(1970, 1, 1) + timedelta(microseconds=number - 50),
        "timestamp[us, tz=UTC]": lambda: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number - 50),
        "decimal128(9, 2)": lambda: Decimal(number - 50) / 4,
    }
    if str(kind) in makers:
        return makers[str(kind)]()
    if pa.types.is_floating(kind):
        return random.choice([number / 8 - 10, float(number), 0.0, -0.0, math.nan] if base % 2 else [number / 8 - 10])
    return number - 60


def make_file(number: int) -> pa.RecordBatch:
    random = np.random.default_rng(number)
    nullness = (0.0, 0.3, 1.0)[number % 3 if number % 7 == 0 else number % 2]

    def maybe(value: Any) -> Any:
        return None if random.random() < nullness else value

    start = (number % 4) * NANOSECONDS_PER_DAY - NANOSECONDS_PER_DAY + number * 10**9
    rows = [
        {
            "timestamp_ns": start + row,
            "body": maybe(
                {"state": maybe({field.name: maybe(value_of(field.type, number, random)) for field in STATE})}
            ),
            "top": maybe(value_of(pa.float64(), number, random)),
            "a.dot": maybe(float(number)),
            "ranges": maybe([1.0, None, math.nan]),
            "image": maybe(random.bytes(2000)),
        }
        for row in range(ROWS)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


class PlannedLake:
    """A table of many small files, and their rows as plain Python values."""

    def __init__(self, home: Path) -> None:
        self.lake = UploadLake(home)
        self.table: Table = self.lake.table(plan_storage(SCHEMA))
        self.entries: list[DataFileEntry] = []
        for number in range(FILES):
            self.entries += self.lake.store([make_file(number)], self.table, f"drive{number % 3}").entries
        append(self.table, self.entries)
        self.rows = {entry.path: pq.ParquetFile(local_path(entry)).read().to_pylist() for entry in self.entries}

    def values(self, path: str, column: str) -> list[Any]:
        first, *others = column.split(".")
        values = [row[first] for row in self.rows[path]]
        for name in others:
            values = [None if value is None else value[name] for value in values]
        return values

    def planned(self, expression: Any) -> set[str]:
        return {task.file.file_path for task in self.table.scan(row_filter=expression).plan_files()}

    def matching(self, column: str, test: Callable[[Any], bool]) -> set[str]:
        return {path for path in self.rows if any(test(value) for value in self.values(path, column))}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannedLake]:
    lake = PlannedLake(tmp_path_factory.mktemp("planned"))
    yield lake
    lake.lake.close()


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


@settings(deadline=None, max_examples=300)
@given(
    column=st.sampled_from(COLUMNS), comparison=st.sampled_from(sorted(COMPARISONS)), pick=st.integers(0, FILES * ROWS)
)
def test_stock_planning_keeps_exactly_the_files_that_brute_force_keeps(
    planned: PlannedLake, column: str, comparison: str, pick: int
) -> None:
    known = [value for path in planned.rows for value in planned.values(path, column)]
    known = [value for value in known if value is not None and not is_nan(value)]
    operand = known[pick % len(known)]
    predicate, compare = COMPARISONS[comparison]
    kept = planned.planned(predicate(column, operand))
    matching = planned.matching(column, lambda value: value is not None and compare(value, operand))
    assert matching <= kept
    if column.endswith(("text", "flag")) or comparison == "not equal":
        return
    known_extremes = {path: extremes(planned.values(path, column)) for path in planned.rows}
    if comparison == "equal":
        possible = {path for path, (low, high) in known_extremes.items() if low is not None and low <= operand <= high}
    else:
        # The extremes are values of the file, so a file that is kept has a row that matches.
        possible = matching
    # Nothing can be said about a file that holds both NaN and null and nothing else.
    unknown = {
        path for path in planned.rows if {type(each) for each in planned.values(path, column)} == {float, type(None)}
    }
    unknown &= {path for path, (low, _) in known_extremes.items() if low is None}
    assert kept - unknown == possible


def extremes(values: list[Any]) -> tuple[Any, Any]:
    present = [value for value in values if value is not None and not is_nan(value)]
    return (min(present), max(present)) if present else (None, None)


@pytest.mark.parametrize("column", COLUMNS[2:])
def test_stock_planning_knows_nulls(planned: PlannedLake, column: str) -> None:
    assert planned.planned(expressions.IsNull(column)) == planned.matching(column, lambda value: value is None)
    assert planned.planned(expressions.NotNull(column)) == planned.matching(column, lambda value: value is not None)


@pytest.mark.parametrize("column", ["top", "body.state.half", "body.state.single", "body.state.double"])
def test_stock_planning_knows_nan(planned: PlannedLake, column: str) -> None:
    assert planned.planned(expressions.IsNaN(column)) == planned.matching(column, is_nan)


def test_stock_planning_prunes_by_partition(planned: PlannedLake) -> None:
    kept = planned.planned(expressions.EqualTo("sequence", "drive1"))
    assert kept == {entry.path for entry in planned.entries if entry.sequence == "drive1"}
    assert len(kept) == FILES // 3


def test_the_counts_of_a_table_are_those_of_its_rows(planned: PlannedLake) -> None:
    assert planned.table.scan().count() == FILES * ROWS
    assert planned.table.scan().to_arrow().num_rows == FILES * ROWS


def plain(value: Any) -> Any:
    """A value in a form that compares exactly, whichever time zone classes a program uses."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return repr(value)


def test_duckdb_reads_the_same_rows(planned: PlannedLake) -> None:
    for entry in planned.entries:
        found = duckdb.sql(f"from '{local_path(entry)}'")
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
        assert [plain(row) for row in rows] == [plain(row) for row in planned.rows[entry.path]]


def test_polars_reads_the_same_rows(planned: PlannedLake) -> None:
    for entry in planned.entries:
        rows = pl.read_parquet(local_path(entry), glob=False).to_dicts()
        assert [plain(row) for row in rows] == [plain(row) for row in planned.rows[entry.path]]


def test_a_directory_of_files_is_one_table_for_everyone(planned: PlannedLake) -> None:
    directory = f"{planned.table.location().removeprefix('file://')}/data"
    columns = pq.ParquetFile(local_path(planned.entries[0])).schema_arrow.names
    found = duckdb.sql(f"from '{directory}/**/*.parquet'")
    assert (found.columns, len(found)) == (columns, FILES * ROWS)
    assert pq.read_table(directory).shape == (FILES * ROWS, len(columns))
    assert pl.read_parquet(directory).shape == (FILES * ROWS, len(columns))


@pytest.mark.parametrize("column", ["body.state.double", "body.state.single", "body.state.long", "top", "timestamp_ns"])
@pytest.mark.parametrize("operator_text", ["<", "<=", ">", ">=", "=", "<>"])
def test_filters_of_duckdb_and_polars_skip_no_row_of_a_file(
    planned: PlannedLake, column: str, operator_text: str
) -> None:
    """Whatever an engine thinks of NaN, a filter over a file finds what it finds over the same rows in memory."""
    first, *others = column.split(".")
    expression = pl.col(first)
    for name in others:
        expression = expression.struct.field(name)
    for entry in planned.entries:
        path = local_path(entry)
        condition = f"{column} {operator_text} 20"
        # A list of outcomes is computed row by row; a filter is handed to the reader of the file.
        outcomes = duckdb.sql(f"select {condition} from '{path}'").fetchall()
        filtered = duckdb.sql(f"select count(*) from '{path}' where {condition}").fetchall()
        assert filtered == [(sum(1 for (outcome,) in outcomes if outcome),)]
        compare = {"=": operator.eq, "<>": operator.ne}.get(operator_text) or ORDERINGS[operator_text]
        lazy = pl.scan_parquet(path, glob=False).filter(compare(expression, 20))
        eager = pl.read_parquet(path, glob=False).filter(compare(expression, 20))
        assert lazy.collect().height == eager.height


def test_no_row_group_has_statistics_that_pass_over_nan(planned: PlannedLake) -> None:
    for entry in planned.entries:
        group = pq.ParquetFile(local_path(entry)).metadata.row_group(0)
        for number in range(group.num_columns):
            column = group.column(number)
            if column.physical_type in ("FLOAT", "DOUBLE") and ".list." not in column.path_in_schema:
                name = column.path_in_schema if column.path_in_schema != "a.dot" else "top"
                if any(is_nan(value) for value in planned.values(entry.path, name)):
                    assert column.statistics is None
