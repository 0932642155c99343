"""Tables stay small for ever, and storage clean, without anything in use being touched."""

import os
import signal
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Connection, insert, select, update

from lakehouse.catalog.commits.committer import TableChange
from lakehouse.catalog.commits.metadata_tables import METADATA_TABLES
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import data_files, leases, orphan_files, sequences, sessions, topics
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.data_files import DataFileEntry, data_file_uri
from lakehouse.catalog.iceberg.manifest_lists import ManifestRecord
from lakehouse.catalog.iceberg.sql_catalog import SqlTableCatalog, insert_pointer, open_sql_catalog
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import TopicTable
from lakehouse.catalog.maintenance.cleanup import CleanupReport, run_cleanup_cycle
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.manifests import LARGE_MANIFEST, MANIFESTS_PER_CLASS, groups_to_merge
from lakehouse.catalog.maintenance.orphans import STAGING_GRACE_S, UPLOAD_SILENCE_S
from lakehouse.catalog.maintenance.upkeep import Upkeep
from lakehouse.catalog.maintenance.worker import MAINTENANCE_LEASE, MaintenanceWorker
from lakehouse.catalog.settings import Settings
from tests.catalog.small_lake import DAY, ROWS, SmallLake, child_environment
from tests.forked import ForkedProgram
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE

HOUR_NS = 3600 * 10**9
RETENTION_S = 3600
LATER_NS = (UPLOAD_SILENCE_S + 2 * STAGING_GRACE_S) * 10**9


def with_settings(lake: SmallLake, **changes: Any) -> Settings:
    return lake.settings.model_copy(update={"snapshot_min_age": 0, **changes})


@pytest.fixture
def upkeep(lake: SmallLake) -> Upkeep:
    return Upkeep(
        lake.database, lake.files, lake.committer, with_settings(lake, snapshots_to_keep=4, snapshot_min_age=60)
    )


def clean(lake: SmallLake, after_ns: int = 0, dry_run: bool = False, **changes: Any) -> CleanupReport:
    """A cleanup cycle with the clock set forward."""
    settings = with_settings(lake, **{"cleanup_retention_duration": RETENTION_S, **changes})
    report = run_cleanup_cycle(
        lake.database, lake.files, lake.committer, settings, dry_run, now_ns=lambda: time.time_ns() + after_ns
    )
    assert report is not None
    return report


def marks(lake: SmallLake) -> set[str]:
    with lake.database.snapshot() as connection:
        return set(connection.scalars(select(orphan_files.c.path)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_cost_stays_bounded_over_five_hundred_commits(lake: SmallLake) -> None:
    table = lake.table()
    keep = 10
    upkeep = Upkeep(lake.database, lake.files, lake.committer, with_settings(lake, snapshots_to_keep=keep))
    entry = lake.write(table, "template")
    most_manifests, largest, most_files, most_snapshots = 0, 0, 0, 0
    for number in range(500):
        copy = lake_entry(entry, f"drive-{number}")
        lake.commit([TableChange(table.identifier, add=[copy])])
        document = upkeep.document(table.identifier)
        assert document is not None
        if upkeep.is_due(document):
            upkeep.maintain(table.identifier)
            upkeep.purge_metadata()
        if number % 50 == 49:
            stock = lake.stock_table(table.identifier)
            snapshot = stock.current_snapshot()
            assert snapshot is not None
            metadata = lake.stored(table.location, "metadata")
            most_manifests = max(most_manifests, len(snapshot.manifests(stock.io)))
            most_snapshots = max(most_snapshots, len(stock.snapshots()))
            most_files = max(most_files, len(metadata))
            largest = max(largest, os.path.getsize(stock.metadata_location.removeprefix("file://")))
    assert len(lake.sequences_in(table.identifier)) == 500
    assert most_manifests <= 3 * MANIFESTS_PER_CLASS
    assert most_snapshots <= keep + keep // 2 + 2
    assert largest < 32 * 1024
    assert most_files < 100


def lake_entry(entry: DataFileEntry, sequence: str) -> DataFileEntry:
    return replace(entry, sequence=sequence, path=entry.path.replace("template", sequence))


def test_merging_rewrites_each_entry_a_logarithmic_number_of_times() -> None:
    manifests: list[ManifestRecord] = []
    rewritten, count = 0, 5000
    for number in range(count):
        manifests.append(manifest(1, number))
        for group in groups_to_merge(manifests):
            total = sum(each.live_files for each in group)
            rewritten += total
            manifests = [each for each in manifests if each not in group] + [manifest(total, -rewritten)]
    assert sum(each.live_files for each in manifests) == count
    assert rewritten <= 5 * count
    assert len(manifests) <= 5 * MANIFESTS_PER_CLASS


def test_large_manifests_and_those_of_deletes_are_left_alone() -> None:
    large = [manifest(LARGE_MANIFEST, number) for number in range(20)]
    deletes = [manifest(1, number, content=1) for number in range(20, 40)]
    other_spec = [manifest(1, number, spec_id=number) for number in range(40, 60)]
    assert groups_to_merge([*large, *deletes, *other_spec]) == []


def manifest(entries: int, number: int, content: int = 0, spec_id: int = 0) -> ManifestRecord:
    return ManifestRecord(
        f"m{number}", 100 * entries, spec_id, content, 1, 1, 1, entries, 0, 0, entries, 0, 0, partitions=None
    )


def test_expiry_keeps_tags_branches_and_the_youngest(lake: SmallLake, upkeep: Upkeep) -> None:
    table = lake.table()
    for number in range(3):
        lake.append(table, f"drive-{number}")
    stock = lake.iceberg().load_table(table.identifier)
    ids = [snapshot.snapshot_id for snapshot in stock.snapshots()]
    stock.manage_snapshots().create_tag(ids[0], "dataset").create_branch(ids[2], "experiment").commit()
    for number in range(3, 20):
        lake.append(table, f"drive-{number}")
    result = upkeep.maintain(table.identifier)
    assert result.expired_snapshots == 20 - 3 - 4 + result.manifest_merges
    stock = lake.stock_table(table.identifier)
    kept = {snapshot.snapshot_id for snapshot in stock.snapshots()}
    assert set(ids) <= kept, "the branch keeps its history"
    assert len(kept) == 3 + 4
    assert stock.scan(snapshot_id=stock.refs()["dataset"].snapshot_id).to_arrow().num_rows == ROWS
    assert stock.scan().to_arrow().num_rows == 20 * ROWS


def test_metadata_files_outlive_their_snapshots_by_the_minimum_age(lake: SmallLake, upkeep: Upkeep) -> None:
    table = lake.table()
    for number in range(20):
        lake.append(table, f"drive-{number}")
    old = lake.stock_table(table.identifier)
    plan_before = sorted(task.file.file_path for task in old.scan().plan_files())
    upkeep.maintain(table.identifier)
    marked = marks(lake)
    assert marked
    assert marked <= lake.stored(table.location, "metadata"), "readers of the old state can go on"
    assert sorted(task.file.file_path for task in old.scan().plan_files()) == plan_before
    assert upkeep.purge_metadata().purged_metadata_files == 0
    result = upkeep.purge_metadata(time.time_ns() + 61 * 10**9)
    assert result.purged_metadata_files == len(marked)
    assert not marks(lake)
    assert not marked & lake.stored(table.location, "metadata")
    assert len(lake.sequences_in(table.identifier)) == 20
    stock = lake.stock_table(table.identifier)
    for snapshot in stock.snapshots():
        assert stock.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows > 0


class CatalogElsewhere(SqlTableCatalog):
    """Moves pointers in transactions of its own, as catalogs over the network do; expiries fail when it is told so."""

    shares_transactions = False

    def __init__(self, database: Database) -> None:
        self.database = database
        self.failures: list[Exception] = []

    def commit(self, connection: Connection | None, files: TableFiles, staged: StagedTable) -> None:
        if self.failures and staged.snapshot is None:
            raise self.failures.pop(0)
        with self.database.transaction() as own:
            super().commit(own, files, staged)


def test_an_expiry_that_failed_does_not_shorten_the_time_of_readers(lake: SmallLake) -> None:
    catalog = CatalogElsewhere(lake.database)
    settings = with_settings(lake, snapshots_to_keep=4, snapshot_min_age=60)
    upkeep = Upkeep(lake.database, TableFiles(lake.warehouse, catalog=catalog), lake.committer, settings)
    table = lake.table()
    for number in range(10):
        lake.append(table, f"drive-{number}")
    catalog.failures = [CatalogUncertainError()]
    started_ns = time.time_ns()
    with pytest.raises(StorageError):
        upkeep.maintain(table.identifier, now_ns=lambda: started_ns)
    assert marks(lake)
    assert upkeep.maintain(table.identifier, now_ns=lambda: started_ns + 50 * 10**9).expired_snapshots > 0
    marked = marks(lake)
    assert upkeep.purge_metadata(started_ns + 70 * 10**9).purged_metadata_files == 0
    assert marked <= lake.stored(table.location, "metadata")
    assert upkeep.purge_metadata(started_ns + 111 * 10**9).purged_metadata_files == len(marked)


def test_an_expiry_that_others_always_came_before_leaves_no_marks(lake: SmallLake) -> None:
    catalog = CatalogElsewhere(lake.database)
    settings = with_settings(lake, snapshots_to_keep=4, snapshot_min_age=60)
    upkeep = Upkeep(lake.database, TableFiles(lake.warehouse, catalog=catalog), lake.committer, settings)
    table = lake.table()
    for number in range(10):
        lake.append(table, f"drive-{number}")
    catalog.failures = [CatalogConflictError() for _ in range(20)]
    assert upkeep.maintain(table.identifier).expired_snapshots == 0
    assert len(catalog.failures) < 20
    assert not marks(lake)


def test_maintenance_beside_writers_of_other_processes_loses_nothing(
    lake: SmallLake, upkeep: Upkeep, tmp_path: Path, database_url: str
) -> None:
    table = lake.table()
    program = ("tests.catalog.committing_process", str(tmp_path), database_url, "append")
    writers = [
        ForkedProgram(*program, f"writer{number}", "15", "sensors/imu", environment=child_environment())
        for number in range(2)
    ]
    while any(writer.poll() is None for writer in writers):
        upkeep.maintain(table.identifier)
    assert [writer.returncode for writer in writers] == [0, 0]
    upkeep.maintain(table.identifier)
    expected = sorted(f"writer{writer}-{number}" for writer in range(2) for number in range(15))
    assert lake.sequences_in(table.identifier) == expected
    assert len(lake.stock_table(table.identifier).snapshots()) <= 6


def test_a_tag_made_while_tables_are_maintained_keeps_its_rows(lake: SmallLake, upkeep: Upkeep) -> None:
    table = lake.table()
    lake.append(table, "pinned")
    first = lake.stock_table(table.identifier).current_snapshot()
    assert first is not None
    lake.iceberg().load_table(table.identifier).manage_snapshots().create_tag(first.snapshot_id, "pin").commit()
    lake.delete(table, "pinned")
    for number in range(20):
        lake.append(table, f"drive-{number}")
    upkeep.maintain(table.identifier)
    clean(lake)
    clean(lake, LATER_NS)
    clean(lake, 2 * LATER_NS)
    stock = lake.stock_table(table.identifier)
    assert stock.scan(snapshot_id=first.snapshot_id).to_arrow()["sequence"].to_pylist() == ["pinned"] * ROWS
    assert "pinned" not in lake.sequences_in(table.identifier)


def test_deleted_rows_become_unreachable_and_their_files_are_purged(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "kept")
    lake.append(table, "deleted")
    doomed = {uri for uri in lake.stored(table.location, "data") if "sequence=deleted" in uri}
    lake.delete(table, "deleted")
    report = clean(lake)
    assert report.orphans.purged == 0
    assert doomed <= lake.stored(table.location, "data"), "younger snapshots may still be read"
    report = clean(lake, LATER_NS)
    assert report.upkeep.expired_snapshots == 2, "though there are few snapshots"
    assert report.orphans.marked >= 1
    assert doomed <= lake.stored(table.location, "data"), "marked, not purged"
    report = clean(lake, LATER_NS + RETENTION_S * 10**9 + 10**9)
    assert report.orphans.purged >= 1
    assert not doomed & lake.stored(table.location, "data")
    assert lake.stock_table(table.identifier).scan().to_arrow()["sequence"].to_pylist() == ["kept"] * ROWS
    assert not marks(lake)


def test_a_dry_run_reports_and_changes_nothing(lake: SmallLake) -> None:
    table, unused = lake.table(), lake.table("unused")
    lake.append(table, "drive")
    lake.delete(table, "drive")
    lake.write(table, "stray")
    state = lake.pointers(), lake.stored(lake.warehouse.uri), marks(lake)
    report = clean(lake, LATER_NS, dry_run=True, cleanup_retention_duration=0)
    assert report.dropped_tables == 1
    assert report.upkeep.expired_snapshots == 1
    assert report.orphans.purged >= 1
    foreseen = report.after
    assert foreseen.tables == report.before.tables - 1
    assert foreseen.snapshots == report.before.snapshots - 1
    assert (lake.pointers(), lake.stored(lake.warehouse.uri), marks(lake)) == state
    report = clean(lake, LATER_NS, cleanup_retention_duration=0)
    assert report.dropped_tables == 1
    assert report.before.tables == report.after.tables + 1
    assert report.after == foreseen
    assert unused.identifier not in lake.pointers()
    assert not lake.stored(table.location, "data")


@pytest.fixture
def topic(lake: SmallLake) -> tuple[TopicTable, str, int]:
    """A table with a topic whose upload is running: its table, UUID and row id."""
    table = lake.table()
    topic_uuid = str(uuid.uuid4())
    with lake.database.transaction() as connection:
        sequence = connection.execute(insert(sequences).values(name="drive", user_metadata="{}", created_at_ns=1))
        session = connection.execute(
            insert(sessions).values(
                sequence_id=sequence.inserted_primary_key[0],
                uuid="u",
                public_uuid="p",
                ulid="l",
                state="open",
                created_at_ns=1,
            )
        )
        row = connection.execute(
            insert(topics).values(
                sequence_id=sequence.inserted_primary_key[0],
                session_id=session.inserted_primary_key[0],
                uuid=topic_uuid,
                path="sensors/imu",
                ontology_tag="IMU",
                serialization_format="default",
                user_metadata="{}",
                state="uploading",
                created_at_ns=1,
                table_identifier=table.identifier,
            )
        )
    return table, topic_uuid, row.inserted_primary_key[0]


def store(lake: SmallLake, uri: str) -> str:
    with lake.warehouse.open_output(uri) as stream:
        stream.write(b"rows")
    return uri


def test_files_of_running_uploads_and_open_sessions_are_never_orphans(
    lake: SmallLake, topic: tuple[TopicTable, str, int]
) -> None:
    table, topic_uuid, topic_id = topic
    written = store(lake, data_file_uri(table.location, "drive", DAY, topic_uuid, 0))
    for _ in range(2):
        clean(lake, 20 * HOUR_NS, cleanup_retention_duration=0)
    assert lake.stored(table.location, "data") == {written}, "the upload is running"

    entry = lake.write(table, "drive")
    with lake.database.transaction() as connection:
        connection.execute(topics.update().where(topics.c.id == topic_id).values(state="finalized"))
        connection.execute(insert(data_files).values(topic_id=topic_id, ordinal=0, entry=entry.to_bytes()))
    clean(lake, LATER_NS, cleanup_retention_duration=0)
    assert lake.stored(table.location, "data") == {entry.path}, "recorded, though in no snapshot yet"


def test_files_of_a_broken_upload_are_purged_and_it_can_never_complete(
    lake: SmallLake, topic: tuple[TopicTable, str, int]
) -> None:
    table, topic_uuid, topic_id = topic
    store(lake, data_file_uri(table.location, "drive", DAY, topic_uuid, 0))
    clean(lake, LATER_NS)
    assert len(lake.stored(table.location, "data")) == 1
    clean(lake, 2 * LATER_NS)
    assert not lake.stored(table.location, "data")
    with lake.database.snapshot() as connection:
        row = connection.execute(select(topics).where(topics.c.id == topic_id)).one()
    assert (row.state, row.table_identifier) == ("uploading", None)


def test_a_file_that_comes_into_use_loses_its_mark(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "other")
    entry = lake.write(table, "drive")
    clean(lake, LATER_NS)
    assert marks(lake) == {entry.path}
    lake.commit([TableChange(table.identifier, add=[entry])])
    clean(lake, 3 * LATER_NS)
    assert not marks(lake)
    assert lake.sequences_in(table.identifier) == ["drive", "other"]


def test_tables_and_files_of_other_people_are_left_alone(lake: SmallLake) -> None:
    own = lake.table()
    lake.append(own, "drive")
    catalog = lake.iceberg()
    catalog.create_namespace("analysis")
    theirs = catalog.create_table("analysis.results", pa.schema([("x", pa.int64())]))
    for number in range(3):
        theirs.append(pa.table({"x": [number]}))
    elsewhere = store(lake, f"{lake.warehouse.uri}/somewhere/else/data/{uuid.uuid4()}-00000.parquet")
    before = lake.stored(theirs.location()), lake.pointers()
    for _ in range(2):
        clean(lake, 10 * LATER_NS, cleanup_retention_duration=0, snapshots_to_keep=1)
    assert (lake.stored(theirs.location()), lake.pointers()["analysis.results"]) == (
        before[0],
        before[1]["analysis.results"],
    )
    assert elsewhere in lake.stored(lake.warehouse.uri)


def test_a_table_in_storage_of_somebody_else_does_not_keep_orphans_for_ever(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "drive")
    lake.commit([TableChange(table.identifier, delete_sequence="drive")])
    with lake.database.transaction() as connection:
        insert_pointer(connection, "analysis.elsewhere", "gs://bucket/t/metadata/00001-a.metadata.json")
    for _ in range(2):
        clean(lake, 10 * LATER_NS, cleanup_retention_duration=0)
    assert not lake.stored(table.location, "data")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("crash_at", ["metadata-write:after:2", "control-plane-write:after"])
def test_what_a_killed_commit_staged_is_collected(
    lake: SmallLake, tmp_path: Path, database_url: str, crash_at: str
) -> None:
    tables = [lake.table("a"), lake.table("b")]
    for table in tables:
        lake.append(table, "before")
    before = lake.stored(lake.warehouse.uri)
    program = ("tests.catalog.committing_process", str(tmp_path), database_url)
    process = ForkedProgram(*program, "append", "killed", "1", "a,b", environment=child_environment(crash_at))
    assert process.wait(60) == -signal.SIGKILL
    assert len(lake.stored(lake.warehouse.uri)) > len(before)
    clean(lake, cleanup_retention_duration=0)
    assert len(lake.stored(lake.warehouse.uri)) > len(before), "they might be in use: too young"
    clean(lake, LATER_NS, cleanup_retention_duration=0)
    assert lake.stored(lake.warehouse.uri) == before
    assert [lake.sequences_in(table.identifier) for table in tables] == [["before"]] * 2


def test_a_lease_has_one_owner_until_it_expires(lake: SmallLake) -> None:
    first, second = (Lease(lake.database, "work", 0.3) for _ in range(2))
    assert first.hold()
    assert first.hold(), "extended"
    assert not second.hold()
    time.sleep(0.35)
    assert second.hold(), "taken over"
    assert not first.hold()
    first.release()
    assert not first.hold(), "releasing what one does not hold changes nothing"
    second.release()
    assert first.hold()


def test_racing_owners_get_one_lease(lake: SmallLake) -> None:
    barrier = threading.Barrier(8)
    held: list[bool] = []

    def take() -> None:
        lease = Lease(lake.database, "race")
        barrier.wait()
        held.append(lease.hold())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == [False] * 7 + [True]


def test_the_worker_maintains_tables_that_were_changed(lake: SmallLake) -> None:
    worker = MaintenanceWorker(
        lake.database, lake.files, lake.committer, with_settings(lake, snapshots_to_keep=4, cleanup_time_interval=0)
    )
    lake.committer.on_commit = worker.notify
    worker.start()
    try:
        table = lake.table()
        for number in range(20):
            lake.append(table, f"drive-{number}")
        wait_until(lambda: len(lake.stock_table(table.identifier).snapshots()) <= 6)
        wait_until(lambda: not holders(lake))
        wait_until(lambda: len(lake.stored(table.location, "metadata")) < 60)
    finally:
        worker.stop()
    assert len(lake.sequences_in(table.identifier)) == 20


def test_the_worker_takes_over_from_a_dead_one(lake: SmallLake) -> None:
    table = lake.table()
    for number in range(20):
        lake.append(table, f"drive-{number}")
    with lake.database.transaction() as connection:
        expires = time.time_ns() + 3 * 10**9
        connection.execute(insert(leases).values(name=MAINTENANCE_LEASE, owner="dead", expires_at_ns=expires))
    settings = with_settings(lake, snapshots_to_keep=4, cleanup_time_interval=0)
    worker = MaintenanceWorker(lake.database, lake.files, lake.committer, settings)
    worker.start()
    try:
        worker.notify([table.identifier])
        time.sleep(1.5)
        assert len(lake.stock_table(table.identifier).snapshots()) == 20
        wait_until(lambda: len(lake.stock_table(table.identifier).snapshots()) <= 6)
    finally:
        worker.stop()


def holders(lake: SmallLake) -> list[str]:
    with lake.database.snapshot() as connection:
        return list(connection.scalars(select(leases.c.owner)))


def wait_until(condition: Any, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def test_two_cycles_do_not_run_at_once(lake: SmallLake) -> None:
    other = Lease(lake.database, "cleanup")
    assert other.hold()
    assert run_cleanup_cycle(lake.database, lake.files, lake.committer, lake.settings) is None
    other.release()
    assert run_cleanup_cycle(lake.database, lake.files, lake.committer, lake.settings) is not None
    assert open_sql_catalog(lake.database, lake.warehouse).list_namespaces() == []


def test_a_cycle_that_another_process_has_taken_over_leaves_the_rest_to_it(lake: SmallLake) -> None:
    lake.table("unused")

    def clock_of_a_process_that_was_suspended() -> int:
        with lake.database.transaction() as connection:
            connection.execute(update(leases).where(leases.c.name == "cleanup").values(owner="the successor"))
        return time.time_ns()

    report = run_cleanup_cycle(
        lake.database, lake.files, lake.committer, lake.settings, now_ns=clock_of_a_process_that_was_suspended
    )
    assert report is not None
    assert report.dropped_tables == 0
    assert len(lake.pointers()) == 1
    with lake.database.snapshot() as connection:
        assert list(connection.scalars(select(leases.c.owner))) == ["the successor"]


def test_tables_that_never_held_a_row_are_kept_unless_they_are_topic_tables(lake: SmallLake) -> None:
    lake.metadata_tables.ensure()
    catalog = lake.iceberg()
    catalog.create_namespace("analysis")
    catalog.create_table("analysis.results", pa.schema([("name", pa.string())]))
    lake.table("unused")
    report = clean(lake)
    assert report.dropped_tables == 1
    assert lake.pointers().keys() == {*METADATA_TABLES, "analysis.results"}


def break_table(lake: SmallLake, path: str) -> None:
    """Overwrite the metadata file of a topic's table, as a failing disk would."""
    location = lake.pointers()[lake.table(path).identifier]
    with lake.warehouse.open_output(location) as stream:
        stream.write(b"\0" * 100)


def test_a_damaged_table_stops_neither_the_upkeep_of_others_nor_its_own_repair(lake: SmallLake, tmp_path: Path) -> None:
    lake.append(lake.table("a/damaged"), "drive")
    table = lake.table()
    for number in range(20):
        lake.append(table, f"drive-{number}")
    break_table(lake, "a/damaged")
    with SmallLake(tmp_path, lake.database.url) as other:
        settings = with_settings(lake, snapshots_to_keep=4, cleanup_time_interval=0)
        MaintenanceWorker(other.database, other.files, other.committer, settings).run_pending()
        assert len(lake.stock_table(table.identifier).snapshots()) <= 6
        for number in range(20):
            lake.append(table, f"later-{number}")
        with pytest.raises(StorageError):
            run_cleanup_cycle(other.database, other.files, other.committer, settings)
        assert len(lake.stock_table(table.identifier).snapshots()) <= 6, "nothing is purged, but all else is done"


def test_tables_of_other_format_versions_in_the_catalog_are_nobodys_business(lake: SmallLake, tmp_path: Path) -> None:
    catalog = lake.iceberg()
    catalog.create_namespace("analysis")
    foreign = catalog.create_table(
        "analysis.old", pa.schema([("name", pa.string())]), properties={"format-version": "1"}
    )
    foreign.append(pa.table({"name": ["x"]}))
    table = lake.table()
    for number in range(20):
        lake.append(table, f"drive-{number}")
    with SmallLake(tmp_path, lake.database.url) as other:
        settings = with_settings(lake, snapshots_to_keep=4, cleanup_time_interval=0)
        MaintenanceWorker(other.database, other.files, other.committer, settings).run_pending()
    assert len(lake.stock_table(table.identifier).snapshots()) <= 6
    assert clean(lake).before.tables == 1
    assert lake.stock_table("analysis.old").scan().to_arrow().num_rows == 1
