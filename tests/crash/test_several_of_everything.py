"""Two gateways and two other processes on one PostgreSQL and one warehouse, one of the gateways killed and replaced.

On local files the others are programs of the catalog; on S3 they are Dagster code locations, each with an own instance.

Whatever order things happen in: acknowledged data is there, sessions are visible wholly or not at all (an observer
looks while it happens), deleted names show nothing, every reader agrees, a query finds what a full scan finds, a later
cleanup takes nothing that is needed, and no process takes more connections than it may.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as flight
import pytest
from sqlalchemy import make_url

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import CleanupReport, run_cleanup_cycle
from lakehouse.catalog.settings import Settings
from tests.crash.gateway_process import GatewayProcess
from tests.crash.observer import Observer
from tests.crash.small_drives import MESSAGES_PER_RECORDING, TAG, TOPICS, rows_in_iceberg, rows_of
from tests.warehouses import environment as as_environment
from tests.warehouses import store_settings

SEED = 20_261_127
BUSY_SECONDS = 4.0
POOL = 3
MOST_SEQUENCES = 12
SNAPSHOT_MIN_AGE_S = 10
DAYS_LATER_NS = 5 * 86_400 * 10**9
# Not every topic has such a value.
HIGH = 3.0
DIED = (pa.ArrowException, flight.FlightError, OSError)


@dataclass
class Journal:
    """What the clients of the gateways know."""

    finalized: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    # Acknowledged uploads of sessions whose end is unknown, because their gateway died.
    uploaded: dict[str, set[str]] = field(default_factory=dict)
    # Deletions whose end is unknown.
    perhaps_deleted: set[str] = field(default_factory=set)


class Fleet:
    """Two gateways; the first may be killed, and is replaced then."""

    def __init__(self, start: Callable[[], GatewayProcess]) -> None:
        self._start = start
        self.gateways: list[GatewayProcess] = []
        self.start()
        self._replaced = threading.Lock()

    def start(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            self.gateways = list(pool.map(lambda _: self._start(), range(2)))

    def kill_first(self) -> None:
        with self._replaced:
            self.gateways[0].process.kill()
            self.gateways[0].process.wait()
            self.gateways[0] = self._start()

    def current(self, number: int) -> GatewayProcess:
        with self._replaced:
            return self.gateways[number]

    def stop(self) -> None:
        for gateway in self.gateways:
            gateway.stop()


def client(fleet: Fleet, number: int, prefix: str, stopped: threading.Event, journal: Journal) -> None:
    """Write sequences one after another, and delete some of them."""
    generator = random.Random(f"{SEED} {prefix}")
    mine: list[str] = []
    count = 0
    # What is there at the end is read as a whole, so that it must not grow with the time that others need.
    while count < 3 or (count < MOST_SEQUENCES and not stopped.is_set()):
        gateway = fleet.current(number)
        name = f"{prefix}-{count}"
        count += 1
        uploaded: set[str] = set()
        try:
            gateway.action("sequence_create", locator=name, user_metadata={})
            session = gateway.action("session_create", locator=name)
            assert session is not None
            for path in TOPICS:
                locator = f"{name}/{path}"
                topic = gateway.action(
                    "topic_create",
                    session_uuid=session["uuid"],
                    locator=locator,
                    serialization_format="default",
                    ontology_tag=TAG,
                    user_metadata={},
                )
                assert topic is not None
                gateway.upload(locator, topic["uuid"], rows_of(name, path).to_batches())
                uploaded.add(path)
            gateway.action("session_finalize", session_uuid=session["uuid"])
        except DIED:
            assert gateway.process.poll() is not None or gateway is not fleet.current(number), "refused without a kill"
            journal.uploaded[name] = uploaded
            continue
        journal.finalized.add(name)
        mine.append(name)
        if generator.random() < 0.3:
            doomed = mine.pop(generator.randrange(len(mine)))
            journal.finalized.remove(doomed)
            try:
                gateway.action("sequence_delete", locator=doomed)
            except DIED:
                assert gateway.process.poll() is not None or gateway is not fleet.current(number)
                journal.perhaps_deleted.add(doomed)
            else:
                journal.deleted.add(doomed)


def watch_connections(url: str, stopped: threading.Event, seen: list[int]) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        while not stopped.wait(0.1):
            row = connection.execute(query).fetchone()
            assert row is not None
            seen.append(row[0])


@pytest.fixture(params=["files", "s3"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Settings of one lake, also as the environment of processes that this test starts."""
    settings = {"db_url": postgres_url}
    environment = {
        "MOSAICOD_MAX_DB_CONNECTIONS": str(POOL),
        "MOSAICOD_CLEANUP_TIME_INTERVAL": "2",
        "MOSAICOD_CLEANUP_RETENTION_DURATION": "0",
        "LAKEHOUSE_SNAPSHOTS_TO_KEEP": "5",
        "LAKEHOUSE_SNAPSHOT_MIN_AGE": str(SNAPSHOT_MIN_AGE_S),
        "LAKEHOUSE_COMPACTION_MIN_FILES": "2",
    }
    if request.param == "s3":
        stored = store_settings(request, "s3")
        settings |= stored
        environment |= as_environment(stored)
    for name, value in {**environment, "MOSAICOD_DB_URL": postgres_url, "LAKEHOUSE_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.mark.slow
def test_several_of_everything_keep_every_promise(tmp_path: Path, postgres_url: str, settings: dict[str, str]) -> None:
    # A topic makes two or three files, so that there is something to compact.
    fleet = Fleet(lambda: GatewayProcess(tmp_path, postgres_url, MOSAICOD_MAX_CHUNK_SIZE_IN_BYTES="2048"))
    observer = Observer(tmp_path, settings, SNAPSHOT_MIN_AGE_S)
    other = "dagster_process" if "store_bucket" in settings else "busy_process"
    command = [sys.executable, "-m", f"tests.crash.{other}", str(BUSY_SECONDS)]
    busy = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE) for seed in (1, 2)]
    stopped, watched_enough, seen = threading.Event(), threading.Event(), list[int]()
    journals = [Journal() for _ in range(4)]
    failures: list[BaseException] = []

    def checked(work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    watcher = checked(watch_connections, postgres_url, watched_enough, seen)
    try:
        for process in busy:
            assert process.stdout is not None
            assert process.stdout.readline() == b"working\n"
        clients = [
            checked(client, fleet, number % 2, f"client-{number}", stopped, journal)
            for number, journal in enumerate(journals)
        ]
        watching = checked(observer.watch, stopped)
        time.sleep(random.Random(SEED).uniform(0.0, 2.0))
        fleet.kill_first()
        reports = [json.loads(process.communicate(timeout=480)[0]) for process in busy]
        assert [process.returncode for process in busy] == [0, 0]
        stopped.set()
        for thread in [*clients, watching]:
            thread.join()
        watched_enough.set()
        watcher.join()
        assert failures == []
        assert "dagster" not in other or sum(report["compacted"] for report in reports) > 0
        assert observer.instants > 1
        assert observer.most_sequences > 1
        # Nobody else is there days later: with their clocks, what they write right then would be old.
        fleet.stop()
        clean_up_days_later(tmp_path, settings)
        fleet.start()
        check(fleet.current(0), fleet.current(1), journals, reports, tmp_path, settings)
        observer.look_once().check()
    finally:
        stopped.set()
        watched_enough.set()
        for process in busy:
            process.kill()
        fleet.stop()
    # Two gateways, two processes, and for a moment what the killed gateway left behind; and the observer.
    assert max(seen) <= 5 * POOL + 1


def clean_up_days_later(home: Path, settings: dict[str, str]) -> None:
    """Whatever the storm left behind is old enough to go."""

    def clean(lake: Lakehouse, dry_run: bool = False) -> CleanupReport:
        def later() -> int:
            return time.time_ns() + DAYS_LATER_NS

        arguments = (lake.database, lake.table_files, lake.committer, lake.settings)
        report = run_cleanup_cycle(*arguments, dry_run, later)
        assert report is not None
        return report

    with Lakehouse.open(Settings.load(home=home, **settings)) as lake:
        assert clean(lake).orphans.purged > 0, "files of deleted sequences and of uploads that broke off"
        assert clean(lake, dry_run=True).orphans.orphans == 0


def check(
    one: GatewayProcess,
    other: GatewayProcess,
    journals: list[Journal],
    reports: list[dict[str, list[str]]],
    home: Path,
    settings: dict[str, str],
) -> None:
    finalized = set().union(*(journal.finalized for journal in journals), *(report["finalized"] for report in reports))
    deleted = set().union(*(journal.deleted for journal in journals), *(report["deleted"] for report in reports))
    perhaps_deleted = set().union(*(journal.perhaps_deleted for journal in journals))
    recordings = set().union(*(report.get("recordings", []) for report in reports))
    uploaded = {name: paths for journal in journals for name, paths in journal.uploaded.items()}
    assert len(finalized) >= 4 * 2

    names = [{info.descriptor.path[0].decode() for info in each.client.list_flights()} for each in (one, other)]
    assert names[0] == names[1]
    assert finalized <= names[0]
    assert deleted.isdisjoint(names[0])
    assert recordings <= names[0] <= finalized | recordings | perhaps_deleted | set(uploaded)
    for name in recordings:
        rows = [read(gateway, TopicLocator(name, "text")) for gateway in (one, other)]
        assert rows[0].num_rows == MESSAGES_PER_RECORDING
        assert rows[0].equals(rows[1])

    in_iceberg = rows_in_iceberg(home, settings)
    full_scan = {f"{name}/{path}" for (name, path), rows in in_iceberg.items() if pc.max(rows["x"]).as_py() > HIGH}
    for gateway in (one, other):
        found = gateway.action("query", ontology={f"{TAG}.x": {"$gt": HIGH}})
        assert found is not None
        locators = {topic["locator"] for item in found["items"] for topic in item["topics"]}
        # Queries find topics of open sessions too.
        assert full_scan <= locators <= full_scan | {f"{name}/{path}" for name in uploaded for path in TOPICS}
    for name in finalized | (perhaps_deleted & names[0]):
        for path, gateway in zip(TOPICS, (one, other), strict=True):
            expected = rows_of(name, path)
            assert in_iceberg.pop((name, path)).equals(expected)
            assert read(gateway, TopicLocator(name, path)).equals(expected)
    for name, paths in uploaded.items():
        # Its gateway died: acknowledged uploads are there, and SQL engines see all of the session or nothing.
        for path in paths:
            assert read(other, TopicLocator(name, path)).equals(rows_of(name, path))
        visible = {path for path in TOPICS if in_iceberg.pop((name, path), None) is not None}
        assert visible in (set(), set(TOPICS))
    assert in_iceberg == {}, "rows of deleted or unfinished sequences are visible"


def read(gateway: GatewayProcess, locator: TopicLocator) -> pa.Table:
    command = json.dumps({"resource_locator": str(locator)}).encode()
    info = gateway.client.get_flight_info(flight.FlightDescriptor.for_command(command))
    return gateway.client.do_get(info.endpoints[0].ticket).read_all().replace_schema_metadata(None)
