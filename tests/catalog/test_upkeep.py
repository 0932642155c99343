"""Tables stay small for ever: manifests are merged, snapshots expire, without anything in use being touched."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lakehouse.catalog.commits.plan import TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.manifest_lists import ManifestRecord
from lakehouse.catalog.iceberg.sql_catalog import SqlTableCatalog
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.maintenance.manifests import LARGE_MANIFEST, MANIFESTS_PER_CLASS, groups_to_merge
from lakehouse.catalog.maintenance.upkeep import Upkeep
from tests.catalog.maintained_lake import LATER_NS, clean, marks, with_settings
from tests.catalog.small_lake import ROWS, SmallLake, child_environment
from tests.forked import ForkedProgram
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE


@pytest.fixture
def upkeep(lake: SmallLake) -> Upkeep:
    return Upkeep(
        lake.database, lake.files, lake.committer, with_settings(lake, snapshots_to_keep=4, snapshot_min_age=60)
    )


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
