"""Reading topics: order, windows, batches, and how little is touched for them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from lakehouse.catalog.control_plane.schema import topics
from lakehouse.catalog.errors import NotFoundError, StorageError
from lakehouse.catalog.reading.topic_reader import TopicReader, WindowInfo
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, UNBOUNDED, TimeInterval, TimeWindow
from tests.catalog.hand_written_topics import SCHEMA, HandWrittenLake, rows_at

MIB = 1 << 20


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandWrittenLake]:
    lake = HandWrittenLake.create(tmp_path_factory.mktemp("lake"))
    yield lake
    lake.database.close()


def joined(batches: list[pa.RecordBatch], schema: pa.Schema = SCHEMA) -> pa.Table:
    """One table, with plain values in place of dictionaries: these differ from batch to batch."""
    tables = [pa.table([_plain(column) for column in batch.columns], batch.schema.names) for batch in batches]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def expected_rows(files: list[pa.RecordBatch], window: TimeWindow) -> pa.Table:
    """A plain stable sort of everything, then a plain filter."""
    everything = joined(files)
    timestamps = everything["timestamp_ns"].to_numpy()
    order = np.argsort(timestamps, kind="stable")
    return everything.take(order[[window.contains(each, each) for each in timestamps[order].tolist()]])


# Few distinct values make ties, overlaps and gaps likely; the extremes are where arithmetic would overflow.
near_times = st.integers(-20, 20)
all_times = st.one_of(
    near_times, st.sampled_from([INT64_MIN, INT64_MIN + 1, -(10**18), 10**18, INT64_MAX - 1, INT64_MAX])
)
file_times = st.lists(st.lists(all_times, min_size=1, max_size=25).map(sorted), min_size=0, max_size=6)
bounds = st.one_of(st.none(), all_times)
windows = st.tuples(bounds, bounds).map(
    lambda pair: TimeWindow(*sorted(pair)) if None not in pair else TimeWindow(*pair)  # type: ignore[type-var, arg-type]
)


@settings(deadline=None, max_examples=250)
@given(times=file_times, window=windows, row_group_size=st.integers(1, 9), rows_per_batch=st.integers(1, 12))
def test_a_read_equals_a_plain_sort_of_everything(
    lake: HandWrittenLake, times: list[list[int]], window: TimeWindow, row_group_size: int, rows_per_batch: int
) -> None:
    firsts = np.cumsum([0, *map(len, times)]).tolist()
    files = [rows_at(each, first) for each, first in zip(times, firsts, strict=False)]
    topic = lake.write_topic(files, row_group_size)
    reader = lake.reader(max_batch_rows=rows_per_batch)

    batches = list(reader.read(topic, window))

    assert all(0 < batch.num_rows <= rows_per_batch for batch in batches)
    assert all(batch.schema.equals(SCHEMA, check_metadata=True) for batch in batches)
    found, expected = joined(batches), expected_rows(files, window)
    assert found.to_pylist() == expected.to_pylist()
    times_inside = expected["timestamp_ns"].to_pylist()
    interval = TimeInterval(times_inside[0], times_inside[-1]) if times_inside else None
    assert reader.window_info(topic, window) == WindowInfo(interval, len(times_inside))


def test_equal_timestamps_stay_in_order_of_arrival_over_many_batches(lake: HandWrittenLake) -> None:
    files = [rows_at([5] * 40, 0), rows_at([4] * 3 + [5] * 40, 40), rows_at([5] * 10 + [6], 83)]
    topic = lake.write_topic(files, row_group_size=7)

    numbers = joined(list(lake.reader(max_batch_rows=3).read(topic)))["number"].to_pylist()

    assert numbers == [40, 41, 42, *range(40), *range(43, 93), 93]


def test_a_window_without_rows_gives_no_batch(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([rows_at([10, 20]), rows_at([40, 50], 2)])
    for window in (TimeWindow(10, 10), TimeWindow(21, 40), TimeWindow(51, None), TimeWindow(None, 10)):
        assert list(lake.reader().read(topic, window)) == []
        assert lake.reader().window_info(topic, window) == WindowInfo(None, 0)


def test_a_topic_without_rows_gives_no_batch(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([])
    assert list(lake.reader().read(topic)) == []
    assert lake.reader().window_info(topic, UNBOUNDED) == WindowInfo(None, 0)


def test_batches_keep_to_the_target_size_even_when_rows_differ_wildly(lake: HandWrittenLake) -> None:
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("data", pa.binary())])
    sizes = [10] * 500 + [MIB] * 6 + [10] * 500
    rows = pa.record_batch([pa.array(range(len(sizes))), pa.array([b"x" * size for size in sizes])], schema=schema)
    topic = lake.write_topic([rows], schema=schema)

    batches = list(lake.reader(target_batch_bytes=2 * MIB).read(topic))

    assert joined(batches, schema).equals(joined([rows], schema))
    assert all(batch.nbytes <= 2 * MIB or batch.num_rows == 1 for batch in batches)


@pytest.fixture(scope="module")
def topic(lake: HandWrittenLake) -> TopicRecord:
    """100 files of 100 rows in row groups of 10; timestamps 0..9999."""
    return lake.write_topic([rows_at(range(k * 100, k * 100 + 100), k * 100) for k in range(100)], 10)


class TestWhatIsTouched:
    """Files, row groups and columns of the topic above."""

    def test_files_outside_the_window_are_not_opened(self, lake: HandWrittenLake, topic: TopicRecord) -> None:
        reader = lake.reader()
        lake.warehouse.forget()
        numbers = joined(list(reader.read(topic, TimeWindow(4250, 4420))))["number"].to_pylist()
        assert numbers == list(range(4250, 4420))
        assert {ordinal_of(uri) for uri in lake.warehouse.opened} == {42, 43, 44}

    def test_row_groups_outside_the_window_are_not_read(self, lake: HandWrittenLake, topic: TopicRecord) -> None:
        reader = lake.reader()
        list(reader.read(topic, TimeWindow(4205, 4225)))  # footers are cached now
        lake.warehouse.forget()
        assert sum(batch.num_rows for batch in reader.read(topic, TimeWindow(4205, 4225))) == 20
        assert row_groups_touched(lake) == {(42, 0), (42, 1), (42, 2)}

    def test_counting_reads_timestamps_of_the_edges_only(self, lake: HandWrittenLake, topic: TopicRecord) -> None:
        reader = lake.reader()
        window = TimeWindow(4205, 8895)
        reader.window_info(topic, TimeWindow(4206, 8894))  # footers are cached now
        lake.warehouse.forget()
        assert reader.window_info(topic, window) == WindowInfo(TimeInterval(4205, 8894), 4690)
        assert row_groups_touched(lake) == {(42, 0), (88, 9)}
        assert columns_touched(lake) == {"timestamp_ns"}

    def test_a_ticket_is_redeemed_without_counting_again(self, lake: HandWrittenLake, topic: TopicRecord) -> None:
        reader = lake.reader()
        window = TimeWindow(4205, 8895)
        counted = reader.window_info(topic, window)
        lake.warehouse.forget()
        assert reader.window_info(topic, window) == counted
        assert lake.warehouse.opened == []

    def test_the_first_batch_needs_one_row_group_and_the_next_is_read_ahead(
        self, lake: HandWrittenLake, topic: TopicRecord
    ) -> None:
        reader = lake.reader()
        list(reader.read(topic, TimeWindow(0, 100)))  # footers are cached now
        lake.warehouse.forget()
        batches = reader.read(topic)
        next(batches)
        assert row_groups_touched(lake) <= {(0, 0), (0, 1)}
        batches.close()  # type: ignore[attr-defined]

    def test_envelope_columns_are_not_read(self, lake: HandWrittenLake, topic: TopicRecord) -> None:
        reader = lake.reader()
        list(reader.read(topic, TimeWindow(0, 100)))
        lake.warehouse.forget()
        list(reader.read(topic, TimeWindow(0, 100)))
        assert columns_touched(lake) == {"timestamp_ns", "number", "nested", "label"}


def test_closing_early_releases_every_file(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([rows_at(range(k, 300, 3)) for k in range(3)], row_group_size=10)
    lake.warehouse.forget()
    batches = lake.reader(max_batch_rows=5).read(topic)
    next(batches)
    assert lake.warehouse.open_streams == 3
    batches.close()  # type: ignore[attr-defined]
    assert lake.warehouse.open_streams == 0


def test_a_read_to_the_end_releases_every_file(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([rows_at(range(k, 300, 3)) for k in range(3)], row_group_size=10)
    lake.warehouse.forget()
    list(lake.reader().read(topic))
    assert lake.warehouse.open_streams == 0


def test_a_topic_deleted_while_being_read_is_not_found(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([rows_at([1, 2, 3]), rows_at([7, 8, 9], 3), rows_at([11, 12, 13], 6)])
    batches = lake.reader().read(topic)
    next(batches)  # the rows after these may be read ahead, those of the third file not yet
    delete_topic(lake, topic.id)
    remove_files(lake, topic.uuid)
    with pytest.raises(NotFoundError, match="topic"):
        list(batches)
    with pytest.raises(NotFoundError, match="topic"):
        list(lake.reader().read(topic))
    with pytest.raises(NotFoundError, match="topic"):
        lake.reader().window_info(topic, TimeWindow(2, 8))


def test_a_lost_data_file_is_a_storage_error_without_paths(lake: HandWrittenLake) -> None:
    topic = lake.write_topic([rows_at([1, 2, 3])])
    remove_files(lake, topic.uuid)
    with pytest.raises(StorageError) as caught:
        list(lake.reader().read(topic))
    assert "parquet" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"not a parquet file", b"PAR1" + b"\0" * 60 + b"PAR1"])
def test_a_damaged_data_file_is_a_storage_error(lake: HandWrittenLake, damage: bytes) -> None:
    topic = lake.write_topic([rows_at([1, 2, 3])])
    with lake.warehouse.open_output(f"{lake.warehouse.uri}/{topic.uuid}-00000.parquet") as sink:
        sink.write(damage)
    with pytest.raises(StorageError):
        list(lake.reader().read(topic))


class TestMemory:
    """What Arrow holds at most while a topic streams."""

    def test_a_row_group_of_blobs_is_never_in_memory_as_a_whole(self, lake: HandWrittenLake) -> None:
        schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("data", pa.binary())])
        blob = np.random.default_rng(0).bytes(MIB)
        rows = pa.record_batch([pa.array(range(96)), pa.array([blob] * 96)], schema=schema)
        options = {"use_dictionary": False, "compression": "none", "write_batch_size": 1}
        topic = lake.write_topic([rows], schema=schema, **options)
        del rows

        assert peak_bytes(lake.reader(target_batch_bytes=4 * MIB), topic) < 24 * MIB

    def test_many_overlapping_files_share_the_batch_budget(self, lake: HandWrittenLake) -> None:
        schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("data", pa.binary())])
        blob = np.random.default_rng(0).bytes(64 * 1024)
        options = {"use_dictionary": False, "compression": "none", "write_batch_size": 1}
        files = [
            pa.record_batch([pa.array(range(k, 640, 20)), pa.array([blob] * 32)], schema=schema) for k in range(20)
        ]
        topic = lake.write_topic(files, schema=schema, **options)
        del files

        assert peak_bytes(lake.reader(target_batch_bytes=4 * MIB), topic) < 24 * MIB


def peak_bytes(reader: TopicReader, topic: TopicRecord) -> int:
    pool = pa.proxy_memory_pool(pa.system_memory_pool())
    previous = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        for batch in reader.read(topic):
            del batch
        return int(pool.max_memory())
    finally:
        pa.set_memory_pool(previous)
        _pools.append(pool)


# Arrow frees buffers through the pool they came from; a pool must outlive all of them.
_pools: list[pa.MemoryPool] = []


def ordinal_of(uri: str) -> int:
    return int(Path(uri).stem.rpartition("-")[2])


def chunks_touched(lake: HandWrittenLake) -> Iterator[tuple[int, int, str]]:
    """Ordinal, row group and top-level column of every column chunk of which a byte was read."""
    for uri, start, stop in lake.warehouse.ranges:
        metadata = pq.read_metadata(uri.removeprefix("file://"))
        for index in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(index).column(number)
                first = chunk.dictionary_page_offset or chunk.data_page_offset
                if start < first + chunk.total_compressed_size and first < stop:
                    yield ordinal_of(uri), index, chunk.path_in_schema.partition(".")[0]


def row_groups_touched(lake: HandWrittenLake) -> set[tuple[int, int]]:
    return {(ordinal, row_group) for ordinal, row_group, _ in chunks_touched(lake)}


def columns_touched(lake: HandWrittenLake) -> set[str]:
    return {column for _, _, column in chunks_touched(lake)}


def delete_topic(lake: HandWrittenLake, topic_id: int) -> None:
    with lake.database.transaction() as connection:
        connection.execute(delete(topics).where(topics.c.id == topic_id))


def remove_files(lake: HandWrittenLake, topic_uuid: str) -> None:
    lake.warehouse.delete([f"{lake.warehouse.uri}/{topic_uuid}-{ordinal:05d}.parquet" for ordinal in range(9)])
