"""The audit log: every destructive operation is in it, nobody changes it, SQL finds it, each entry exactly once."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text, update

from lakehouse.catalog import audit
from lakehouse.catalog.audit import AuditEntry, latest_entries
from lakehouse.catalog.control_plane.schema import audit_log
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.maintenance.audit_trail import AUDIT_LEASE, AuditReport, run_audit_care
from lakehouse.catalog.maintenance.leases import Lease
from tests.catalog.scattered_lake import ScatteredLake, disordered
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE
DAY_S = 86_400


@pytest.fixture
def lake(tmp_path: Path, database_url: str, store: dict[str, str]) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path, database_url, store) as opened:
        yield opened


def entries(lake: ScatteredLake) -> list[AuditEntry]:
    with lake.lakehouse.database.snapshot() as connection:
        return latest_entries(connection, limit=1000)[::-1]


def write(lake: ScatteredLake, *resources: str) -> None:
    for resource in resources:
        with lake.lakehouse.database.transaction() as connection:
            audit.record(connection, "test", resource, number=1)


def care(lake: ScatteredLake, after_s: int = 0, dry_run: bool = False) -> AuditReport:
    opened = lake.lakehouse
    report = run_audit_care(
        opened.database,
        opened.table_files,
        opened.committer,
        opened.settings,
        dry_run,
        lambda: time.time_ns() + after_s * 10**9,
    )
    assert report is not None
    return report


def published(lake: ScatteredLake) -> list[str]:
    rows = lake.stock_table("mosaico.audit_log").scan().to_arrow().sort_by("id")
    resources: list[str] = rows["resource"].to_pylist()
    return resources


def test_who_what_when_through_which_door_and_from_where(lake: ScatteredLake) -> None:
    before_ns = time.time_ns()
    with audit.acting_as("key 1a2b3c4d", door="gateway", origin="ipv4:10.0.0.7:5"):
        lake.store("drive", disordered(count=12))
        lake.lakehouse.notifications.create("drive", "error", "bad")
        lake.lakehouse.notifications.purge("drive")
    with audit.acting_as("user anna"):
        lake.compact(compaction_min_files=2)
        lake.lakehouse.sequences.delete("drive")
    found = entries(lake)
    assert [(entry.operation, entry.actor) for entry in found] == [
        ("session_finalize", "key 1a2b3c4d"),
        ("notification_purge", "key 1a2b3c4d"),
        ("compaction", "user anna"),
        ("sequence_delete", "user anna"),
    ]
    assert [(entry.door, entry.origin) for entry in found[1:3]] == [
        ("gateway", "ipv4:10.0.0.7:5"),
        ("", socket.gethostname()),
    ]
    assert all(before_ns <= entry.at_ns <= time.time_ns() for entry in found)
    assert found[2].resource == "scattered.front"
    assert found[2].details["files_before"] > found[2].details["files_after"] == 1


@pytest.mark.parametrize("change", ["update", "delete", "delete all", "truncate"])
def test_entries_can_be_neither_changed_nor_removed(lake: ScatteredLake, change: str) -> None:
    write(lake, "a", "b")
    care(lake)
    statements = {
        "update": update(audit_log).where(audit_log.c.resource == "a").values(actor="somebody else"),
        "delete": delete(audit_log).where(audit_log.c.resource == "a"),
        "delete all": delete(audit_log),
        "truncate": text("DELETE FROM audit_log" if lake.lakehouse.database.is_sqlite else "TRUNCATE audit_log"),
    }
    with pytest.raises(StorageError), lake.lakehouse.database.transaction() as connection:
        connection.execute(statements[change])
    assert [entry.resource for entry in entries(lake)] == ["a", "b"]


def test_sql_finds_every_entry_once(lake: ScatteredLake) -> None:
    write(lake, "a", "b")
    assert care(lake, dry_run=True).published == 2
    first = care(lake)
    assert (first.published, first.before.unpublished, first.after.unpublished) == (2, 2, 0)
    write(lake, "c")
    assert care(lake).published == 1
    assert care(lake).published == 0
    assert published(lake) == ["a", "b", "c"]
    row = lake.stock_table("mosaico.audit_log").scan().to_arrow().sort_by("id").to_pylist()[2]
    entry = entries(lake)[2]
    assert (row["at_ns"], row["actor"], row["origin"]) == (entry.at_ns, entry.actor, entry.origin)
    assert json.loads(row["details"]) == entry.details


def test_an_entry_whose_transaction_ends_late_is_not_passed_over(lake: ScatteredLake) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def late() -> None:
        with lake.lakehouse.database.transaction() as connection:
            audit.record(connection, "test", "late")
            begun.set()
            may_end.wait(30)

    thread = threading.Thread(target=late)
    thread.start()
    begun.wait(30)
    timer = threading.Timer(0.5, may_end.set)
    timer.start()
    if not lake.lakehouse.database.is_sqlite:
        write(lake, "early")
    care(lake)
    thread.join()
    care(lake)
    assert sorted(published(lake)) == sorted(entry.resource for entry in entries(lake))


def test_old_entries_go_once_they_are_published_and_stay_there(lake: ScatteredLake) -> None:
    write(lake, "a", "b")
    assert care(lake, after_s=364 * DAY_S).purged == 0
    write(lake, "c")
    assert care(lake, after_s=366 * DAY_S, dry_run=True).purged == 3
    report = care(lake, after_s=366 * DAY_S)
    assert (report.purged, report.before.entries, report.after.entries) == (3, 3, 1)
    assert [entry.operation for entry in entries(lake)] == ["audit_purge"]
    assert published(lake) == ["a", "b", "c"]
    with pytest.raises(StorageError), lake.lakehouse.database.transaction() as connection:
        connection.execute(delete(audit_log))


def test_several_publishers_publish_once(lake: ScatteredLake) -> None:
    write(lake, *map(str, range(20)))
    other = Lease(lake.lakehouse.database, AUDIT_LEASE)
    assert other.hold()
    opened = lake.lakehouse
    arguments = (opened.database, opened.table_files, opened.committer, opened.settings)
    assert run_audit_care(*arguments) is None
    other.release()
    threads = [threading.Thread(target=run_audit_care, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert published(lake) == [str(number) for number in range(20)]
    with opened.database.snapshot() as connection:
        assert connection.execute(select(audit_log.c.id)).all()
