"""Slices of single files, above all of files that are not in time order."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.catalog.reading.parquet_slices import ParquetSlices, Selection
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, UNBOUNDED, TimeWindow
from tests.catalog.hand_written_topics import RecordingWarehouse

COLUMNS = ("timestamp_ns", "number")
BYTES_PER_ROW = 16

times = st.one_of(st.integers(-10, 10), st.sampled_from([INT64_MIN, INT64_MAX]))
windows = st.tuples(st.one_of(st.none(), times), st.one_of(st.none(), times)).map(
    lambda pair: TimeWindow(*sorted(pair)) if None not in pair else TimeWindow(*pair)  # type: ignore[type-var, arg-type]
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> RecordingWarehouse:
    return RecordingWarehouse(tmp_path_factory.mktemp("warehouse"))


def write(warehouse: RecordingWarehouse, name: str, timestamps: list[int], row_group_size: int) -> str:
    uri = f"{warehouse.uri}/{name}.parquet"
    rows = pa.table({"timestamp_ns": pa.array(timestamps, pa.int64()), "number": range(len(timestamps))})
    with warehouse.open_output(uri) as sink:
        pq.write_table(rows, sink, row_group_size=row_group_size)
    return uri


@settings(deadline=None, max_examples=200)
@given(
    timestamps=st.lists(times, min_size=1, max_size=40),
    row_group_size=st.integers(1, 10),
    window=windows,
    deleted=st.one_of(st.none(), st.sets(st.integers(0, 39))),
    sorted_at_once=st.integers(1, 50),
)
def test_a_file_in_any_order_is_read_in_time_order(
    warehouse: RecordingWarehouse,
    timestamps: list[int],
    row_group_size: int,
    window: TimeWindow,
    deleted: set[int] | None,
    sorted_at_once: int,
) -> None:
    uri = write(warehouse, "any_order", timestamps, row_group_size)
    slices = ParquetSlices(warehouse, sorting_bytes=sorted_at_once * BYTES_PER_ROW)
    selection = Selection(window, deleted=None if deleted is None else np.array(sorted(deleted), np.int64))

    batches = list(slices.read_unsorted(uri, selection, COLUMNS, 7, BYTES_PER_ROW))

    expected = sorted(
        (time, number)
        for number, time in enumerate(timestamps)
        if window.contains(time, time) and number not in (deleted or ())
    )
    found = [row for batch in batches for row in zip(*batch.rows.to_pydict().values(), strict=True)]
    assert found == expected
    assert [time for batch in batches for time in batch.timestamps] == [time for time, _ in expected]
    assert all(0 < batch.rows.num_rows <= 7 for batch in batches)
    assert slices.is_sorted(uri) == (timestamps == sorted(timestamps))


def test_a_file_made_of_sorted_runs_is_sorted_without_reading_it_over_and_over(warehouse: RecordingWarehouse) -> None:
    # What compaction by bin packing leaves: the files it joined, one after another, each in time order.
    runs = [time for start in (30_000, 0, 20_000, 10_000) for time in range(start, start + 10_000)]
    uri = write(warehouse, "runs", runs, row_group_size=1000)
    slices = ParquetSlices(warehouse, sorting_bytes=4000 * BYTES_PER_ROW)
    slices.footer(uri)
    warehouse.forget()

    batches = list(slices.read_unsorted(uri, Selection(UNBOUNDED), COLUMNS, 8192, BYTES_PER_ROW))

    assert [time for batch in batches for time in batch.timestamps.tolist()] == list(range(40_000))
    size = Path(uri.removeprefix("file://")).stat().st_size
    # Once for the timestamps, once for the rows, and a little at the edges of slices.
    assert sum(stop - start for _, start, stop in warehouse.ranges) < 2.5 * size
