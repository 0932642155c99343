"""The database is gone: everything finalized comes back from the warehouse alone, and clients cannot tell."""

import signal
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import ConfigurationError, StateError
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.rebuild.rebuild import REBUILD_LEASE, RebuildReport, rebuild
from lakehouse.catalog.settings import Settings
from lakehouse.cli.main import app
from tests.catalog.small_lake import child_environment
from tests.flight_gateway.raw_client import PLAIN_SCHEMA, plain_batch
from tests.forked import ForkedProgram
from tests.rebuild.visible import QUERIES, differences, served, settings_of, visible
from tests.warehouses import BY_DATABASE, environment, store_settings

WAREHOUSES = BY_DATABASE
ROOF = {"place": "roof", "calibration": {"bias": [0.5, 1]}}


def record(lakehouse: Lakehouse, sequence: str, *paths: str, finalize: bool = True) -> None:
    """A session with a topic per path, four rows each, but none in a topic called `empty`."""
    session = lakehouse.sessions.create(sequence)
    for path in paths:
        locator = TopicLocator(sequence, path)
        topic = lakehouse.topics.create(session.uuid, locator, "default", "Plain", ROOF)
        with lakehouse.topics.begin_upload(locator, topic, PLAIN_SCHEMA) as upload:
            if path != "empty":
                upload.write(plain_batch(1, 2, 3, 3))
            upload.finish()
    if finalize:
        lakehouse.sessions.finalize(session.uuid)


def lose_database(settings: Settings, database: Database) -> None:
    """All tables of the database disappear, as if it had been created a moment ago."""
    database.close()
    if database.is_sqlite:
        for file in settings.home.glob("lakehouse.db*"):
            file.unlink()
        return
    with Database(database.url).transaction() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))


def restore(settings: Settings, *, add_missing: bool = False, dry_run: bool = False) -> RebuildReport:
    with Lakehouse.open(settings, may_be_lost=True) as lake:
        return rebuild(lake.database, lake.table_files, add_missing=add_missing, dry_run=dry_run)


def test_clients_cannot_tell_a_rebuilt_lake_from_the_one_that_was_lost(
    tmp_path: Path, database_url: str, store: dict[str, str]
) -> None:
    settings = settings_of(tmp_path, database_url, store)
    with served(settings) as (lakehouse, port):
        lakehouse.sequences.create(
            "drive", {"driver": {"name": "ann"}, "note": "\u00fc\ud83d\x00", "tags": [1, None, 2.5]}
        )
        record(lakehouse, "drive", "imu/front", "empty", "gps")
        record(lakehouse, "drive", "imu/rear")
        lakehouse.sequences.create("walk", {})
        record(lakehouse, "walk", "imu/front")
        record(lakehouse, "walk", "gone")
        lakehouse.sequences.create("deleted", {})
        record(lakehouse, "deleted", "imu/front")
        lakehouse.sequences.delete("deleted")
        lakehouse.topics.delete(TopicLocator("walk", "gone"))
        for resource in ("drive", TopicLocator("drive", "gps"), TopicLocator("walk", "imu/front")):
            lakehouse.notifications.create(resource, "error", f"about {resource}")
            lakehouse.notifications.create(resource, "error", "again")
        lakehouse.notifications.purge(TopicLocator("walk", "imu/front"))
        lakehouse.maintenance.run_pending()
        before = visible(port)
        assert all(before[f"query {number}"]["items"] for number in range(len(QUERIES)))
        database = lakehouse.database
    lose_database(settings, database)
    with pytest.raises(ConfigurationError, match="lakehouse rebuild"):
        Lakehouse.open(settings)
    foreseen = restore(settings, dry_run=True)
    with pytest.raises(ConfigurationError, match="lakehouse rebuild"):
        Lakehouse.open(settings)
    report = restore(settings)
    assert (report.tables, report.rows, report.undone) == (foreseen.tables, foreseen.rows, [])
    assert (report.rows.sequences, report.rows.sessions, report.rows.topics) == (2, 4, 5)
    assert report.rows.notifications == 4
    with served(settings) as (lakehouse, port):
        assert differences(before, visible(port)) == []
        # And it goes on: the next layer, a deletion, a name used again.
        record(lakehouse, "drive", "later")
        lakehouse.sequences.delete("walk")
        lakehouse.sequences.create("walk", {})
        record(lakehouse, "walk", "imu/front")
        assert len(visible(port)["rows walk/imu/front"]) == 4


def test_a_rebuild_leaves_what_is_there_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    with served(settings) as (lakehouse, port):
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b")
        lakehouse.notifications.create("drive", "error", "a note")
        record(lakehouse, "drive", "open", finalize=False)
        before = visible(port)
    with pytest.raises(StateError, match="not empty"):
        restore(settings)
    # A drill shows what would come back; asked for what is missing, it says nothing is.
    drill = restore(settings, dry_run=True)
    assert (drill.tables, drill.rows.sequences, drill.rows.sessions, drill.rows.topics) == (7, 1, 1, 2)
    assert restore(settings, add_missing=True, dry_run=True).tables == 0
    report = restore(settings, add_missing=True)
    assert (report.tables, report.rows.sequences, report.rows.sessions, report.rows.topics) == (0, 0, 0, 0)
    with served(settings) as (lakehouse, port):
        assert differences(before, visible(port)) == []
        # A topic that only the control plane lost comes back with its session.
        with lakehouse.database.transaction() as connection:
            connection.execute(text("DELETE FROM sessions WHERE state = 'finalized'"))
    assert restore(settings, add_missing=True).rows.topics == 2
    with served(settings) as (_, port):
        assert visible(port)["rows drive/a"].num_rows == 4


def test_one_process_rebuilds_at_a_time(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    with Lakehouse.open(settings) as lake:
        other = Lease(lake.database, REBUILD_LEASE)
        assert other.hold()
        with pytest.raises(StateError, match="another process"):
            rebuild(lake.database, lake.table_files)


def test_the_command_reports_what_it_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))
    settings = Settings.load(home=tmp_path)
    with Lakehouse.open(settings) as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b")
        database = lakehouse.database
    lose_database(settings, database)
    refused = CliRunner().invoke(app, ["sequences"])
    assert isinstance(refused.exception, ConfigurationError)
    foreseen = CliRunner().invoke(app, ["rebuild", "--dry-run"])
    assert "would be restored:\n  tables: 6\n  sequences: 1\n" in foreseen.stdout
    assert "topics: 2" in CliRunner().invoke(app, ["rebuild"]).stdout
    assert "drive" in CliRunner().invoke(app, ["sequences"]).stdout


# What is killed, on which storage and where, and whether the commit comes back; None: either is right, if it is whole.
STEPS: dict[tuple[str, str], dict[str, bool | None]] = {
    ("finalize", "files"): {"manifest-write:after:3": False, "metadata-write:after:4": False, "commit:after": True},
    ("finalize", "s3"): {"pointer-swap:after": None},
    ("delete", "s3"): {"metadata-write:after": False, "commit:after": True},
}


def killed_at(step: str, settings: Settings, store: dict[str, str], command: str, sequence: str) -> None:
    own = {"LAKEHOUSE_HOME": str(settings.home), "MOSAICOD_DB_URL": settings.db_url, **environment(store)}
    variables = {**child_environment(step), **own}
    process = ForkedProgram("tests.rebuild.finalizing_process", command, sequence, environment=variables)
    assert process.wait(120) == -signal.SIGKILL, f"{step} was not reached"


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind"), STEPS)
def test_a_commit_cut_off_by_a_crash_comes_back_wholly_or_not_at_all(
    tmp_path: Path, request: pytest.FixtureRequest, command: str, kind: str
) -> None:
    store = store_settings(request, kind)
    settings = settings_of(tmp_path, f"sqlite:///{tmp_path / 'lakehouse.db'}", store)
    with served(settings) as (lakehouse, port):
        lakehouse.sequences.create("witness", {"driver": {"name": "ann"}})
        record(lakehouse, "witness", "a", "b", "c")
        witness = {asked: seen for asked, seen in visible(port).items() if " witness" in asked}
        database = lakehouse.database
    for number, (step, comes_back) in enumerate(STEPS[command, kind].items()):
        name = f"drive-{number}"
        with Lakehouse.open(settings) as lakehouse:
            lakehouse.sequences.create(name, {})
            record(lakehouse, name, "a", "b", "c", finalize=command == "delete")
        killed_at(step, settings, store, command, name)
        lose_database(settings, database)
        restore(settings)
        with served(settings) as (lakehouse, port):
            seen = visible(port)
            assert differences(witness, {asked: seen[asked] for asked in witness}) == []
            is_there = name in seen["names"]
            if comes_back is not None:
                assert is_there == (comes_back if command == "finalize" else not comes_back)
            rows = [seen.get(f"rows {name}/{path}") for path in "abc"]
            assert [table and table.num_rows for table in rows] == ([4] * 3 if is_there else [None] * 3)
            with lakehouse.database.snapshot() as connection:
                pointers = read_pointers(connection)
            for path in "abc":
                table = lakehouse.table_files.document(pointers[f"plain.{path}"])
                assert table.current_snapshot is not None
                assert int(table.current_snapshot["summary"]["total-records"]) == 4 * len(seen["names"])
            database = lakehouse.database
