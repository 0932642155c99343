"""Transactions of the control-plane database."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import func, insert, select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.schema import leases


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, max_connections=4)
    migrate(opened)
    yield opened
    opened.close()


def write(database: Database, name: str) -> None:
    with database.transaction() as connection:
        connection.execute(insert(leases).values(name=name, owner="test", expires_at_ns=1))


def count(database: Database) -> int:
    with database.snapshot() as connection:
        return connection.scalar(select(func.count()).select_from(leases)) or 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_readers_are_served_however_many_writers_wait(database: Database) -> None:
    writers = [threading.Thread(target=write, args=(database, f"writer-{number}")) for number in range(20)]
    with database.transaction() as connection:
        connection.execute(insert(leases).values(name="first", owner="test", expires_at_ns=1))
        for writer in writers:
            writer.start()
        time.sleep(0.2)
        started = time.monotonic()
        assert count(database) == 0, "a snapshot shows what is committed"
        assert time.monotonic() - started < 5
    for writer in writers:
        writer.join()
    assert count(database) == 21
