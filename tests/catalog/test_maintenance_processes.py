"""Maintenance in processes: several beside one another, and killed in the middle. What was true stays true."""

import itertools
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from lakehouse.catalog.audit import latest_entries
from lakehouse.catalog.control_plane.schema import leases, topics
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.retention import run_retention
from tests.catalog.scattered_lake import ScatteredLake, disordered
from tests.catalog.small_lake import child_environment
from tests.forked import ForkedProgram

_numbers = itertools.count()


def start(home: Path, url: str, *command: str, crash_at: str = "") -> ForkedProgram:
    output = home / f"process-{next(_numbers)}.log"
    program = ("tests.catalog.maintaining_process", str(home), url, *command)
    return ForkedProgram(*program, environment=child_environment(crash_at), output=output)


def killed(home: Path, url: str, command: str, crash_at: str) -> None:
    """Let a process do something until it is killed at a point."""
    process = start(home, url, command, crash_at=crash_at)
    assert process.wait(120) == -signal.SIGKILL, process.written()


def let_leases_expire(lake: ScatteredLake) -> None:
    with lake.lakehouse.database.transaction() as connection:
        connection.execute(update(leases).values(expires_at_ns=1))


def check_invariants(lake: ScatteredLake) -> None:
    """Control plane, tables and files agree; what SQL engines see is what the control plane counts."""
    with lake.lakehouse.database.snapshot() as connection:
        counted = sum(connection.scalars(select(topics.c.row_count)))
    table = lake.stock_table("scattered.front")
    found = table.scan(selected_fields=("sequence", "number")).to_arrow()
    assert found.num_rows == counted
    assert set(found["sequence"].to_pylist()) == set(lake.lakehouse.sequences.names())
    assert len(set(zip(found["sequence"].to_pylist(), found["number"].to_pylist(), strict=True))) == counted


@pytest.mark.parametrize(
    "point",
    ["data-file-close:after:2", "compaction-write:after", "pointer-swap:after", "commit:after"],
)
def test_a_compaction_killed_anywhere_changes_nothing_and_the_next_one_ends(tmp_path: Path, point: str) -> None:
    with ScatteredLake(tmp_path) as lake:
        kept = [lake.store(f"drive-{number}", disordered(count=12)) for number in range(2)]
        before = [lake.rows(topic) for topic in kept]
        killed(tmp_path, "", "compact", point)
        check_invariants(lake)
        assert [lake.rows(topic) for topic in kept] == before
        assert all((len(lake.files_of(topic)) == 1) == (point == "commit:after") for topic in kept)
        let_leases_expire(lake)
        lake.compact(compaction_min_files=2)
        check_invariants(lake)
        assert [lake.rows(topic) for topic in kept] == before
        assert [len(lake.files_of(topic)) for topic in kept] == [1, 1]
        # What the dead process left behind goes; what readers may still need stays until then.
        opened = lake.lakehouse
        for days in (2, 4):
            later = time.time_ns() + days * 86_400 * 10**9
            run_cleanup_cycle(
                opened.database, opened.table_files, opened.committer, opened.settings, now_ns=lambda at=later: at
            )
        assert {uri for uri in lake.stored_files() if "/scattered/" in uri} == {
            uri for topic in kept for uri in lake.files_of(topic)
        }
        assert [lake.rows(topic) for topic in kept] == before


@pytest.mark.parametrize("point", ["pointer-swap:after:2", "commit:after"])
def test_a_retention_killed_anywhere_deletes_each_sequence_wholly_or_not_at_all(tmp_path: Path, point: str) -> None:
    with ScatteredLake(tmp_path) as lake:
        for number in range(3):
            lake.store(f"drive-{number}", disordered(count=8))
        lake.lakehouse.settings.retention_path.write_text("policies:\n  - {name: all, max_bytes: 0 B}\n")
        killed(tmp_path, "", "retain", point)
        check_invariants(lake)
        assert len(lake.lakehouse.sequences.names()) == (2 if point == "commit:after" else 3)
        let_leases_expire(lake)
        opened = lake.lakehouse
        report = run_retention(opened.database, opened.table_files, opened.deletion, opened.settings)
        assert report is not None
        assert lake.lakehouse.sequences.names() == []
        check_invariants(lake)
        with opened.database.snapshot() as connection:
            deletions = latest_entries(connection, limit=10, operations=["sequence_delete"])
        assert sorted(entry.resource for entry in deletions) == ["drive-0", "drive-1", "drive-2"]


def test_a_publication_killed_before_its_end_publishes_each_entry_once(tmp_path: Path) -> None:
    with ScatteredLake(tmp_path) as lake:
        lake.store("drive", disordered(count=2))
        lake.lakehouse.sequences.delete("drive")
        killed(tmp_path, "", "publish", "control-plane-write:after")
        let_leases_expire(lake)
        opened = lake.lakehouse
        assert run_audit_care(opened.database, opened.table_files, opened.committer, opened.settings)
        published = lake.stock_table("mosaico.audit_log").scan().to_arrow().sort_by("id")["operation"].to_pylist()
        assert published == ["session_finalize", "sequence_delete"]


def test_processes_compact_write_delete_and_read_at_the_same_time(tmp_path: Path, postgres_url: str) -> None:
    with ScatteredLake(tmp_path, postgres_url) as lake:
        kept = lake.store("kept", disordered(count=20))
        before = lake.rows(kept)
        processes = [
            start(tmp_path, postgres_url, "compact", "6"),
            start(tmp_path, postgres_url, "compact", "6"),
            start(tmp_path, postgres_url, "come_and_go", "a", "4"),
            start(tmp_path, postgres_url, "come_and_go", "b", "4"),
            start(tmp_path, postgres_url, "read", "kept", "5"),
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
