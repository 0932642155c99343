"""Many small data files become few; rows, their order and every answer stay what they were."""

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import audit_log
from lakehouse.catalog.iceberg.data_files import arrival_of
from lakehouse.catalog.iceberg.sql_catalog import SqlTableCatalog
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.maintenance import compaction
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.compaction import COMPACTION_LEASE, CompactionWork, run_compaction
from lakehouse.catalog.maintenance.compaction_groups import (
    MOST_FILES_AT_ONCE,
    CompactionRule,
    PartitionFile,
    groups_to_compact,
)
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.time_window import TimeWindow
from tests.catalog.query.odd_rows import TAG as ODD
from tests.catalog.query.odd_rows import make_condition, make_rows, to_batch
from tests.catalog.scattered_lake import DAY_NS, START_NS, ScatteredLake, as_texts, disordered, in_order
from tests.s3_server import S3Server
from tests.warehouses import on_both_kinds

_numbers = itertools.count()


@pytest.fixture
def lake(tmp_path: Path, store: dict[str, str]) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path, store=store) as opened:
        yield opened


@pytest.fixture(scope="module")
def odd_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path_factory.mktemp("odd")) as opened:
        yield opened


def search(lake: ScatteredLake, *, is_pruning: bool = True) -> ContentSearch:
    """A search with nothing cached."""
    index = SkipIndex(lake.lakehouse.table_files)
    return ContentSearch(lake.lakehouse.database, lake.lakehouse.warehouse, index, is_pruning=is_pruning)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**64), chunk=st.sampled_from([1, 400, 3000]), min_files=st.sampled_from([2, 4, 8]))
def test_rows_order_and_answers_are_the_same_before_and_after(
    odd_lake: ScatteredLake, seed: int, chunk: int, min_files: int
) -> None:
    generator = random.Random(seed)
    with ScatteredLake(odd_lake.lakehouse.settings.home, max_chunk_size=chunk) as writer:
        batches = [to_batch(make_rows(generator, generator.randrange(1, 6))) for _ in range(generator.randrange(2, 20))]
        topic = writer.store(f"drive-{next(_numbers)}", batches, tag=ODD)
    conditions = [[make_condition(generator) for _ in range(generator.choice([1, 2]))] for _ in range(10)]
    start = generator.choice(batches)["timestamp_ns"][0].as_py()
    windows = [TimeWindow(None, None), TimeWindow(start - 10, start + 10), TimeWindow(start, start + 1)]

    def seen() -> object:
        found = search(odd_lake)
        rows = [repr(odd_lake.rows(topic, window)) for window in windows]
        counts = [odd_lake.lakehouse.reader.window_info(topic, window) for window in windows]
        answers = [found.matching([topic], each, with_ranges=True) for each in conditions]
        times = [[times.tolist() for times in found.timestamps(topic, each)] for each in conditions]
        return rows, counts, answers, [sorted(itertools.chain(*each)) for each in times]

    before, files = seen(), odd_lake.files_of(topic)
    report = odd_lake.compact(compaction_min_files=min_files)
    assert seen() == before
    assert report.left_alone == {}
    after = odd_lake.files_of(topic)
    days = {path.rsplit("/", 2)[1] for path in files}
    assert len(after) < min_files * len(days)
    for each in conditions:
        assert search(odd_lake, is_pruning=False).matching([topic], each) == search(odd_lake).matching([topic], each)
        assert search(odd_lake).audit([topic], each, sample=3) == []
    assert odd_lake.compact(compaction_min_files=min_files).total == CompactionWork(), "there is nothing left to do"


def test_files_in_an_object_store_are_compacted_alike(tmp_path: Path, s3: S3Server) -> None:
    with ScatteredLake(tmp_path, store=s3.settings(s3.new_bucket())) as lake:
        topic = lake.store("drive", disordered())
        before, window = lake.rows(topic), TimeWindow(START_NS, START_NS + 50)
        inside, files = lake.rows(topic, window), lake.files_of(topic)
        lake.compact()
        after = lake.files_of(topic)
        assert len(after) < len(files)
        assert (lake.rows(topic), lake.rows(topic, window)) == (before, inside)
        settings = lake.lakehouse.settings.model_copy(update={"cleanup_retention_duration": 0})
        for _ in range(2):
            run_cleanup_cycle(
                lake.lakehouse.database,
                lake.lakehouse.table_files,
                lake.lakehouse.committer,
                settings,
                now_ns=lambda: time.time_ns() + 10 * DAY_NS,
            )
        assert {path for path in lake.stored_files() if "/scattered/" in path} == set(after)
        assert lake.rows(topic) == before


@on_both_kinds
def test_foreign_engines_see_the_same_rows_in_a_snapshot_that_only_replaces(lake: ScatteredLake) -> None:
    topic = lake.store("drive", disordered())
    other = lake.store("other", in_order())
    assert topic.table_identifier is not None
    old = lake.stock_table(topic.table_identifier)
    before = everything(old)
    report = lake.compact()
    table = lake.stock_table(topic.table_identifier)
    assert repr(everything(table).to_pylist()) == repr(before.to_pylist())
    assert set(before["session"].to_pylist()) == {str(topic.session_locator), str(other.session_locator)}
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "replace"
    assert snapshot.summary["total-records"] == str(before.num_rows)
    assert old.scan().to_arrow().num_rows == before.num_rows, "who opened the table earlier goes on reading"
    assert len(lake.files_of(topic)) == len(lake.files_of(other)) == 1
    work = report.total
    assert (work.groups, work.files_written, work.rows) == (2, 2, before.num_rows)
    assert report.before.data_files - report.after.data_files == work.files_replaced - work.files_written
    assert report.after.small_files == 2


def everything(table: Table) -> pa.Table:
    return table.scan().to_arrow().sort_by([("sequence", "ascending"), ("number", "ascending")])


def test_new_files_are_described_as_the_writer_of_uploads_describes_them(tmp_path: Path) -> None:
    batches = in_order(count=30)
    with ScatteredLake(tmp_path / "whole", max_chunk_size=1 << 20) as whole:
        uploaded = whole.files_of(whole.store("drive", batches))
        expected = entry(whole, "drive")
    with ScatteredLake(tmp_path / "scattered") as scattered:
        topic = scattered.store("drive", batches)
        assert len(scattered.files_of(topic)) > 8
        scattered.compact()
        found = entry(scattered, "drive")
        (path,) = scattered.files_of(topic)
    for key in ("partition", "record_count", "value_counts", "null_value_counts", "nan_value_counts"):
        assert getattr(found, key) == getattr(expected, key), key
    for key in ("lower_bounds", "upper_bounds"):
        without_session = {k: v for k, v in getattr(found, key).items() if k != 2}
        assert without_session == {k: v for k, v in getattr(expected, key).items() if k != 2}, key
    one, other = (pq.ParquetFile(each.removeprefix("file://")) for each in (path, uploaded[0]))
    assert one.schema_arrow.equals(other.schema_arrow, check_metadata=True)
    assert arrival_of(path, topic.uuid) is not None
    columns = range(one.metadata.num_columns)
    encodings = [[set(each.metadata.row_group(0).column(n).encodings) for n in columns] for each in (one, other)]
    assert encodings[0] == encodings[1]


def entry(lake: ScatteredLake, sequence: str) -> object:
    catalog_table = lake.stock_table("scattered.front")
    (task,) = catalog_table.scan(row_filter=f"sequence = '{sequence}'").plan_files()
    return task.file


@on_both_kinds
def test_days_sequences_and_topics_stay_apart(lake: ScatteredLake) -> None:
    batches = [*in_order(count=10, start_ns=START_NS), *in_order(count=10, start_ns=START_NS + DAY_NS)]
    topic = lake.store("drive", batches)
    second = lake.store("second", in_order(count=10))
    few = lake.store("few", in_order(count=1, rows=5))
    before = [lake.rows(each) for each in (topic, second, few)]
    lake.compact()
    assert [lake.rows(each) for each in (topic, second, few)] == before
    assert [len(lake.files_of(each)) for each in (topic, second, few)] == [2, 1, 1]
    described = lake.lakehouse.topics.get(topic.locator)
    assert (described.chunk_count, described.total_bytes) == (topic.chunk_count, topic.total_bytes), "as uploaded"


def test_files_are_cut_at_the_target_size(lake: ScatteredLake) -> None:
    topic = lake.store("drive", in_order(count=150, rows=50))
    before = lake.rows(topic)
    report = lake.compact(compaction_target_size=20_000)
    table = lake.stock_table("scattered.front")
    sizes = sorted(task.file.file_size_in_bytes for task in table.scan().plan_files())
    assert len(sizes) == report.total.files_written > 2
    assert all(size >= 20_000 for size in sizes[1:])
    assert lake.rows(topic) == before
    assert lake.compact(compaction_target_size=20_000).total == CompactionWork()


def test_a_dry_run_changes_nothing(lake: ScatteredLake) -> None:
    topic = lake.store("drive", disordered())
    files = lake.stored_files()
    report = lake.compact(dry_run=True)
    assert report.total.files_replaced == len(lake.files_of(topic)) > 8
    assert lake.stored_files() == files
    done = lake.compact()
    assert done.before == report.before
    assert (report.after.tables, report.after.data_files, report.after.small_files) == (
        done.after.tables,
        done.after.data_files,
        done.after.small_files,
    ), "what was foreseen"


def test_one_compaction_at_a_time(lake: ScatteredLake) -> None:
    opened = lake.lakehouse
    other = Lease(opened.database, COMPACTION_LEASE)
    assert other.hold()
    assert run_compaction(opened.database, opened.table_files, opened.committer, opened.settings) is None
    other.release()
    assert run_compaction(opened.database, opened.table_files, opened.committer, opened.settings) is not None


class TestBesideOthers:
    @on_both_kinds
    def test_a_tagged_snapshot_keeps_its_files_and_others_go_after_their_retention(self, lake: ScatteredLake) -> None:
        topic = lake.store("drive", disordered())
        loose = lake.store("loose", disordered(), path="loose")
        assert topic.table_identifier is not None
        lake.stock_table(topic.table_identifier).manage_snapshots().create_tag(
            lake.stock_table(topic.table_identifier).current_snapshot().snapshot_id,  # type: ignore[union-attr]
            "training-v1",
        ).commit()
        replaced = {each.locator.path: set(lake.files_of(each)) for each in (topic, loose)}
        pinned = lake.stock_table(topic.table_identifier)
        before = pinned.scan(snapshot_id=pinned.snapshot_by_name("training-v1").snapshot_id).to_arrow()  # type: ignore[union-attr]
        rows = lake.rows(topic)
        lake.compact()
        assert replaced["loose"] <= lake.stored_files(), "running readers keep what they read"
        cleaned_up(lake, after_s=25 * 3600)
        assert replaced["loose"] <= lake.stored_files(), "marked only"
        cleaned_up(lake, after_s=50 * 3600)
        assert replaced["loose"].isdisjoint(lake.stored_files())
        assert replaced["front"] <= lake.stored_files()
        pinned = lake.stock_table(topic.table_identifier)
        after = pinned.scan(snapshot_id=pinned.snapshot_by_name("training-v1").snapshot_id).to_arrow()  # type: ignore[union-attr]
        assert repr(after.sort_by("number").to_pylist()) == repr(before.sort_by("number").to_pylist())
        assert lake.rows(topic) == rows

    @on_both_kinds
    def test_a_read_that_began_before_ends_after(self, lake: ScatteredLake) -> None:
        topic = lake.store("drive", in_order(count=60))
        expected = lake.rows(topic)
        batches = lake.lakehouse.reader.read(topic)
        first = as_texts([next(batches)])
        lake.compact()
        cleaned_up(lake, after_s=3600)
        assert first + as_texts(batches) == expected

    def test_reads_queries_uploads_and_deletions_go_on(self, lake: ScatteredLake) -> None:
        """Threads read, query, finalize and delete while compaction runs over and over."""
        kept = [lake.store(f"kept-{number}", disordered(count=15)) for number in range(3)]
        expected = {topic.locator: lake.rows(topic) for topic in kept}
        query = {"Scattered.number": {"$eq": 7}}
        failures: list[BaseException] = []
        stop = threading.Event()

        def guarded(work: object) -> threading.Thread:
            def run() -> None:
                try:
                    while not stop.is_set():
                        work()  # type: ignore[operator]
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def read() -> None:
            for topic in kept:
                assert lake.rows(topic) == expected[topic.locator]

        def ask() -> None:
            assert {topic.locator.sequence for topic in kept} <= lake.find(query)

        numbers = itertools.count()

        def write_and_delete() -> None:
            name = f"passing-{next(numbers)}"
            topic = lake.store(name, disordered(count=12))
            assert len(lake.rows(topic)) == 240
            if next(numbers) % 4:
                lake.lakehouse.sequences.delete(name)

        threads = [guarded(work) for work in (read, ask, write_and_delete, write_and_delete)]
        written = 0
        for _ in range(6):
            written += lake.compact(compaction_min_files=2).total.files_written
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert written >= len(kept)
        left = {sequence for sequence in lake.lakehouse.sequences.names() if sequence.startswith("passing")}
        table = lake.stock_table("scattered.front").scan(selected_fields=("sequence",)).to_arrow()
        assert set(table["sequence"].to_pylist()) == left | {topic.locator.sequence for topic in kept}
        assert table.num_rows == 240 * len(left) + 300 * len(kept)

    def test_what_was_deleted_while_it_was_rewritten_stays_deleted(
        self, lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept, doomed = lake.store("kept", disordered()), lake.store("doomed", disordered())
        rows = lake.rows(kept)
        between(monkeypatch, lambda: lake.lakehouse.sequences.delete("doomed"))
        report = lake.compact()
        assert report.total.groups_given_up == 1
        assert report.total.files_written == 1
        assert lake.stock_table("scattered.front").scan().to_arrow()["sequence"].unique().to_pylist() == ["kept"]
        assert lake.rows(kept) == rows
        assert not [uri for uri in lake.stored_files() if doomed.uuid in uri and len(uri.rsplit("-", 1)[1]) == 16]

    def test_rows_that_another_engine_deletes_meanwhile_stay_deleted(
        self, lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lake.store("drive", in_order())
        between(monkeypatch, lambda: lake.stock_table("scattered.front").delete("number < 100"))
        lake.compact()
        numbers = lake.stock_table("scattered.front").scan().to_arrow()["number"].to_pylist()
        assert sorted(numbers) == list(range(100, 2000))

    def test_a_damaged_file_is_reported_and_stops_nobody_else(self, lake: ScatteredLake) -> None:
        broken, fine = lake.store("broken", in_order()), lake.store("fine", in_order())
        Path(lake.files_of(broken)[3].removeprefix("file://")).write_bytes(b"no parquet")
        files = lake.files_of(broken)
        report = lake.compact()
        assert list(report.left_alone) == ["scattered.front, sequence broken"]
        assert lake.files_of(broken) == files
        assert len(lake.files_of(fine)) == 1


class OwnTransactions(SqlTableCatalog):
    """Commits tables apart from our own records, as catalogs elsewhere do."""

    shares_transactions = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def commit(self, connection: Connection | None, files: TableFiles, staged: StagedTable) -> None:
        del connection
        with self._database.transaction() as own:
            super().commit(own, files, staged)

    def commit_together(self, connection: Connection | None, files: TableFiles, staged: Sequence[StagedTable]) -> bool:
        # None comes from outside: only `commit` has a transaction.
        return connection is not None and super().commit_together(connection, files, staged)


class TestInACatalogElsewhere:
    @pytest.fixture
    def lake(self, lake: ScatteredLake) -> ScatteredLake:
        lake.lakehouse.table_files.catalog = OwnTransactions(lake.lakehouse.database)
        return lake

    def test_new_files_that_are_in_the_table_outlive_a_failure_of_our_own_records(
        self, lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = lake.store("drive", disordered())
        rows = lake.rows(topic)
        record = compaction.audit.record
        failures = iter([OperationalError("insert", {}, Exception("database is locked"))])

        def fail_once(*arguments: Any, **counts: Any) -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            record(*arguments, **counts)

        monkeypatch.setattr(compaction.audit, "record", fail_once)
        report = lake.compact()
        assert lake.rows(topic) == rows
        assert (report.total.files_written, report.total.groups_given_up) == (1, 0)
        with lake.lakehouse.database.snapshot() as connection:
            query = select(audit_log.c.operation).where(audit_log.c.operation == "compaction")
            assert len(connection.scalars(query).all()) == 1

    def test_files_that_waited_too_long_are_refused_before_the_table_moves(
        self, lake: ScatteredLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        topic = lake.store("drive", disordered())
        rows, files = lake.rows(topic), lake.files_of(topic)
        monkeypatch.setattr(compaction, "LONGEST_WAIT_S", -1)
        assert list(lake.compact().left_alone) == ["scattered.front"]
        assert lake.files_of(topic) == files
        assert lake.rows(topic) == rows


def between(monkeypatch: pytest.MonkeyPatch, happens: object) -> None:
    """Let something happen when the new files are written and not committed yet."""
    from lakehouse.catalog.maintenance import compaction_rewrite

    once = iter([happens])

    def reach(point: str) -> None:
        if point == "compaction-write:after" and (each := next(once, None)) is not None:
            each()  # type: ignore[operator]

    monkeypatch.setattr(compaction_rewrite.crash_points, "reach", reach)


def cleaned_up(lake: ScatteredLake, after_s: int) -> None:
    """A cleanup cycle with the clock set forward, and a retention of one day."""
    opened = lake.lakehouse

    def later() -> int:
        return time.time_ns() + after_s * 10**9

    assert run_cleanup_cycle(opened.database, opened.table_files, opened.committer, opened.settings, now_ns=later)


class TestGroups:
    RULE = CompactionRule(target_bytes=800, min_files=3)

    @staticmethod
    def file(number: int, start: int, end: int, size: int = 10, own: bool = True) -> PartitionFile:
        return PartitionFile(f"f{number:03d}", 1, size, start, end, (number, 0) if own else None)

    def names(self, *files: PartitionFile) -> list[list[str]]:
        return [[file.path for file in group] for group in groups_to_compact(files, self.RULE)]

    def test_neighbours_in_time_are_joined_whatever_order_they_arrived_in(self) -> None:
        files = [self.file(2, 0, 1), self.file(0, 2, 3), self.file(1, 4, 5)]
        assert self.names(*files) == [["f000", "f001", "f002"]]

    def test_too_few_are_left_alone(self) -> None:
        assert self.names(self.file(0, 0, 1), self.file(1, 2, 3)) == []

    def test_a_large_file_in_between_separates_groups(self) -> None:
        small = [self.file(number, 10 * number, 10 * number + 1) for number in range(6)]
        large = self.file(9, 25, 26, size=500)
        assert self.names(*small, large) == [["f000", "f001", "f002"], ["f003", "f004", "f005"]]

    def test_files_that_overlap_a_large_one_are_not_moved_past_it(self) -> None:
        before = [self.file(number, 0, 100) for number in range(3)]
        after = [self.file(number, 0, 100) for number in range(4, 7)]
        large = self.file(3, 50, 60, size=500)
        assert self.names(*before, large, *after) == [["f000", "f001", "f002"], ["f004", "f005", "f006"]]

    def test_files_of_other_engines_are_never_rewritten(self) -> None:
        assert self.names(*(self.file(number, 0, 1, own=False) for number in range(5))) == []

    def test_a_group_never_grows_beyond_what_can_be_open(self) -> None:
        groups = self.names(*(self.file(number, 0, 100) for number in range(300)))
        assert [len(group) for group in groups] == [
            MOST_FILES_AT_ONCE,
            MOST_FILES_AT_ONCE,
            300 - 2 * MOST_FILES_AT_ONCE,
        ]
        assert [name for group in groups for name in group] == [f"f{number:03d}" for number in range(300)]
