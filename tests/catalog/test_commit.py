"""One atomic commit over many tables and the control plane."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Connection, func, select, text

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError, TableChange
from lakehouse.catalog.control_plane.schema import audit_log
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.errors import CommitConflictError, NotFoundError, StateError, StorageError
from lakehouse.catalog.iceberg.tables import TopicTable
from tests.catalog.small_lake import DAY, ROWS, SmallLake, child_environment, nothing
from tests.forked import ForkedProgram
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE

PATHS = ["sensors/imu", "sensors/gps", "sensors/lidar"]


def record(connection: Connection) -> None:
    audit.record(connection, "test", "committed")


def recorded(lake: SmallLake) -> int:
    with lake.database.snapshot() as connection:
        return connection.scalar(select(func.count()).select_from(audit_log)) or 0


def run_process(tmp_path: Path, database_url: str, *arguments: str, crash_at: str = "") -> ForkedProgram:
    program = ("tests.catalog.committing_process", str(tmp_path), database_url, *arguments)
    return ForkedProgram(*program, environment=child_environment(crash_at))


def test_all_tables_of_a_commit_appear_together_with_their_rows(lake: SmallLake) -> None:
    tables = [lake.table(path) for path in PATHS]
    lake.commit(
        [
            TableChange(table.identifier, add=[lake.write(table, "drive"), lake.write(table, "drive")])
            for table in tables
        ],
        record,
        {"mosaico.session": "drive:1"},
    )
    assert recorded(lake) == 1
    for table in tables:
        stock = lake.stock_table(table.identifier)
        rows = stock.scan().to_arrow()
        assert rows.num_rows == 2 * ROWS
        assert set(rows["sequence"].to_pylist()) == {"drive"}
        snapshot = stock.current_snapshot()
        assert snapshot is not None
        assert snapshot.summary is not None
        assert snapshot.summary["mosaico.session"] == "drive:1"
        assert snapshot.summary["added-records"] == snapshot.summary["total-records"] == str(2 * ROWS)
        assert snapshot.summary["total-data-files"] == "2"
        assert snapshot.sequence_number == 1


def test_stock_planning_prunes_by_partition_day_and_nested_bounds(lake: SmallLake) -> None:
    table = lake.table()
    for number in range(4):
        lake.commit([TableChange(table.identifier, add=[lake.write(table, f"drive-{number}", start=100.0 * number)])])
    stock = lake.stock_table(table.identifier)

    def planned(row_filter: str) -> list[str]:
        return sorted(task.file.partition[0] for task in stock.scan(row_filter=row_filter).plan_files())

    assert planned("sequence = 'drive-2'") == ["drive-2"]
    assert planned("acceleration.x > 250") == ["drive-3"]
    assert planned("acceleration.y < -205") == ["drive-2", "drive-3"]
    assert planned("recorded_at < '2020-01-01T00:00:00+00:00'") == []
    partitions = stock.inspect.partitions().to_pylist()
    assert {partition["partition"]["recorded_at_day"].toordinal() - 719163 for partition in partitions} == {DAY}


def test_a_refused_plan_leaves_nothing(lake: SmallLake) -> None:
    tables = [lake.table(path) for path in PATHS]
    entries = [lake.write(table, "drive") for table in tables]
    before = lake.pointers(), [lake.stored(table.location) for table in tables]

    def refuse(connection: Connection) -> None:
        record(connection)
        raise StateError("no")

    with pytest.raises(StateError, match="no"):
        lake.commit(
            [TableChange(table.identifier, add=[entry]) for table, entry in zip(tables, entries, strict=True)], refuse
        )
    assert (lake.pointers(), [lake.stored(table.location) for table in tables]) == before
    assert recorded(lake) == 0


def test_a_missing_table_or_failing_plan_fails_alone(lake: SmallLake) -> None:
    table = lake.table()
    errors: dict[int, Exception] = {}
    barrier = threading.Barrier(12)

    def prepare_nothing() -> CommitPlan:
        raise NotFoundError("session", "x")

    def refuse(_connection: Connection) -> None:
        raise StateError("refused")

    def run(number: int) -> None:
        change = TableChange(table.identifier, add=[lake.write(table, f"drive-{number}")])
        barrier.wait()
        try:
            if number % 4 == 1:
                lake.committer.commit(prepare_nothing)
            elif number % 4 == 2:
                lake.commit([change], refuse)
            elif number % 4 == 3:
                lake.commit([change, TableChange("imu.missing", add=change.add)])
            else:
                lake.commit([change], record)
        except Exception as error:
            errors[number] = error

    run_all(run, 12)
    assert {number: type(error) for number, error in errors.items()} == {
        number: [NotFoundError, StateError, NotFoundError][number % 4 - 1] for number in range(12) if number % 4
    }
    assert lake.sequences_in(table.identifier) == ["drive-0", "drive-4", "drive-8"]
    assert recorded(lake) == 3
    stored = lake.stored(table.location, "metadata")
    referenced = referenced_metadata(lake, table)
    assert stored == referenced, "nothing staged is left behind"


def run_all(target: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=target, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def referenced_metadata(lake: SmallLake, table: TopicTable) -> set[str]:
    stock = lake.stock_table(table.identifier)
    files = {stock.metadata_location, *(entry.metadata_file for entry in stock.metadata.metadata_log)}
    for snapshot in stock.snapshots():
        files.add(snapshot.manifest_list)
        files.update(manifest.manifest_path for manifest in snapshot.manifests(stock.io))
    return files


def test_a_stale_plan_is_prepared_again(lake: SmallLake) -> None:
    table = lake.table()
    attempts: list[int] = []

    def prepare() -> CommitPlan:
        attempts.append(len(attempts))
        attempt = attempts[-1]

        def apply(connection: Connection) -> None:
            if attempt < 2:
                raise StalePlanError
            record(connection)

        return CommitPlan([TableChange(table.identifier, add=[lake.write(table, f"drive-{attempt}")])], apply)

    lake.committer.commit(prepare)
    assert lake.sequences_in(table.identifier) == ["drive-2"]
    assert recorded(lake) == 1


def test_a_plan_that_stays_stale_is_given_up(lake: SmallLake) -> None:
    def stale(_connection: Connection) -> None:
        raise StalePlanError

    committer = Committer(lake.database, lake.files, patience_s=0.2)
    with pytest.raises(CommitConflictError):
        committer.commit(lambda: CommitPlan([], stale))
    committer.close()


def test_commits_of_many_threads_lose_nothing_and_share_snapshots(lake: SmallLake) -> None:
    tables = [lake.table(path) for path in PATHS]
    barrier = threading.Barrier(16)

    def run(number: int) -> None:
        entries = [lake.write(table, f"drive-{number:02}") for table in tables]
        barrier.wait()
        lake.commit(
            [TableChange(table.identifier, add=[entry]) for table, entry in zip(tables, entries, strict=True)],
            record,
            {"mosaico.session": f"drive-{number:02}"},
        )

    run_all(run, 16)
    assert recorded(lake) == 16
    for table in tables:
        assert lake.sequences_in(table.identifier) == [f"drive-{number:02}" for number in range(16)]
    snapshots = lake.stock_table(tables[0].identifier).snapshots()
    assert len(snapshots) < 16
    named = [name for snapshot in snapshots if snapshot.summary for name in snapshot.summary["mosaico.session"].split()]
    assert sorted(named) == [f"drive-{number:02}" for number in range(16)]


def test_commits_of_many_processes_on_shared_tables_lose_nothing(
    lake: SmallLake, tmp_path: Path, database_url: str
) -> None:
    processes = [
        run_process(tmp_path, database_url, "append", f"process{number}", "8", ",".join(PATHS)) for number in range(3)
    ]
    own = [lake.table(path) for path in PATHS]
    for number in range(8):
        lake.commit([TableChange(table.identifier, add=[lake.write(table, f"own-{number}")]) for table in own], record)
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    expected = sorted(f"{prefix}-{n}" for prefix in ("own", "process0", "process1", "process2") for n in range(8))
    for path in PATHS:
        assert lake.sequences_in(lake.table(path).identifier) == expected
    assert recorded(lake) == len(expected)


def test_a_conflict_that_does_not_end_is_reported(lake: SmallLake) -> None:
    table = lake.table()
    rival = Committer(lake.database, lake.files, turns=Turns(lake.database, lake.activity, patience_s=0))

    def prepare() -> CommitPlan:
        change = TableChange(table.identifier, add=[lake.write(table, "mine")])

        def apply(_connection: Connection) -> None:
            raise AssertionError("never reached: the pointer has moved")

        # A plan is staged on the pointers read after `prepare`; the table moves while that happens.
        return CommitPlan([_MovedDuringStaging(change, lambda: lake_append(rival, lake, table))], apply)

    committer = Committer(lake.database, lake.files, patience_s=0.3)
    with pytest.raises(CommitConflictError):
        committer.commit(prepare)
    assert set(lake.sequences_in(table.identifier)) == {"rival"}
    committer.close()
    rival.close()


class _MovedDuringStaging(TableChange):
    """A change whose files are only known once another commit has moved the table."""

    def __init__(self, change: TableChange, move: Callable[[], None]) -> None:
        super().__init__(change.identifier)
        object.__setattr__(self, "add", _LazyFiles(change.add, move))


class _LazyFiles(tuple):  # type: ignore[type-arg]
    def __new__(cls, files: object, _move: Callable[[], None]) -> "_LazyFiles":
        return super().__new__(cls, files)  # type: ignore[arg-type]

    def __init__(self, _files: object, move: Callable[[], None]) -> None:
        self._move = move

    def __iter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
        self._move()
        return super().__iter__()


def lake_append(committer: Committer, lake: SmallLake, table: TopicTable) -> None:
    change = TableChange(table.identifier, add=[lake.write(table, "rival")])
    committer.commit(lambda: CommitPlan([change], nothing))


def test_deleting_a_sequence_removes_its_files_and_nothing_else(lake: SmallLake) -> None:
    tables = [lake.table(path) for path in PATHS[:2]]
    for number in range(6):
        for table in tables:
            lake.append(table, f"drive-{number}")
    lake.delete(tables[0], "drive-3")
    assert lake.sequences_in(tables[0].identifier) == [f"drive-{n}" for n in (0, 1, 2, 4, 5)]
    assert lake.sequences_in(tables[1].identifier) == [f"drive-{n}" for n in range(6)]
    stock = lake.stock_table(tables[0].identifier)
    snapshot = stock.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert snapshot.summary.operation.value == "delete"
    assert snapshot.summary["deleted-records"] == str(ROWS)
    assert snapshot.summary["total-records"] == str(5 * ROWS)
    assert "drive-3" not in stock.scan().to_arrow()["sequence"].to_pylist()
    previous = stock.scan(snapshot_id=snapshot.parent_snapshot_id)
    assert "drive-3" in previous.to_arrow()["sequence"].to_pylist(), "the past stays readable"


def test_a_name_used_again_shows_new_rows_only(lake: SmallLake) -> None:
    table = lake.table()
    for start in (0.0, 1000.0):
        lake.commit([TableChange(table.identifier, add=[lake.write(table, "drive", start)])])
        if start == 0.0:
            lake.append(table, "other")
            lake.delete(table, "drive")
    rows = lake.stock_table(table.identifier).scan(row_filter="sequence = 'drive'").to_arrow()
    assert min(value["x"] for value in rows["acceleration"].to_pylist()) == 1000.0


def test_deleting_what_is_not_there_writes_no_snapshot(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "drive")
    before = lake.pointers()
    lake.commit([TableChange(table.identifier, delete_sequence="elsewhere")], record)
    assert lake.pointers() == before
    assert recorded(lake) == 1


def test_our_commits_and_those_of_stock_pyiceberg_build_on_each_other(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "ours")
    for name in ("theirs", "doomed"):
        stock = lake.stock_table(table.identifier)
        with stock.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            append.append_data_file(lake.write(table, name).to_iceberg())
    lake.append(table, "ours too")
    assert lake.sequences_in(table.identifier) == ["doomed", "ours", "ours too", "theirs"]
    lake.delete(table, "doomed")
    lake.delete(table, "ours")
    assert lake.sequences_in(table.identifier) == ["ours too", "theirs"]
    assert lake.iceberg().load_table(table.identifier).scan().to_arrow().num_rows == 2 * ROWS
    lake.iceberg().load_table(table.identifier).delete("sequence = 'theirs'")
    assert lake.sequences_in(table.identifier) == ["ours too"]


def test_after_repartitioning_by_another_engine_deletions_are_exact_or_refused(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "ours")
    with lake.iceberg().load_table(table.identifier).update_spec() as update:
        update.remove_field("sequence").remove_field("recorded_at_day")
    rows = lake.stock_table(table.identifier).scan().to_arrow()
    index = rows.schema.get_field_index("sequence")

    def renamed(*names: str) -> pa.Table:
        column = [names[number % len(names)] for number in range(ROWS)]
        return rows.set_column(index, rows.schema.field(index), pa.array(column, rows.schema.field(index).type))

    for names in (["alone"], ["mixed-a", "mixed-b"]):
        lake.iceberg().load_table(table.identifier).append(renamed(*names))
    lake.append(table, "ours too")
    lake.delete(table, "alone")
    lake.delete(table, "ours")
    left = lake.stock_table(table.identifier).scan().to_arrow()
    assert set(left["sequence"].to_pylist()) == {"mixed-a", "mixed-b", "ours too"}
    before = lake.pointers()
    with pytest.raises(StateError, match="repartitioned"):
        lake.delete(table, "mixed-a")
    assert lake.pointers() == before


def test_metadata_fields_that_we_do_not_know_survive(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "drive")
    with lake.iceberg().load_table(table.identifier).manage_snapshots() as manage:
        snapshot = lake.stock_table(table.identifier).current_snapshot()
        assert snapshot is not None
        manage.create_tag(snapshot.snapshot_id, "dataset-1")
    lake.append(table, "later")
    stock = lake.stock_table(table.identifier)
    assert stock.scan(snapshot_id=stock.refs()["dataset-1"].snapshot_id).to_arrow().num_rows == ROWS


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_fails_in_the_commit_itself_leaves_the_old_state(lake: SmallLake) -> None:
    table = lake.table()
    lake.append(table, "drive")
    with lake.database.transaction() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = '58030'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION fail()"
            )
        )
    with pytest.raises(StorageError):
        lake.commit([TableChange(table.identifier, add=[lake.write(table, "lost")])], record)
    assert lake.sequences_in(table.identifier) == ["drive"]
    lake.append(table, "next")
    assert lake.sequences_in(table.identifier) == ["drive", "next"]


CRASH_POINTS = [
    *(f"{step}:{side}" for step in ("manifest-write", "metadata-write") for side in ("before", "after")),
    "manifest-write:after:2",
    "metadata-write:after:3",
    "pointer-swap:before",
    "pointer-swap:after",
    "control-plane-write:before",
    "control-plane-write:after",
    "commit:after",
]


@pytest.mark.parametrize(
    ("database_url", "crash_at"),
    [*(("sqlite", point) for point in CRASH_POINTS), *(("postgresql", point) for point in CRASH_POINTS[-4:])],
    indirect=["database_url"],
)
def test_a_kill_at_any_step_leaves_all_or_nothing(
    lake: SmallLake, tmp_path: Path, database_url: str, crash_at: str
) -> None:
    tables = [lake.table(path) for path in PATHS]
    for table in tables:
        lake.append(table, "before")
    process = run_process(tmp_path, database_url, "append", "killed", "1", ",".join(PATHS), crash_at=crash_at)
    assert process.wait(60) == -signal.SIGKILL
    survived = crash_at == "commit:after"
    expected = ["before", "killed-0"] if survived else ["before"]
    assert [lake.sequences_in(table.identifier) for table in tables] == [expected] * 3
    assert recorded(lake) == survived
    for table in tables:
        lake.append(table, "later")
        assert lake.stock_table(table.identifier).scan().to_arrow().num_rows == ROWS * (len(expected) + 1)


@pytest.mark.parametrize(
    ("database_url", "crash_at"),
    [("sqlite", "metadata-write:after:2"), ("postgresql", "control-plane-write:after")],
    indirect=["database_url"],
)
def test_a_kill_in_a_deletion_leaves_all_or_nothing(
    lake: SmallLake, tmp_path: Path, database_url: str, crash_at: str
) -> None:
    tables = [lake.table(path) for path in PATHS]
    for table in tables:
        lake.append(table, "drive")
    process = run_process(tmp_path, database_url, "delete", "drive", ",".join(PATHS), crash_at=crash_at)
    assert process.wait(60) == -signal.SIGKILL
    assert [lake.sequences_in(table.identifier) for table in tables] == [["drive"]] * 3
    lake.commit([TableChange(table.identifier, delete_sequence="drive") for table in tables])
    assert [lake.sequences_in(table.identifier) for table in tables] == [[]] * 3
