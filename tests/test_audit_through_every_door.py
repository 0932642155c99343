"""Whatever is done to the lake, through whichever door, is in the audit log: who, what, when, from where."""

import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import func, insert, select, update
from typer.testing import CliRunner

from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.actor import system_user
from lakehouse.catalog.audit import AuditEntry, latest_entries
from lakehouse.catalog.control_plane.schema import audit_log, sessions
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance import worker
from lakehouse.catalog.records import SessionRecord, SessionState
from lakehouse.catalog.settings import Settings
from lakehouse.cli.main import app
from lakehouse.flight_gateway.authorizer import KeyRequired
from lakehouse.flight_gateway.server import Gateway
from lakehouse.orchestration.definitions import defs
from tests.catalog.scattered_lake import ScatteredLake, in_order
from tests.flight_gateway.raw_client import RawClient
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap

GATEWAY, DAGSTER, BACKGROUND = "gateway", "dagster", "background"
ENVIRONMENT = {
    "MOSAICOD_DB_URL": "",
    "MOSAICOD_STORE_ENDPOINT": "",
    # Whatever may go goes at once.
    "MOSAICOD_CLEANUP_RETENTION_DURATION": "0",
    "LAKEHOUSE_SNAPSHOT_MIN_AGE": "0",
    "LAKEHOUSE_SNAPSHOTS_TO_KEEP": "2",
    "LAKEHOUSE_COMPACTION_MIN_FILES": "2",
    "LAKEHOUSE_STALE_SESSION_POLICY": "discard",
    "LAKEHOUSE_DAGSTER_URL": "",
}


class Doors:
    """One lake behind all of its doors.

    Attributes:
        lake: Makes ready what is then done something to.
        name: Of a sequence that nobody else uses; each test has one.
        who: Came through the door last.
    """

    def __init__(self, lake: ScatteredLake, home: Path, client: RawClient, key: str) -> None:
        self.lake = lake
        self.home = home
        self.name = ""
        self.who = ""
        self._client, self._key = client, key

    def recorded(self) -> str:
        """A finalized sequence with several small files and snapshots; returns its name."""
        self.lake.store(self.name, in_order(count=8))
        return self.name

    def deleted_again(self) -> None:
        """Commits enough for snapshots to expire."""
        for _ in range(2):
            self.lake.lakehouse.sequences.delete(self.recorded())

    def begun(self) -> SessionRecord:
        """A session whose topic is uploaded."""
        session = self.lake.begin(self.name)
        self.lake.upload(session, in_order(count=1))
        return session

    def set_aside(self) -> SessionRecord:
        session = self.begun()
        self.lake.lakehouse.quarantine.put(session.locator, "too loud")
        return session

    def change(self, session: SessionRecord, **values: Any) -> None:
        with self.lake.lakehouse.database.transaction() as connection:
            connection.execute(update(sessions).where(sessions.c.uuid == session.uuid).values(values))

    def call(self, action: str, **fields: Any) -> None:
        self.who = f"key {self._key[-8:]}"
        self._client.action(action, **fields)

    def command(self, *arguments: str) -> str:
        self.who = system_user()
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def run(self, job: str, op: str, **config: Any) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            result = defs.resolve_job_def(job).execute_in_process(
                run_config={"ops": {op: {"config": config}}}, instance=instance
            )
        self.who = f"dagster run {result.run_id}"

    def in_background(self, operation: str, cleanup_time_interval: int = 0) -> None:
        """Let the worker of a gateway work until it has entered an operation."""
        self.who = "maintenance"
        lakehouse = self.lake.lakehouse
        settings = Settings.load().model_copy(update={"cleanup_time_interval": cleanup_time_interval})
        before = self.last_id()
        thread = worker.MaintenanceWorker(lakehouse.database, lakehouse.table_files, lakehouse.committer, settings)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not any(entry.operation == operation for entry in self.entries(before)):
                assert time.monotonic() < deadline, f"no {operation}"
                time.sleep(0.05)
        finally:
            thread.stop()

    def last_id(self) -> int:
        with self.lake.lakehouse.database.snapshot() as connection:
            return connection.scalar(select(func.max(audit_log.c.id))) or 0

    def entries(self, after_id: int) -> list[AuditEntry]:
        with self.lake.lakehouse.database.snapshot() as connection:
            return [entry for entry in latest_entries(connection, limit=1000) if entry.id > after_id]


@pytest.fixture(scope="module")
def opened_doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    home = tmp_path_factory.mktemp("lake")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "LAKEHOUSE_HOME": str(home)}.items():
            patch.setenv(name, value)
        for pause in ("SETTLING_PAUSE_S", "BUSY_PAUSE_S", "SHORTEST_PURGE_INTERVAL_S"):
            patch.setattr(worker, pause, 0.1)
        with Lakehouse.open(Settings.load()) as behind, ScatteredLake(home) as lake:
            gateway = Gateway(behind, port=0, authorizer=KeyRequired(behind.api_keys))
            token, _ = behind.api_keys.create(parse_permissions("manage", exact=False))
            client = RawClient(gateway.start(), token.reveal())
            yield Doors(lake, home, client, token.reveal())
            client.close()
            gateway.stop(grace=2)


_numbers = itertools.count()


@pytest.fixture
def doors(opened_doors: Doors) -> Doors:
    opened_doors.name = f"drive-{next(_numbers)}"
    return opened_doors


# Each does one thing through one door, and returns to what.


def finalizes(doors: Doors) -> str:
    session = doors.begun()
    doors.call("session_finalize", session_uuid=session.uuid)
    return str(session.locator)


def deletes_the_session(doors: Doors) -> str:
    session = doors.begun()
    doors.call("session_delete", locator=str(session.locator))
    return str(session.locator)


def deletes_the_topic(doors: Doors) -> str:
    locator = f"{doors.recorded()}/front"
    doors.call("topic_delete", locator=locator)
    return locator


def deletes_the_sequence(doors: Doors) -> str:
    doors.call("sequence_delete", locator=doors.recorded())
    return doors.name


def purges_notifications(doors: Doors) -> str:
    doors.lake.lakehouse.notifications.create(doors.recorded(), "error", "bad")
    doors.call("sequence_notification_purge", locator=doors.name)
    return doors.name


def ingests(doors: Doors) -> str:
    doors.command("ingest", str(recording(doors)))
    return f"{doors.name}:.*"


def creates_a_key(doors: Doors) -> str:
    return doors.command("api-key", "create").strip()[-8:]


def revokes_a_key(doors: Doors) -> str:
    token, _ = doors.lake.lakehouse.api_keys.create(parse_permissions("read"))
    doors.command("api-key", "revoke", token.fingerprint)
    return token.fingerprint


def purges_keys(doors: Doors) -> str:
    token, _ = doors.lake.lakehouse.api_keys.create(parse_permissions("read"), expires_at_ns=1)
    doors.command("api-key", "purge")
    return token.fingerprint


def compacts(doors: Doors) -> str:
    doors.recorded()
    doors.command("compact")
    return "scattered.front"


def compacts_and_expires(doors: Doors) -> str:
    doors.deleted_again()
    compacts(doors)
    return "lake"


def cleans_up(doors: Doors) -> str:
    doors.deleted_again()
    doors.command("cleanup")
    return "lake"


def retains(doors: Doors) -> str:
    policy(doors)
    doors.command("retention")
    return doors.name


def releases(doors: Doors) -> str:
    session = doors.set_aside()
    doors.command("contracts", "release", str(session.locator))
    return str(session.locator)


def discards(doors: Doors) -> str:
    session = doors.set_aside()
    doors.command("contracts", "discard", str(session.locator))
    return str(session.locator)


def rebuilds(doors: Doors) -> str:
    doors.recorded()
    doors.command("rebuild", "--add-missing")
    return "lake"


def runs_ingestion(doors: Doors) -> str:
    doors.run("ingest_files", "ingest_each_file", files=[str(recording(doors))])
    return f"{doors.name}:.*"


def runs_compaction(doors: Doors) -> str:
    doors.recorded()
    doors.run("compaction", "compact")
    return "scattered.front"


def runs_cleanup(doors: Doors) -> str:
    doors.deleted_again()
    doors.run("cleanup", "clean_up")
    return "lake"


def runs_retention(doors: Doors) -> str:
    policy(doors)
    doors.run("retention", "retain")
    return doors.name


def runs_care_for_the_log(doors: Doors) -> str:
    old_entry(doors)
    doors.run("audit_log_care", "care_for_audit_log")
    return "mosaico.audit_log"


def runs_recovery_of_what_was_interrupted(doors: Doors) -> str:
    session = doors.begun()
    doors.change(session, state=SessionState.COMMITTING, completed_at_ns=time.time_ns())
    doors.run("recover_sessions", "end_unfinished_sessions")
    return str(session.locator)


def runs_recovery_of_what_is_stale(doors: Doors) -> str:
    session = doors.lake.begin(doors.name)
    doors.change(session, created_at_ns=0)
    doors.run("recover_sessions", "end_unfinished_sessions")
    return str(session.locator)


def runs_release(doors: Doors) -> str:
    session = doors.set_aside()
    doors.run("release_sessions", "commit_in_spite_of_contracts", sessions=[str(session.locator)])
    return str(session.locator)


def runs_discarding(doors: Doors) -> str:
    session = doors.set_aside()
    doors.run("discard_sessions", "delete_from_quarantine", sessions=[str(session.locator)])
    return str(session.locator)


def lets_snapshots_expire(doors: Doors) -> str:
    doors.deleted_again()
    doors.in_background("snapshot_expiry")
    return "lake"


def lets_metadata_be_purged(doors: Doors) -> str:
    doors.deleted_again()
    doors.in_background("metadata_purge")
    return "lake"


def lets_a_cycle_run(doors: Doors) -> str:
    doors.deleted_again()
    doors.in_background("cleanup", cleanup_time_interval=1)
    return "lake"


def lets_the_log_be_purged(doors: Doors) -> str:
    old_entry(doors)
    doors.in_background("audit_purge", cleanup_time_interval=1)
    return "mosaico.audit_log"


def recording(doors: Doors) -> Path:
    return write_mcap(doors.home / f"{doors.name}.mcap", [string_channel("/text", texts(3, prefix=doors.name))])


def policy(doors: Doors) -> None:
    text = f"policies:\n  - {{name: one, sequences: {doors.recorded()}, max_bytes: 0 B}}\n"
    (doors.home / "retention.yaml").write_text(text)


def old_entry(doors: Doors) -> None:
    values = {"at_ns": 1, "operation": "x", "resource": "x", "actor": "x", "door": "", "origin": "", "details": "{}"}
    with doors.lake.lakehouse.database.transaction() as connection:
        connection.execute(insert(audit_log).values(values))


@dataclass(frozen=True)
class Row:
    """An operation through a door, how it is done, and how its actor is written."""

    operation: str
    door: str
    do: Callable[[Doors], str]
    actor: str = "{who}"

    def __str__(self) -> str:
        return f"{self.do.__name__}"


FOR_POLICY, FOR_RECOVERY = "{who}, retention policy 'one'", "recovery, for {who}"
BY_OPERATOR = "operator, in {who}"
# What entries tell of how much there was.
FIGURES = {
    "session_finalize": "topics",
    "topic_delete": "topics",
    "sequence_delete": "topics",
    "compaction": "files_before",
    "snapshot_expiry": "expired_snapshots",
    "metadata_purge": "purged_metadata_files",
    "cleanup": "expired_snapshots",
    "audit_purge": "entries",
    "rebuild": "tables",
}
TABLE = [
    Row("session_finalize", GATEWAY, finalizes),
    Row("session_delete", GATEWAY, deletes_the_session),
    Row("topic_delete", GATEWAY, deletes_the_topic),
    Row("sequence_delete", GATEWAY, deletes_the_sequence),
    Row("notification_purge", GATEWAY, purges_notifications),
    Row("session_finalize", "lakehouse ingest", ingests),
    Row("api_key_create", "lakehouse api-key", creates_a_key),
    Row("api_key_revoke", "lakehouse api-key", revokes_a_key),
    Row("api_key_purge", "lakehouse api-key", purges_keys),
    Row("compaction", "lakehouse compact", compacts),
    Row("snapshot_expiry", "lakehouse compact", compacts_and_expires),
    Row("cleanup", "lakehouse cleanup", cleans_up),
    Row("sequence_delete", "lakehouse retention", retains, FOR_POLICY),
    Row("session_release", "lakehouse contracts", releases),
    Row("session_delete", "lakehouse contracts", discards),
    Row("rebuild", "lakehouse rebuild", rebuilds),
    Row("session_finalize", DAGSTER, runs_ingestion),
    Row("compaction", DAGSTER, runs_compaction),
    Row("cleanup", DAGSTER, runs_cleanup),
    Row("sequence_delete", DAGSTER, runs_retention, FOR_POLICY),
    Row("audit_purge", DAGSTER, runs_care_for_the_log),
    Row("session_finalize", DAGSTER, runs_recovery_of_what_was_interrupted, FOR_RECOVERY),
    Row("session_delete", DAGSTER, runs_recovery_of_what_is_stale, FOR_RECOVERY),
    Row("session_release", DAGSTER, runs_release, BY_OPERATOR),
    Row("session_delete", DAGSTER, runs_discarding, BY_OPERATOR),
    Row("snapshot_expiry", BACKGROUND, lets_snapshots_expire),
    Row("metadata_purge", BACKGROUND, lets_metadata_be_purged),
    Row("cleanup", BACKGROUND, lets_a_cycle_run),
    Row("audit_purge", BACKGROUND, lets_the_log_be_purged),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_what_is_done_is_entered_once(doors: Doors, row: Row) -> None:
    last_id, begun_ns = doors.last_id(), time.time_ns()
    resource = row.do(doors)
    found = [entry for entry in doors.entries(last_id) if (entry.operation, entry.door) == (row.operation, row.door)]
    entry = found[-1]
    assert len(found) == 1 or row.door == BACKGROUND
    assert re.fullmatch(resource, entry.resource)
    assert entry.actor == row.actor.format(who=doors.who)
    figure = FIGURES.get(row.operation)
    assert figure is None or figure in entry.details
    assert begun_ns <= entry.at_ns <= time.time_ns()
    if row.door == GATEWAY:
        assert re.fullmatch(r"ipv4:127\.0\.0\.1(:|%3A)\d+", entry.origin)
    else:
        assert entry.origin == socket.gethostname()
