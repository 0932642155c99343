"""Transactions of the control-plane database."""

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import func, insert, make_url, select

from lakehouse.catalog.control_plane.database import TRUSTED_WHEN_IDLE_S, Database
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
        assert count(database) == 0, "a snapshot shows what is committed"
        assert all(writer.is_alive() for writer in writers), "and waits for none of them"
    for writer in writers:
        writer.join()
    assert count(database) == 21


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_that_the_server_closed_while_they_were_idle_are_replaced(
    database: Database, database_url: str
) -> None:
    write(database, "before")
    threads = [threading.Thread(target=count, args=(database,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as administrator:
        administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    time.sleep(TRUSTED_WHEN_IDLE_S)
    write(database, "after")
    assert count(database) == 2
    assert database.connections()[0] == 0
