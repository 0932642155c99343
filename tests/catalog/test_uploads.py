"""From record batches to durable, time-sorted data files."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.catalog.errors import InvalidDataError, StateError, StorageError
from lakehouse.catalog.iceberg.bounds import ElementBounds
from lakehouse.catalog.iceberg.data_files import NANOSECONDS_PER_DAY, DataFileEntry, data_file_uri
from lakehouse.catalog.settings import MIB
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, TimeInterval
from lakehouse.catalog.writing.day_buffer import owned
from lakehouse.catalog.writing.encoder_pool import Job
from lakehouse.catalog.writing.uploads import UploadResult
from lakehouse.ontology.arrow_iceberg import UnsupportedTypeError, plan_storage
from tests.catalog.upload_lake import NUMBERS, UploadLake, local_path, numbers
from tests.ontology.random_arrow import logical, random_batch, upload_schemas

DAY = NANOSECONDS_PER_DAY
SMALL = 4096
random_examples = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def open_lake(tmp_path: Path) -> Iterator[Callable[..., UploadLake]]:
    opened: list[UploadLake] = []

    def open_one(**options: int) -> UploadLake:
        lake = UploadLake(tmp_path / f"lake{len(opened)}", **options)
        opened.append(lake)
        return lake

    (tmp_path / "lake0").mkdir()
    (tmp_path / "lake1").mkdir()
    yield open_one
    for lake in opened:
        lake.close()


@pytest.fixture
def lake(open_lake: Callable[..., UploadLake]) -> UploadLake:
    return open_lake()


@pytest.fixture
def small_lake(open_lake: Callable[..., UploadLake]) -> UploadLake:
    """Row groups and files of a few hundred rows."""
    return open_lake(row_group=SMALL, file=4 * SMALL)


def read(entry: DataFileEntry) -> pa.Table:
    return pq.ParquetFile(local_path(entry)).read()


def check_files(result: UploadResult) -> None:
    """Each file is sorted, lies in one day, and is what its entry says."""
    assert [entry.ordinal for entry in result.entries] == list(range(len(result.entries)))
    assert result.row_count == sum(entry.record_count for entry in result.entries)
    assert result.total_bytes == sum(os.path.getsize(local_path(entry)) for entry in result.entries)
    for entry in result.entries:
        times = read(entry).column("timestamp_ns").to_numpy()
        assert (np.diff(times.astype(object)) >= 0).all()
        assert (entry.start_ns, entry.end_ns, entry.record_count) == (times[0], times[-1], len(times))
        assert entry.start_ns // DAY == entry.day == entry.end_ns // DAY
        assert f"/{datetime(1970, 1, 1) + timedelta(days=entry.day):%Y-%m-%d}/" in entry.path


def stored_rows(result: UploadResult) -> list[tuple[int, float]]:
    """(time, value) in the order in which readers give rows: by time, then by file, then by place in the file."""
    rows = [
        (time, value)
        for entry in result.entries
        for time, value in zip(*(read(entry).column(name).to_pylist() for name in NUMBERS.names), strict=True)
    ]
    return sorted(rows, key=lambda row: row[0])


def test_rows_of_one_day_become_one_file(lake: UploadLake) -> None:
    result = lake.store([numbers(range(10)), numbers(range(10, 30))])
    check_files(result)
    assert len(result.entries) == 1
    assert result.interval == TimeInterval(0, 29)
    assert lake.files() == [result.entries[0].path]
    assert lake.budget.total == 0


def test_no_rows_make_no_file(lake: UploadLake) -> None:
    result = lake.store([numbers([]), numbers([])])
    assert (result.entries, result.row_count, result.total_bytes, result.interval) == ((), 0, 0, None)
    assert lake.files() == []


def test_the_envelope_is_the_same_in_every_row(lake: UploadLake) -> None:
    entry = lake.store([numbers([-1, 0, 1001])], sequence="drive").entries
    rows = pa.concat_tables([read(each) for each in entry])
    assert set(rows.column("sequence").to_pylist()) == {"drive"}
    assert set(rows.column("session").to_pylist()) == {"drive:01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    # Rounded down, so that a nanosecond before 1970 stays in its day.
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [epoch + timedelta(microseconds=each) for each in (-1, 0, 1)]
    assert rows.column("recorded_at").to_pylist() == expected
    assert [each.day for each in entry] == [-1, 0]


@pytest.mark.parametrize("time", [INT64_MIN, INT64_MIN + 1, -DAY, -1, 0, DAY - 1, DAY, INT64_MAX])
def test_every_timestamp_has_its_day(lake: UploadLake, time: int) -> None:
    result = lake.store([numbers([time])])
    check_files(result)
    assert result.interval == TimeInterval(time, time)


times_of_batches = st.lists(
    st.lists(
        st.one_of(
            st.integers(INT64_MIN, INT64_MAX), st.integers(-3 * DAY, 3 * DAY), st.integers(0, 50), st.just(DAY - 1)
        ),
        max_size=30,
    ),
    min_size=1,
    max_size=12,
)


@random_examples
@given(batches=times_of_batches)
def test_any_order_of_any_times_is_stored_sorted_with_ties_in_order_of_arrival(
    open_lake: Callable[..., UploadLake], tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    lake = UploadLake(tmp_path_factory.mktemp("lake"), row_group=SMALL, file=3 * SMALL)
    arrived = [(time, float(number)) for number, time in enumerate(time for batch in batches for time in batch)]
    start = 0
    uploaded = []
    for batch in batches:
        uploaded.append(numbers(batch, np.arange(start, start + len(batch))))
        start += len(batch)
    result = lake.store(uploaded)
    check_files(result)
    assert stored_rows(result) == sorted(arrived, key=lambda row: row[0])
    assert lake.budget.total == 0
    lake.close()


@random_examples
@given(schema=upload_schemas(), seed=st.integers(0, 2**32 - 1))
def test_any_schema_comes_back_as_uploaded(
    tmp_path_factory: pytest.TempPathFactory, schema: pa.Schema, seed: int
) -> None:
    try:
        plan = plan_storage(schema)
    except UnsupportedTypeError:
        return
    lake = UploadLake(tmp_path_factory.mktemp("lake"))
    random = np.random.default_rng(seed)
    position = schema.get_field_index("timestamp_ns")
    batches = []
    for number in range(3):
        batch = random_batch(schema, 7, random)
        times = pa.array(np.arange(number * 7, number * 7 + 7))
        batches.append(batch.set_column(position, schema.field(position), times))
    (entry,) = lake.store(batches).entries
    for column in range(len(schema)):
        expected = [value for batch in batches for value in logical(batch.column(column))]
        restored = [plan.from_storage_batches(batch) for batch in read(entry).to_batches()]
        found = [value for parts in restored for part in parts for value in logical(part.column(column))]
        assert found == expected
    assert DataFileEntry.from_bytes(entry.to_bytes()) == entry
    lake.close()


def test_files_end_at_their_size(small_lake: UploadLake) -> None:
    result = small_lake.store([numbers(range(start, start + 100)) for start in range(0, 5000, 100)])
    check_files(result)
    assert 4 < len(result.entries) < 50
    assert all(len(entry.split_offsets) > 1 for entry in result.entries[:-1])


def test_one_batch_larger_than_a_file_is_split(small_lake: UploadLake) -> None:
    result = small_lake.store([numbers(range(10_000))])
    check_files(result)
    assert len(result.entries) > 5


def test_a_file_without_limit_takes_everything(open_lake: Callable[..., UploadLake]) -> None:
    lake = open_lake(row_group=SMALL, file=0)
    (entry,) = lake.store([numbers(range(start, start + 100)) for start in range(0, 5000, 100)]).entries
    assert len(entry.split_offsets) > 10


def test_stragglers_do_not_end_files(open_lake: Callable[..., UploadLake]) -> None:
    lake = open_lake(row_group=16 * SMALL, file=0)
    times = np.arange(50_000) * 1000
    late = times + np.random.default_rng(1).integers(0, 100_000, len(times))
    result = lake.store([numbers(np.argsort(late)[start : start + 500] * 1000) for start in range(0, len(times), 500)])
    check_files(result)
    assert result.row_count == len(times)
    assert len(result.entries) <= 2


def test_wild_days_keep_neither_files_open_nor_rows_in_memory(open_lake: Callable[..., UploadLake]) -> None:
    lake = open_lake(row_group=256 * 1024)
    random = np.random.default_rng(2)
    with lake.upload() as upload:
        before = len(os.listdir("/proc/self/fd"))
        most = 0
        for _ in range(10):
            upload.write(numbers(random.integers(0, 60, 100) * DAY))
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
        result = upload.finish()
    check_files(result)
    assert result.row_count == 1000
    assert most <= 4
    assert lake.budget.peak < 1024 * 1024


def test_midnight_splits_a_batch(lake: UploadLake) -> None:
    result = lake.store([numbers(range(DAY - 5, DAY + 5)), numbers(range(DAY + 5, DAY + 9))])
    check_files(result)
    assert [(entry.day, entry.record_count) for entry in result.entries] == [(0, 5), (1, 9)]


TEXT = pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("text", pa.string())])


def broken_text() -> pa.RecordBatch:
    offsets = pa.py_buffer(np.array([0, 2], np.int32))
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    return pa.RecordBatch.from_arrays([pa.array([1]), text], schema=TEXT)


def offsets_beyond_the_data() -> pa.RecordBatch:
    offsets = pa.py_buffer(np.array([0, 1 << 30, 1, 2], np.int32))
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"ab")])
    return pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), text], schema=TEXT)


@pytest.mark.parametrize(
    "make",
    [
        broken_text,
        offsets_beyond_the_data,
        lambda: pa.RecordBatch.from_arrays([pa.array([None], pa.int64()), pa.array(["a"])], schema=TEXT),
        lambda: numbers([1]),
    ],
    ids=["utf-8", "offsets", "null time", "schema"],
)
def test_data_that_breaks_its_schema_is_refused_and_nothing_stays(
    small_lake: UploadLake, make: Callable[[], pa.RecordBatch]
) -> None:
    good = pa.RecordBatch.from_arrays([pa.array(range(1000)), pa.array(["a" * 100] * 1000)], schema=TEXT)
    upload = small_lake.upload(TEXT)
    upload.write(good)
    with pytest.raises(InvalidDataError):
        upload.write(make())
    assert small_lake.files() == []
    assert small_lake.budget.total == 0
    with pytest.raises(StateError):
        upload.write(good)
    with pytest.raises(StateError):
        upload.finish()


def test_leaving_without_finish_removes_everything(small_lake: UploadLake) -> None:
    with small_lake.upload() as upload:
        upload.write(numbers(range(5000)))
    assert small_lake.files() == []
    assert small_lake.budget.total == 0


def test_abort_after_finish_removes_everything(small_lake: UploadLake) -> None:
    upload = small_lake.upload()
    upload.write(numbers(range(5000)))
    assert len(upload.finish().entries) > 1
    upload.abort()
    upload.abort()
    assert small_lake.files() == []


def test_a_warehouse_that_fails_fails_the_upload_and_leaves_nothing(small_lake: UploadLake) -> None:
    plan = plan_storage(NUMBERS)
    table = small_lake.table(plan)
    blocked = Path(table.location().removeprefix("file://"), "data")
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_bytes(b"in the way")
    upload = small_lake.upload(NUMBERS, table)

    def write_all() -> None:
        for start in range(0, 100_000, 100):
            upload.write(numbers(range(start, start + 100)))
        upload.finish()

    with pytest.raises(StorageError) as failure:
        write_all()
    assert str(blocked) not in str(failure.value)
    assert small_lake.files() == []
    assert small_lake.budget.total == 0


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from tests.catalog.upload_lake import UploadLake, numbers
from lakehouse.catalog.errors import StorageError
lake = UploadLake(Path(sys.argv[1]), row_group=1 << 16)
upload = lake.upload()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(200):
        upload.write(numbers(np.arange(1000) + number * 1000, np.random.default_rng(number).normal(size=1000)))
    upload.finish()
except StorageError as error:
    print(error, lake.files(), lake.budget.total)
lake.close()
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "could not be written" in done.stdout, done.stderr
    assert "[] 0" in done.stdout


@pytest.mark.parametrize("point", ["data-file-close:before", "data-file-close:after"])
def test_crash_points_stand_around_the_closing_of_files(tmp_path: Path, point: str) -> None:
    script = """
import sys
from pathlib import Path
from tests.catalog.upload_lake import UploadLake, numbers
UploadLake(Path(sys.argv[1])).store([numbers(range(10))])
"""
    crash_file = tmp_path / "crash"
    crash_file.write_text(point)
    environment = {**os.environ, "LAKEHOUSE_CRASH_FILE": str(crash_file)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (path,) = tmp_path.glob("warehouse/**/*.parquet")
    if point.endswith("after"):
        assert pq.ParquetFile(path).metadata.num_rows == 10


def test_a_closed_pool_is_an_error_not_a_hang(tmp_path: Path) -> None:
    lake = UploadLake(tmp_path)
    upload = lake.upload()
    upload.write(numbers(range(10)))
    lake.pool.close()
    with pytest.raises(StorageError):
        upload.finish()
    assert lake.budget.total == 0
    lake.close()


def test_many_uploads_share_one_budget(open_lake: Callable[..., UploadLake]) -> None:
    batch_bytes = 1000 * 16
    uploads, batches = 12, 30
    lake = open_lake(row_group=MIB, budget=20 * batch_bytes)
    results: list[UploadResult] = []

    def run(number: int) -> None:
        with lake.upload(sequence=f"drive{number}") as upload:
            for start in range(batches):
                upload.write(numbers(range(start * 1000, start * 1000 + 1000)))
            results.append(upload.finish())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(uploads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == uploads
    assert all(result.row_count == batches * 1000 for result in results)
    assert lake.budget.peak <= lake.budget.limit + uploads * (batch_bytes + 1024)
    assert lake.budget.total == 0


def test_uploads_that_wait_for_an_encoder_hold_one_row_group_each(open_lake: Callable[..., UploadLake]) -> None:
    batch_bytes, row_group, uploads, encoders = 1000 * 16, 50_000, 6, 2
    lake = open_lake(row_group=row_group, workers=encoders)
    release = threading.Event()

    def occupy() -> None:
        release.wait(60)

    for _ in range(encoders):
        lake.pool.lane().submit(Job(occupy, lambda: None))

    def run(number: int) -> UploadResult:
        with lake.upload(sequence=f"drive{number}") as upload:
            for start in range(0, 40_000, 1000):
                upload.write(numbers(range(start, start + 1000)))
            return upload.finish()

    with ThreadPoolExecutor(uploads) as clients:
        results = clients.map(run, range(uploads))
        try:
            before = -1
            # Nothing has to be held within a time: uploads that were slow hold less.
            while lake.budget.total < uploads * row_group or lake.budget.total != before:
                before = lake.budget.total
                time.sleep(0.2)
            assert lake.budget.total <= uploads * (row_group + 2 * batch_bytes)
        finally:
            release.set()
        assert [result.row_count for result in results] == [40_000] * uploads
    # An encoder has one in hand, and may have had time for one more.
    assert lake.budget.peak <= (uploads + 2 * encoders) * (row_group + 2 * batch_bytes)
    assert lake.budget.total == 0


def test_an_idle_upload_gives_way_to_a_busy_one(open_lake: Callable[..., UploadLake]) -> None:
    lake = open_lake(row_group=MIB, budget=MIB)
    with lake.upload(sequence="idle") as idle, lake.upload(sequence="busy") as busy:
        idle.write(numbers(range(50_000)))
        for start in range(0, 100_000, 1000):
            busy.write(numbers(range(start, start + 1000)))
        assert idle.flushable_bytes() == 0
        assert busy.finish().row_count == 100_000
        assert idle.finish().row_count == 50_000
    assert lake.budget.peak < 2 * MIB


def test_buffered_rows_do_not_keep_their_message_alive() -> None:
    sink = pa.BufferOutputStream()
    large = pa.record_batch({"timestamp_ns": pa.array(range(1_000_000))})
    with pa.ipc.new_stream(sink, large.schema) as writer:
        writer.write_batch(large)
    received = pa.ipc.open_stream(sink.getvalue()).read_next_batch()
    assert owned(received) is received
    few = owned(received.slice(10, 5))
    assert few.equals(large.slice(10, 5))
    assert few.column(0).buffers()[1].size < 1024


MEMORY_SCRIPT = """
import resource, sys, threading, time
from pathlib import Path
import numpy as np, pyarrow as pa
from tests.catalog.upload_lake import UploadLake

lake = UploadLake(Path(sys.argv[1]))
schema = pa.schema([pa.field("timestamp_ns", pa.int64(), False), pa.field("data", pa.binary()), *(
    pa.field(name, pa.struct([("x", pa.float64()), ("y", pa.float64())])) for name in "ab")])
random = np.random.default_rng(0)
rows, blob = 20_000, random.bytes(1000)
xy = [pa.array(random.normal(size=rows)) for _ in range(2)]
def batch(number):
    return pa.RecordBatch.from_arrays([pa.array(np.arange(rows) + number * rows), pa.array([blob] * rows),
        *(pa.StructArray.from_arrays(xy, names=["x", "y"]) for _ in range(2))], schema=schema)
batch(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with lake.upload(schema) as upload:
    size = 0
    for number in range(26):
        sent = batch(number)
        size += sent.nbytes
        upload.write(sent)
    result = upload.finish()
print(size >> 20, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, result.row_count)
lake.close()
"""


def test_an_upload_of_half_a_gigabyte_stays_small_in_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    uploaded_mib, grown_mib, row_count = map(int, done.stdout.split())
    assert uploaded_mib > 500
    assert row_count == 26 * 20_000
    assert grown_mib < 250


def test_entries_survive_the_control_plane() -> None:
    entry = DataFileEntry(
        path="file:///lake/ü.parquet",
        sequence="drive",
        day=-1,
        record_count=2**40,
        file_size=3,
        start_ns=INT64_MIN,
        end_ns=INT64_MAX,
        ordinal=7,
        column_sizes={1: 2},
        value_counts={1: 3},
        null_value_counts={1: 0},
        nan_value_counts={1: 1},
        lower_bounds={1: bytes(range(256))},
        upper_bounds={1: b""},
        element_bounds={5: ElementBounds(b"a", None, 9, 1, None), 6: ElementBounds(None, None, 0, 0, 0)},
        split_offsets=(4, 2**40),
    )
    assert DataFileEntry.from_bytes(entry.to_bytes()) == entry
    with pytest.raises(ValueError, match="unknown version"):
        DataFileEntry.from_bytes(b"\x63" + entry.to_bytes()[1:])


@pytest.mark.parametrize("sequence", ["drive", "a/b", "x" * 1024, "größe", "%41", "A", "a#?", "..", "con "])
def test_file_names_fit_every_file_system_and_uri(sequence: str) -> None:
    uri = data_file_uri("file:///lake/imu/t", sequence, -5, "topic", 3)
    directory = uri.split("/")[7]
    assert len(directory) < 255
    assert directory.replace("-", "").replace("_", "").isalnum()
    assert uri.endswith("/1969-12-27/topic-00003.parquet")


def test_elements_of_lists_and_maps_have_bounds_of_their_own(lake: UploadLake) -> None:
    schema = pa.schema(
        [
            pa.field("timestamp_ns", pa.int64()),
            pa.field("ranges", pa.list_(pa.float32())),
            pa.field("points", pa.list_(pa.struct([("x", pa.int32())]))),
            pa.field("gains", pa.map_(pa.string(), pa.float64())),
        ]
    )
    rows = [
        {"timestamp_ns": 1, "ranges": [1.0, math.nan], "points": [{"x": 5}, None], "gains": [("a", 1.0)]},
        {"timestamp_ns": 2, "ranges": [], "points": None, "gains": [("b", None)]},
        {"timestamp_ns": 3, "ranges": [None, -2.0], "points": [{"x": -7}], "gains": None},
    ]
    table = lake.table(plan_storage(schema))
    (entry,) = lake.store([pa.RecordBatch.from_pylist(rows, schema=schema)], table).entries
    ids = {name: table.schema().find_field(name).field_id for name in table.schema().column_names}
    found = entry.element_bounds
    assert found[ids["ranges.element"]] == ElementBounds(np.float32(-2).tobytes(), np.float32(1).tobytes(), 4, 1, 1)
    x = ids["points.element.x"] if "points.element.x" in ids else ids["points.x"]
    assert found[x] == ElementBounds(np.int32(-7).tobytes(), np.int32(5).tobytes(), 3, 1, None)
    assert found[ids["gains.key"]] == ElementBounds(b"a", b"b", 2, 0, None)
    assert found[ids["gains.value"]] == ElementBounds(np.float64(1).tobytes(), np.float64(1).tobytes(), 2, 1, 0)
    assert not set(found) & set(entry.lower_bounds)


def test_the_first_nan_of_a_column_begins_a_file_that_tells_no_extremes_of_it(small_lake: UploadLake) -> None:
    ordinary = numbers(range(1000), np.arange(1.0, 1001.0))
    with_nan = numbers(range(1000, 2000), np.where(np.arange(1000) % 7, 5.0, math.nan))
    result = small_lake.store([ordinary, with_nan, numbers(range(2000, 2300), np.full(300, -1.0))])
    check_files(result)
    nan_counts = [sum(entry.nan_value_counts.values()) for entry in result.entries]
    assert sum(nan_counts) == 143
    for entry, nans in zip(result.entries, nan_counts, strict=True):
        values = [value for value in read(entry).column("value").to_pylist() if not math.isnan(value)]
        value_id = max(entry.column_sizes)
        assert entry.lower_bounds[value_id] == np.float64(min(values)).tobytes()
        assert entry.upper_bounds[value_id] == np.float64(max(values)).tobytes()
        assert entry.null_value_counts[value_id] == 0
        footer = pq.ParquetFile(local_path(entry)).metadata
        for number in range(footer.num_row_groups):
            assert (footer.row_group(number).column(4).statistics is None) or not nans


def test_blobs_are_stored_as_they_are_unless_compression_pays(lake: UploadLake) -> None:
    schema = pa.schema(
        [pa.field("timestamp_ns", pa.int64()), pa.field("jpeg", pa.binary()), pa.field("raw", pa.binary())]
    )
    random = np.random.default_rng(0)
    frame = np.repeat(np.arange(256, dtype=np.uint8), 1000).tobytes()
    rows = [{"timestamp_ns": time, "jpeg": random.bytes(200_000), "raw": frame} for time in range(4)]
    (entry,) = lake.store([pa.RecordBatch.from_pylist(rows, schema=schema)]).entries
    group = pq.ParquetFile(local_path(entry)).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["jpeg"].compression == "UNCOMPRESSED"
    assert columns["raw"].compression == "ZSTD"
    assert columns["raw"].total_compressed_size < 50_000
    for name in ("jpeg", "raw"):
        assert not columns[name].has_dictionary_page
        assert columns[name].statistics is None
    assert entry.null_value_counts[max(entry.column_sizes)] == 0


def test_top_level_columns_use_only_what_vectorised_readers_know(lake: UploadLake) -> None:
    # Iceberg's vectorised Spark reader decodes PLAIN and dictionaries; others only in its row-wise reader.
    (entry,) = lake.store([numbers(range(10_000), np.random.default_rng(0).normal(size=10_000))]).entries
    group = pq.ParquetFile(local_path(entry)).metadata.row_group(0)
    used = {encoding for i in range(group.num_columns) for encoding in group.column(i).encodings}
    assert used <= {"PLAIN", "RLE", "RLE_DICTIONARY"}
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
