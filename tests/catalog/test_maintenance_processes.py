"""Maintenance in processes: several beside one another, and killed in the middle. What was true stays true."""

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from lakehouse.catalog.audit import latest_entries
from lakehouse.catalog.control_plane.schema import leases, orphan_files, topics
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.retention import run_retention
from lakehouse.catalog.rebuild.rebuild import rebuild
from tests.catalog.scattered_lake import DAY_NS, ScatteredLake, disordered
from tests.catalog.small_lake import child_environment
from tests.forked import ForkedProgram
from tests.warehouses import BY_DATABASE, environment

WAREHOUSES = BY_DATABASE
# With SQLite goes a warehouse of local files, with PostgreSQL one in an object store.
ON_FILES, ON_S3 = "sqlite", "postgresql"
on_files = pytest.mark.parametrize("database_url", [ON_FILES], indirect=True)

_numbers = itertools.count()


@pytest.fixture
def lake(
    tmp_path: Path, database_url: str, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScatteredLake]:
    # By way of the environment, so that processes which a test starts find the same storage.
    for name, value in environment(store).items():
        monkeypatch.setenv(name, value)
    with ScatteredLake(tmp_path, database_url, store) as opened:
        yield opened


def start(lake: ScatteredLake, *command: str, crash_at: str = "") -> ForkedProgram:
    home = lake.lakehouse.settings.home
    output = home / f"process-{next(_numbers)}.log"
    program = ("tests.catalog.maintaining_process", str(home), lake.lakehouse.database.url, *command)
    return ForkedProgram(*program, environment=child_environment(crash_at), output=output)


def killed(lake: ScatteredLake, *command: str, crash_at: str) -> None:
    """Let a process do something until it is killed at a point; its leases are others' to take then."""
    process = start(lake, *command, crash_at=crash_at)
    assert process.wait(120) == -signal.SIGKILL, process.written()
    with lake.lakehouse.database.transaction() as connection:
        connection.execute(update(leases).values(expires_at_ns=1))


def clean(lake: ScatteredLake, after_days: int) -> None:
    """A cleanup cycle with the clock set forward."""
    opened, now_ns = lake.lakehouse, time.time_ns() + after_days * DAY_NS
    arguments = (opened.database, opened.table_files, opened.committer, opened.settings)
    assert run_cleanup_cycle(*arguments, now_ns=lambda: now_ns) is not None


def check_invariants(lake: ScatteredLake) -> None:
    """Control plane, tables and files agree; what SQL engines see is what the control plane counts; so do queries."""
    with lake.lakehouse.database.snapshot() as connection:
        counted = sum(connection.scalars(select(topics.c.row_count)))
    table = lake.stock_table("scattered.front")
    found = table.scan(selected_fields=("sequence", "number")).to_arrow()
    assert found.num_rows == counted
    assert set(found["sequence"].to_pylist()) == set(lake.lakehouse.sequences.names())
    assert len(set(zip(found["sequence"].to_pylist(), found["number"].to_pylist(), strict=True))) == counted
    assert lake.find({"Scattered.number": {"$eq": 7}}) == set(lake.lakehouse.sequences.names())


@pytest.mark.parametrize(
    ("database_url", "point"),
    [
        (ON_FILES, "data-file-close:after:2"),
        (ON_S3, "compaction-write:after"),
        (ON_FILES, "pointer-swap:after"),
        (ON_S3, "commit:after"),
    ],
    indirect=["database_url"],
)
def test_a_compaction_killed_anywhere_changes_nothing_and_the_next_one_ends(lake: ScatteredLake, point: str) -> None:
    kept = [lake.store(f"drive-{number}", disordered(count=12)) for number in range(2)]
    before = [lake.rows(topic) for topic in kept]
    killed(lake, "compact", crash_at=point)
    check_invariants(lake)
    assert [lake.rows(topic) for topic in kept] == before
    assert all((len(lake.files_of(topic)) == 1) == (point == "commit:after") for topic in kept)
    lake.compact(compaction_min_files=2)
    check_invariants(lake)
    assert [lake.rows(topic) for topic in kept] == before
    assert [len(lake.files_of(topic)) for topic in kept] == [1, 1]
    # What the dead process left behind goes; what readers may still need stays until then.
    for days in (2, 4):
        clean(lake, days)
    assert {uri for uri in lake.stored_files() if "/scattered/" in uri} == {
        uri for topic in kept for uri in lake.files_of(topic)
    }
    assert [lake.rows(topic) for topic in kept] == before


EVERY_STEP_OF_CLEANUP = [
    *("maintenance-swap:after:1", "maintenance-swap:before:3"),
    *("metadata-purge:before", "metadata-purge:after:2"),
    *("orphan-purge:before", "orphan-purge:after", "orphan-marks:after"),
]


@pytest.mark.parametrize(
    ("database_url", "points"),
    [
        (ON_FILES, EVERY_STEP_OF_CLEANUP),
        (ON_S3, ["maintenance-swap:after:1", "metadata-purge:after", "orphan-purge:after"]),
    ],
    indirect=["database_url"],
    ids=["files", "s3"],
)
def test_a_cleanup_killed_anywhere_takes_nothing_in_use_and_the_next_one_ends(
    lake: ScatteredLake, points: list[str]
) -> None:
    pinned = lake.store("pinned", disordered(count=4))
    pinned_rows = set(lake.rows(pinned))
    table = lake.stock_table("scattered.front")
    tagged = table.metadata.current_snapshot_id
    assert tagged is not None
    table.manage_snapshots().create_tag(tagged, "training-v1").commit()
    lake.lakehouse.sequences.delete("pinned")
    kept = lake.store("kept", disordered(count=4))
    unfinished = lake.begin("open")
    waiting = lake.lakehouse.topics.get(lake.upload(unfinished, disordered(count=4), path="waiting", tag="Other"))
    before = [lake.rows(topic) for topic in (kept, waiting)]

    def check() -> None:
        assert [lake.rows(topic) for topic in (kept, waiting)] == before
        now, then = (
            lake.stock_table("scattered.front").scan(),
            lake.stock_table("scattered.front").scan(snapshot_id=tagged),
        )
        assert set(now.to_arrow()["sequence"].to_pylist()) == {"kept"}
        assert lake.find({"Scattered.number": {"$eq": 7}}) == {"kept"}
        assert then.to_arrow().num_rows == len(pinned_rows)
        restored = rebuild(lake.lakehouse.database, lake.lakehouse.table_files, dry_run=True)
        assert (restored.rows.sessions, restored.rows.topics, restored.damaged) == (1, 1, [])

    # Each day leaves something to be cleaned up, and what was marked the day before is purged.
    for day, point in enumerate(points, start=1):
        lake.store("doomed", disordered(count=3))
        lake.compact(compaction_min_files=2)
        lake.lakehouse.sequences.delete("doomed")
        clean(lake, after_days=3 * day)
        lake.store("fleeting", disordered(count=1))
        lake.lakehouse.sequences.delete("fleeting")
        killed(lake, "clean", str(3 * day + 1), crash_at=point)
        check()
        clean(lake, after_days=3 * day + 1)
        check()
    for days in (2, 4):
        clean(lake, after_days=3 * len(points) + days)
    check()
    lake.lakehouse.sessions.finalize(unfinished.uuid)
    again = lake.store("doomed", disordered(count=1))
    assert len(lake.rows(again)) == 20
    files = set(lake.files_of(kept)) | set(lake.files_of(waiting)) | set(lake.files_of(again))
    at_the_tag = lake.stock_table("scattered.front").scan(snapshot_id=tagged).plan_files()
    assert {uri for uri in lake.stored_files() if "/mosaico/" not in uri} == files | {
        task.file.file_path for task in at_the_tag
    }
    with lake.lakehouse.database.snapshot() as connection:
        marked = set(connection.scalars(select(orphan_files.c.path)))
    assert not any(uri.endswith(".parquet") for uri in marked)


@pytest.mark.parametrize(
    ("database_url", "point"),
    [(ON_FILES, "pointer-swap:after"), (ON_S3, "commit:after")],
    indirect=["database_url"],
)
def test_a_retention_killed_anywhere_deletes_each_sequence_wholly_or_not_at_all(
    lake: ScatteredLake, point: str
) -> None:
    for number in range(3):
        lake.store(f"drive-{number}", disordered(count=8))
    lake.lakehouse.settings.retention_path.write_text("policies:\n  - {name: all, max_bytes: 0 B}\n")
    killed(lake, "retain", crash_at=point)
    check_invariants(lake)
    assert len(lake.lakehouse.sequences.names()) == (2 if point == "commit:after" else 3)
    opened = lake.lakehouse
    report = run_retention(opened.database, opened.table_files, opened.deletion, opened.settings)
    assert report is not None
    assert lake.lakehouse.sequences.names() == []
    check_invariants(lake)
    with opened.database.snapshot() as connection:
        deletions = latest_entries(connection, limit=10, operations=["sequence_delete"])
    assert sorted(entry.resource for entry in deletions) == ["drive-0", "drive-1", "drive-2"]


@on_files
def test_a_publication_killed_before_its_end_publishes_each_entry_once(lake: ScatteredLake) -> None:
    lake.store("drive", disordered(count=2))
    lake.lakehouse.sequences.delete("drive")
    killed(lake, "publish", crash_at="control-plane-write:after")
    opened = lake.lakehouse
    assert run_audit_care(opened.database, opened.table_files, opened.committer, opened.settings)
    published = lake.stock_table("mosaico.audit_log").scan().to_arrow().sort_by("id")["operation"].to_pylist()
    assert published == ["session_finalize", "sequence_delete"]


@pytest.mark.parametrize("database_url", [ON_S3], indirect=True)
def test_processes_compact_write_delete_and_read_at_the_same_time(lake: ScatteredLake) -> None:
    kept = lake.store("kept", disordered(count=20))
    before = lake.rows(kept)
    processes = [
        start(lake, "compact", "6"),
        start(lake, "compact", "6"),
        start(lake, "come_and_go", "a", "4"),
        start(lake, "come_and_go", "b", "4"),
        start(lake, "read", "kept", "5"),
    ]
    for process in processes:
        assert process.wait(240) == 0, process.written()
    check_invariants(lake)
    assert set(lake.lakehouse.sequences.names()) == {
        "kept",
        *(f"{prefix}-{number}" for prefix in "ab" for number in range(0, 4, 2)),
    }
    assert lake.rows(kept) == before
    assert len(lake.files_of(kept)) < 20
