"""Storage stays clean: what nothing refers to is marked, then purged, and nothing that is in use."""

import signal
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import insert, select, text

from lakehouse.catalog.commits.metadata_tables import METADATA_TABLES
from lakehouse.catalog.commits.plan import TableChange
from lakehouse.catalog.control_plane.schema import data_files, sequences, sessions, topics
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.data_files import data_file_uri
from lakehouse.catalog.iceberg.sql_catalog import insert_pointer
from lakehouse.catalog.iceberg.tables import TopicTable
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.worker import MaintenanceWorker
from tests.catalog.maintained_lake import HOUR_NS, LATER_NS, RETENTION_S, clean, marks, with_settings
from tests.catalog.small_lake import DAY, ROWS, SmallLake, child_environment
from tests.forked import ForkedProgram
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE


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


def test_what_ended_maintenance_is_told_also_where_the_audit_log_refuses_its_entry(
    lake: SmallLake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake.append(lake.table("a/damaged"), "drive")
    damaged, table = lake.table("a/damaged").identifier, lake.table()
    settings = with_settings(lake, snapshots_to_keep=4, cleanup_time_interval=0)
    with lake.database.transaction() as connection:
        connection.execute(text("ALTER TABLE audit_log RENAME TO lost"))

    def append_and_open() -> SmallLake:
        for number in range(20):
            lake.append(table, f"drive-{number}")
        return SmallLake(tmp_path, lake.database.url)

    with append_and_open() as other, pytest.raises(StorageError) as refused:
        MaintenanceWorker(other.database, other.files, other.committer, settings).run([table.identifier, damaged])
    assert "could not be recorded" not in caplog.text
    break_table(lake, "a/damaged")
    with append_and_open() as other, pytest.raises(StorageError) as worker_error:
        MaintenanceWorker(other.database, other.files, other.committer, settings).run([table.identifier, damaged])
    assert caplog.text.count("could not be recorded") == 1
    with append_and_open() as other, pytest.raises(StorageError) as cycle_error:
        run_cleanup_cycle(other.database, other.files, other.committer, settings)
    assert caplog.text.count("could not be recorded") == 2
    assert worker_error.value.message == cycle_error.value.message != refused.value.message


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
