"""One process at a time looks after the lake: leases, the worker of a gateway, and cycles that meet."""

import threading
import time

from sqlalchemy import insert, select, update

from lakehouse.catalog.control_plane.schema import leases
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.worker import MAINTENANCE_LEASE, MaintenanceWorker
from tests.catalog.maintained_lake import with_settings
from tests.catalog.small_lake import SmallLake
from tests.waiting import eventually
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE


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
        assert eventually(lambda: len(lake.stock_table(table.identifier).snapshots()) <= 6, every=0.1)
        assert eventually(lambda: not holders(lake), every=0.1)
        assert eventually(lambda: len(lake.stored(table.location, "metadata")) < 60, every=0.1)
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
        assert eventually(lambda: len(lake.stock_table(table.identifier).snapshots()) <= 6, every=0.1)
    finally:
        worker.stop()


def holders(lake: SmallLake) -> list[str]:
    with lake.database.snapshot() as connection:
        return list(connection.scalars(select(leases.c.owner)))


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
