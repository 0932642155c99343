"""The skip index over real tables: ours, and what other engines make of them."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import to_bytes
from pyiceberg.expressions import EqualTo
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, SetSnapshotRefUpdate
from pyiceberg.typedef import Record
from pyiceberg.types import DoubleType, LongType

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.errors import ChangedTableError, StorageError
from lakehouse.catalog.iceberg.avro_encoding import ContainerFile
from lakehouse.catalog.iceberg.data_files import NANOSECONDS_PER_DAY
from lakehouse.catalog.iceberg.file_cache import FileCache
from lakehouse.catalog.iceberg.manifest_frames import UNKNOWN_COUNT, ManifestFrame
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog, read_pointers
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.reading.skip_index import IndexedFile, SkipIndex
from lakehouse.catalog.reading.topic_reader import WindowInfo
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import TimeInterval, TimeWindow
from tests.catalog.hand_written_topics import SCHEMA, RecordingWarehouse, rows_at
from tests.warehouses import BOTH

WAREHOUSES = BOTH
PATH = "sensors/front"


@dataclass(frozen=True, repr=False)
class Recordings:
    """A lake with one topic table, filled sequence by sequence."""

    lakehouse: Lakehouse
    warehouse: RecordingWarehouse

    def record(self, sequence: str, *parts: list[int]) -> TopicRecord:
        """A finalized sequence with one topic, one batch per part."""
        locator = TopicLocator(sequence, PATH)
        self.lakehouse.sequences.create(sequence, {})
        session = self.lakehouse.sessions.create(sequence)
        topic_uuid = self.lakehouse.topics.create(session.uuid, locator, "default", "test", {})
        with self.lakehouse.topics.begin_upload(locator, topic_uuid, SCHEMA) as upload:
            for number, part in enumerate(parts):
                upload.write(rows_at(part, 1000 * number))
            upload.finish()
        self.lakehouse.sessions.finalize(session.uuid)
        return self.lakehouse.topics.get(locator)

    def read(self, topic: TopicRecord, window: TimeWindow | None = None) -> list[dict[str, Any]]:
        batches = list(self.lakehouse.reader.read(topic, window or TimeWindow()))
        assert all(batch.schema.equals(SCHEMA, check_metadata=True) and batch.num_rows for batch in batches)
        rows = [row for batch in batches for row in batch.to_pylist()]
        info = self.lakehouse.reader.window_info(topic, window or TimeWindow())
        times = [row["timestamp_ns"] for row in rows]
        assert info == WindowInfo(TimeInterval(times[0], times[-1]) if times else None, len(rows))
        return rows

    def index(self, **options: Any) -> SkipIndex:
        """An index with nothing cached."""
        return SkipIndex(TableFiles(self.warehouse), **options)

    def location(self, topic: TopicRecord) -> str:
        assert topic.table_identifier is not None
        with self.lakehouse.database.snapshot() as connection:
            return read_pointers(connection)[topic.table_identifier]

    def catalog(self) -> SqlCatalog:
        """The catalog as a program of somebody else opens it."""
        return open_sql_catalog(self.lakehouse.database, self.warehouse)

    def table(self, topic: TopicRecord) -> Table:
        assert topic.table_identifier is not None
        return self.catalog().load_table(topic.table_identifier)


@contextmanager
def open_recordings(directory: Path, database_url: str, store: dict[str, str]) -> Iterator[Recordings]:
    database = Database(database_url)
    migrate(database)
    settings = Settings.load(home=directory, db_url=database_url, **store)
    warehouse = RecordingWarehouse(Warehouse.open(settings))
    with Lakehouse(settings, database, warehouse) as lakehouse:
        yield Recordings(lakehouse, warehouse)


@pytest.fixture
def recordings(tmp_path: Path, store: dict[str, str]) -> Iterator[Recordings]:
    with open_recordings(tmp_path, f"sqlite:///{tmp_path / 'lakehouse.db'}", store) as opened:
        yield opened


def test_open_and_finalized_sessions_read_the_same_on_both_databases(
    tmp_path: Path, database_url: str, store: dict[str, str]
) -> None:
    with open_recordings(tmp_path, database_url, store) as recordings:
        lake, locator = recordings.lakehouse, TopicLocator("a", PATH)
        lake.sequences.create("a", {})
        session = lake.sessions.create("a")
        topic_uuid = lake.topics.create(session.uuid, locator, "default", "test", {})
        with lake.topics.begin_upload(locator, topic_uuid, SCHEMA) as upload:
            upload.write(rows_at([5, 5, 6, 7]))
            upload.write(rows_at([1, 5, 9], 4))
            upload.finish()
        open_topic = lake.topics.get(locator)
        while_open = recordings.read(open_topic)
        assert numbers(while_open) == [4, 0, 1, 5, 2, 3, 6]
        lake.sessions.finalize(session.uuid)
        # A record that was fetched before stays good: tickets do not expire.
        assert recordings.read(open_topic) == recordings.read(lake.topics.get(locator)) == while_open


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["number"] for row in rows]


class TestOurOwnTables:
    def test_a_sequence_gets_exactly_its_files(self, recordings: Recordings) -> None:
        kept = {name: recordings.record(name, [1, 2, 3]) for name in ("a", "ab", "b")}
        for name, topic in kept.items():
            (file,) = recordings.index().sequence_files(recordings.location(topic), name)
            assert topic.uuid in file.path
            assert (file.record_count, file.start_ns, file.end_ns) == (3, 1, 3)
            assert not file.holds_other_sequences
            assert not file.deletions

    def test_the_window_leaves_files_out(self, recordings: Recordings) -> None:
        day = 86_400 * 10**9
        topic = recordings.record("a", [1, 2], [day, day + 5], [2 * day])
        location, index = recordings.location(topic), recordings.index()
        assert len(index.sequence_files(location, "a")) == 3
        found = index.sequence_files(location, "a", TimeWindow(3, day + 1))
        assert [(file.start_ns, file.end_ns) for file in found] == [(day, day + 5)]

    def test_a_deleted_sequence_has_no_files(self, recordings: Recordings) -> None:
        recordings.record("a", [1, 2])
        topic = recordings.record("b", [1])
        recordings.lakehouse.sequences.delete("a")
        assert recordings.index().sequence_files(recordings.location(topic), "a") == []
        assert len(recordings.index().sequence_files(recordings.location(topic), "b")) == 1

    def test_manifests_of_other_sequences_are_not_opened(self, recordings: Recordings) -> None:
        topics = [recordings.record(f"drive_{number}", [number]) for number in range(6)]
        location = recordings.location(topics[3])
        recordings.warehouse.forget()
        recordings.index().sequence_files(location, "drive_3")
        kinds = [Path(uri).suffix for uri in recordings.warehouse.opened]
        # The metadata file, the manifest list, one manifest.
        assert sorted(kinds) == [".avro", ".avro", ".json"]

    def test_what_was_decoded_once_is_not_opened_again(self, recordings: Recordings) -> None:
        topic = recordings.record("a", [1, 2])
        index, location = recordings.index(), recordings.location(topic)
        found = index.sequence_files(location, "a")
        recordings.warehouse.forget()
        assert index.sequence_files(location, "a") == found
        assert recordings.warehouse.opened == []

    def test_after_a_commit_only_what_is_new_is_opened(self, recordings: Recordings) -> None:
        topic = recordings.record("a", [1, 2])
        index = recordings.index()
        index.sequence_files(recordings.location(topic), "a")
        recordings.record("b", [1])
        location = recordings.location(topic)
        recordings.warehouse.forget()
        index.sequence_files(location, "a")
        assert sorted(Path(uri).suffix for uri in recordings.warehouse.opened) == [".avro", ".json"]

    def test_memory_is_bounded(self, recordings: Recordings) -> None:
        topics = [recordings.record(f"drive_{number}", [number]) for number in range(5)]
        location = recordings.location(topics[0])
        one = max(frame.nbytes for frame in recordings.index().frames(location))
        index = recordings.index(frame_cache_bytes=2 * one)
        for number in range(5):
            assert len(index.sequence_files(location, f"drive_{number}")) == 1
        assert index.cached_bytes <= 2 * one

    def test_a_damaged_manifest_is_a_storage_error_without_paths(self, recordings: Recordings) -> None:
        topic = recordings.record("a", [1])
        (manifest,) = recordings.table(topic).current_snapshot().manifests(recordings.table(topic).io)  # type: ignore[union-attr]
        content = recordings.warehouse.read(manifest.manifest_path)
        # In the middle of an entry, and where what is left looks like a manifest without entries.
        for kept in (len(content) - 40, ContainerFile(content).first_block):
            with recordings.warehouse.open_output(manifest.manifest_path) as damaged:
                damaged.write(content[:kept])
            with pytest.raises(StorageError) as caught:
                recordings.index().sequence_files(recordings.location(topic), "a")
            assert "/" not in str(caught.value)


class TestCopiesOnDisk:
    """A process that has nothing in memory, but finds what another one has read, opens no metadata of the store."""

    def test_answer_for_the_store(self, recordings: Recordings, tmp_path: Path) -> None:
        topic = recordings.record("a", [1, 2], [5, 6])
        location = recordings.location(topic)

        def ask() -> list[IndexedFile]:
            copies = FileCache(tmp_path / "copies", 1 << 20)
            return SkipIndex(TableFiles(recordings.warehouse, copies)).sequence_files(location, "a")

        expected = recordings.index().sequence_files(location, "a")
        recordings.warehouse.forget()
        assert ask() == expected
        assert len(recordings.warehouse.opened) == 3
        recordings.warehouse.forget()
        assert ask() == expected
        assert recordings.warehouse.opened == []
        for copy in (tmp_path / "copies").iterdir():
            copy.write_bytes(copy.read_bytes()[:-1] + b"?")
        assert ask() == expected
        assert len(recordings.warehouse.opened) == 3


class TestFrames:
    """Frames say what PyIceberg's entries say, whoever wrote the manifests."""

    def test_of_manifests_written_by_our_commits(self, recordings: Recordings) -> None:
        for number in range(4):
            topic = recordings.record(f"drive_{number}", list(range(-5, number)), [10**18 + number])
        recordings.lakehouse.sequences.delete("drive_1")
        assert_frames_equal_entries(recordings, topic)

    @pytest.mark.parametrize("codec", ["gzip", "zstd"])
    def test_of_manifests_written_by_stock_pyiceberg(self, recordings: Recordings, codec: str) -> None:
        topic = recordings.record("a", list(range(20)))
        table = recordings.table(topic)
        with table.transaction() as transaction:
            transaction.set_properties({"write.avro.compression-codec": codec})
        rewrite(table)
        assert_frames_equal_entries(recordings, topic)


def assert_frames_equal_entries(recordings: Recordings, topic: TopicRecord) -> None:
    table = recordings.table(topic)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    entries = {
        entry.data_file.file_path: entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    }
    frames = list(recordings.index().frames(recordings.location(topic)))
    found = [path for frame in frames for path in frame.paths.to_pylist()]
    assert sorted(found) == sorted(entries)
    for frame in frames:
        for row, path in enumerate(frame.paths.to_pylist()):
            assert_row_equals_entry(frame, row, entries[path])


def assert_row_equals_entry(frame: ManifestFrame, row: int, entry: ManifestEntry) -> None:
    file = entry.data_file
    assert frame.sequences[row].as_py() == file.partition[0]
    assert frame.days[row].as_py() == file.partition[1]
    assert frame.record_counts[row] == file.record_count
    assert frame.file_sizes[row] == file.file_size_in_bytes
    assert frame.sequence_numbers[row] == entry.sequence_number
    assert frame.contents[row] == 0
    assert frame.formats[row].as_py() == "PARQUET"
    field_ids = {*file.value_counts, *(file.lower_bounds or {}), 10**6}
    for field_id in field_ids:
        known = frame.metrics.of_field(field_id)
        assert known.lower[row].as_py() == (file.lower_bounds or {}).get(field_id)
        assert known.upper[row].as_py() == (file.upper_bounds or {}).get(field_id)
        assert known.value_counts[row] == file.value_counts.get(field_id, UNKNOWN_COUNT)
        assert known.null_counts[row] == file.null_value_counts.get(field_id, UNKNOWN_COUNT)
        assert known.nan_counts[row] == (file.nan_value_counts or {}).get(field_id, UNKNOWN_COUNT)


class TestOtherEngines:
    """Other engines may rewrite what we wrote; the rows read stay the same."""

    def test_a_rewrite_in_another_order_reads_in_time_order(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(0, 3000, 3)))
        before = recordings.read(topic)
        rewrite(recordings.table(topic), shuffle=True)
        assert_files_are_foreign(recordings, topic)
        assert recordings.read(topic) == before
        window = TimeWindow(700, 1901)
        assert recordings.read(topic, window) == [row for row in before if 700 <= row["timestamp_ns"] < 1901]

    def test_a_rewrite_in_small_row_groups_and_wider_types(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(200)))
        before = recordings.read(topic)
        table = recordings.table(topic)
        with table.update_schema() as update:
            update.add_column("added_by_somebody", DoubleType())
            update.update_column("number", field_type=table.schema().find_type("timestamp_ns"))
        rewrite(table, shuffle=True, row_group_size=16)
        assert recordings.read(topic) == before
        assert len(recordings.read(topic, TimeWindow(50, 75))) == 25

    def test_a_rewrite_without_bounds_or_statistics(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(200)))
        before = recordings.read(topic)
        rewrite(recordings.table(topic), bounds=False, write_statistics=False, row_group_size=16)
        assert recordings.read(topic) == before
        assert recordings.read(topic, TimeWindow(50, 75)) == before[50:75]

    def test_a_rewrite_in_time_order_is_not_sorted_again(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(1000)))
        rewrite(recordings.table(topic), row_group_size=10)
        recordings.read(topic)
        recordings.warehouse.forget()
        assert len(recordings.read(topic, TimeWindow(500, 510))) == 10
        assert sum(stop - start for _, start, stop in recordings.warehouse.ranges) < 10_000

    def test_a_rewritten_sequence_beside_untouched_ones(self, recordings: Recordings) -> None:
        topics = [recordings.record(name, list(range(50))) for name in ("a", "b")]
        rewrite(recordings.table(topics[0]), shuffle=True)
        late = recordings.record("c", [1, 2])
        assert [len(recordings.read(topic)) for topic in (*topics, late)] == [50, 50, 2]

    def test_files_of_a_table_whose_partitioning_was_changed(self, recordings: Recordings) -> None:
        topics = {name: recordings.record(name, list(range(k, 40, 2))) for k, name in enumerate(("a", "b"))}
        before = {name: recordings.read(topic) for name, topic in topics.items()}
        table = recordings.table(topics["a"])
        with table.update_spec() as update:
            update.remove_field("sequence")
        rewrite(table, None, shuffle=True)
        files = recordings.index().sequence_files(recordings.location(topics["a"]), "a")
        assert all(file.holds_other_sequences for file in files)
        for name, topic in topics.items():
            assert recordings.read(topic) == before[name]
            assert len(recordings.read(topic, TimeWindow(10, 20))) == 5

    def test_a_column_that_was_dropped_before_a_rewrite_is_null(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(10)))
        table = recordings.table(topic)
        with table.update_schema() as update:
            update.delete_column("label")
        rewrite(table)
        read = recordings.read(topic)
        assert [row["label"] for row in read] == [None] * 10
        assert numbers(read) == list(range(10))

    def test_a_rewrite_that_lost_a_column_of_the_table_is_a_storage_error(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(10)))
        table = recordings.table(topic)
        rewrite(table, without="label")
        with pytest.raises(StorageError, match="cannot be read"):
            list(recordings.lakehouse.reader.read(topic))

    def test_rows_that_are_deleted_from_the_metadata_are_no_rows_of_ours_to_rewrite(
        self, recordings: Recordings
    ) -> None:
        for name in ("a", "b"):
            recordings.record(name, [1, 2])
        catalog = open_sql_catalog(recordings.lakehouse.database, recordings.lakehouse.warehouse)
        delete_rows(catalog.load_table("mosaico.topics"), "a", positions=[0])
        with pytest.raises(ChangedTableError, match=r"single rows of table mosaico\.topics were deleted"):
            recordings.lakehouse.sequences.delete("b")
        recordings.lakehouse.maintenance.run(["mosaico.topics"])
        assert catalog.load_table("mosaico.topics").scan().to_arrow()["sequence"].to_pylist() == ["b"]
        catalog.close()
        assert len(recordings.read(recordings.lakehouse.topics.get(TopicLocator("b", PATH)))) == 2

    def test_rows_deleted_by_position_are_not_returned(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(100)), list(range(100, 150)))
        other = recordings.record("b", list(range(10)))
        before = recordings.read(topic)
        delete_rows(recordings.table(topic), "a", positions=[0, 7, 8, 99])
        assert numbers(recordings.read(topic)) == [
            row["number"] for position, row in enumerate(before) if position not in (0, 7, 8, 99)
        ]
        assert len(recordings.read(topic, TimeWindow(0, 9))) == 6
        assert len(recordings.read(other)) == 10
        # Stock PyIceberg, which knows such deletes too, agrees.
        assert recordings.table(topic).scan(EqualTo("sequence", "a")).to_arrow().num_rows == len(before) - 4

    def test_later_commits_of_ours_leave_row_deletes_in_force(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(100)))
        delete_rows(recordings.table(topic), "a", positions=[3])
        recordings.record("b", [1])
        assert len(recordings.read(topic)) == 99

    def test_rows_deleted_by_value_are_refused_not_returned(self, recordings: Recordings) -> None:
        topic = recordings.record("a", list(range(100)))
        other = recordings.record("b", list(range(10)))
        delete_rows(recordings.table(topic), "a", positions=[1], content=DataFileContent.EQUALITY_DELETES)
        with pytest.raises(StorageError, match="deleted rows"):
            list(recordings.lakehouse.reader.read(topic))
        assert len(recordings.read(other)) == 10


def shuffled(rows: pa.Table) -> pa.Table:
    return rows.take(np.random.default_rng(0).permutation(rows.num_rows))


def rewrite(
    table: Table,
    sequence: str | None = "a",
    *,
    shuffle: bool = False,
    bounds: bool = True,
    without: str | None = None,
    **parquet_options: Any,
) -> None:
    """Replace the files of a sequence (None: of all) by one, as a compaction of another engine does."""
    scan = table.scan() if sequence is None else table.scan(EqualTo("sequence", sequence))
    rows = scan.to_arrow().cast(schema_to_pyarrow(table.schema()))
    rows = rows if without is None else rows.drop_columns([without])
    path = f"{table.location()}/data/00000-0-{uuid.uuid4()}.parquet"
    with table.io.new_output(path).create() as sink:
        pq.write_table(shuffled(rows) if shuffle else rows, sink, **parquet_options)
    times = rows["timestamp_ns"].to_numpy()
    day = int(times[0] // NANOSECONDS_PER_DAY)
    new_file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(sequence, day) if sequence is not None else Record(day),
        record_count=rows.num_rows,
        file_size_in_bytes=len(table.io.new_input(path)),
        column_sizes={1: 7},
        value_counts={3: rows.num_rows},
        null_value_counts={3: 0},
        nan_value_counts={},
        lower_bounds={3: to_bytes(LongType(), int(times.min()))} if bounds else None,
        upper_bounds={3: to_bytes(LongType(), int(times.max()))} if bounds else None,
    )
    new_file.spec_id = table.spec().spec_id
    with table.transaction() as transaction, transaction.update_snapshot().overwrite() as overwrite:
        for task in scan.plan_files():
            overwrite.delete_data_file(task.file)
        overwrite.append_data_file(new_file)


def assert_files_are_foreign(recordings: Recordings, topic: TopicRecord) -> None:
    files = recordings.index().sequence_files(recordings.location(topic), topic.locator.sequence)
    assert files
    assert not any(topic.uuid in file.path for file in files)


class _DeleteManifestWriter(ManifestWriterV2):
    """PyIceberg reads delete manifests but does not write them."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def delete_rows(
    table: Table, sequence: str, positions: list[int], content: DataFileContent = DataFileContent.POSITION_DELETES
) -> None:
    """Commit a merge-on-read delete of rows of the first file of a sequence, as Spark and Trino do."""
    target = next(task.file for task in table.scan(EqualTo("sequence", sequence)).plan_files())
    base, identity = f"{table.location()}/metadata", uuid.uuid4()
    delete_path = f"{table.location()}/data/{identity}-deletes.parquet"
    rows = pa.table({"file_path": [target.file_path] * len(positions), "pos": pa.array(positions, pa.int64())})
    with table.io.new_output(delete_path).create() as sink:
        pq.write_table(rows, sink)
    delete_file = DataFile.from_args(
        content=content,
        file_path=delete_path,
        file_format=FileFormat.PARQUET,
        partition=Record(*(target.partition[position] for position in range(len(table.spec().fields)))),
        record_count=len(positions),
        file_size_in_bytes=1,
        equality_ids=[3] if content == DataFileContent.EQUALITY_DELETES else None,
    )
    delete_file.spec_id = 0
    snapshot_id, previous = table.metadata.new_snapshot_id(), table.current_snapshot()
    assert previous is not None
    sequence_number = table.metadata.last_sequence_number + 1
    output = table.io.new_output(f"{base}/{identity}-m0.avro")
    with _DeleteManifestWriter(table.spec(), table.schema(), output, snapshot_id, "deflate") as writer:
        writer.add_entry(
            ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=snapshot_id, data_file=delete_file)
        )
    list_location = f"{base}/snap-{snapshot_id}-{identity}.avro"
    with write_manifest_list(
        2, table.io.new_output(list_location), snapshot_id, previous.snapshot_id, sequence_number, "deflate"
    ) as manifest_list:
        manifest_list.add_manifests([writer.to_manifest_file(), *previous.manifests(table.io)])
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=previous.snapshot_id,
        sequence_number=sequence_number,
        manifest_list=list_location,
        summary=Summary(Operation.DELETE),
        schema_id=table.schema().schema_id,
    )
    table.catalog.commit_table(
        table,
        (),
        (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id),
        ),
    )
