"""What is left, and what callers are told, when storage or database fail at the worst moment."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import Connection

from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import InvalidDataError, NotFoundError, StateError, StorageError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse
from tests.catalog.small_lake import ROWS, SmallLake, nothing

SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("value", pa.float64())])


class KeepingWarehouse(Warehouse):
    """A store that takes everything and gives nothing up."""

    def delete(self, uris: Iterable[str]) -> None:
        if list(uris):
            raise StorageError("a file of the warehouse could not be deleted: Permission denied")


class LosingDatabase(Database):
    """A database whose connection breaks when the commit has been carried out, but not yet confirmed."""

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as connection:
            yield connection
        raise StorageError("the database is not available or too busy")


@pytest.fixture
def keeping(tmp_path: Path, database_url: str) -> Iterator[Lakehouse]:
    settings = Settings.load(home=tmp_path, db_url=database_url, store_endpoint="")
    with Lakehouse.open(settings):
        pass
    with Lakehouse(settings, Database(database_url), KeepingWarehouse.open(settings)) as opened:
        yield opened


def begin(lakehouse: Lakehouse) -> tuple[TopicLocator, str]:
    lakehouse.sequences.create("drive", {})
    session = lakehouse.sessions.create("drive")
    locator = TopicLocator("drive", "imu")
    return locator, lakehouse.topics.create(session.uuid, locator, "default", "Floating64")


def rows(*times: int | None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(times, pa.int64()), pa.array([1.0] * len(times))], schema=SCHEMA)


def test_a_refusal_is_told_as_such_where_staged_files_cannot_be_removed(lake: SmallLake) -> None:
    table = lake.table()
    entry = lake.write(table, "drive")
    committer = Committer(lake.database, TableFiles(KeepingWarehouse.open(lake.settings)))

    def refuse(_connection: Connection) -> None:
        raise StateError("no")

    with pytest.raises(StateError, match="no"):
        committer.commit(lambda: CommitPlan([TableChange(table.identifier, add=[entry])], refuse))
    committer.close()


def test_a_deletion_is_done_where_files_cannot_be_removed(keeping: Lakehouse) -> None:
    locator, topic = begin(keeping)
    with keeping.topics.begin_upload(locator, topic, SCHEMA) as upload:
        upload.write(rows(1, 2))
        upload.finish()
    keeping.topics.delete(locator)
    with pytest.raises(NotFoundError):
        keeping.topics.get(locator)


def test_bad_rows_are_told_as_such_where_files_cannot_be_removed(keeping: Lakehouse) -> None:
    locator, topic = begin(keeping)
    with keeping.topics.begin_upload(locator, topic, SCHEMA) as upload:
        upload.write(rows(1, 2))
        with pytest.raises(InvalidDataError, match="timestamp_ns"):
            upload.write(rows(None))


def test_a_commit_whose_confirmation_is_lost_has_happened_all_the_same(lake: SmallLake, database_url: str) -> None:
    table = lake.table()
    losing = LosingDatabase(database_url)
    committer = Committer(losing, lake.files)
    change = TableChange(table.identifier, add=[lake.write(table, "drive")])
    committer.commit(lambda: CommitPlan([change], nothing))
    assert lake.stock_table(table.identifier).scan().to_arrow().num_rows == ROWS
    committer.close()
    losing.close()
