"""Databases of earlier versions are brought up to date with what is in them."""

import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, insert, inspect, select

import lakehouse.catalog.control_plane as control_plane
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import VERSION_TABLE, migrate
from lakehouse.catalog.control_plane.rows import schema_digest
from lakehouse.catalog.control_plane.schema import metadata, topics
from lakehouse.catalog.query.candidates import find_candidates
from lakehouse.catalog.query.grammar import parse_query

OUTSIDE_OF_MIGRATIONS = {VERSION_TABLE, "iceberg_tables", "iceberg_namespace_properties"}


def bring_to(connection: Connection, revision: str, *, backwards: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(control_plane.__path__[0]) / "migrations"))
    config.attributes["connection"] = connection
    (command.downgrade if backwards else command.upgrade)(config, revision)


def fill_first_schema(connection: Connection) -> None:
    """A sequence with a topic, as the first version wrote them."""
    reflected = MetaData()
    tables = {name: Table(name, reflected, autoload_with=connection) for name in ("sequences", "sessions", "topics")}
    common: dict[str, Any] = {"created_at_ns": 1, "user_metadata": json.dumps({"weather": {"kind": "rain"}})}
    connection.execute(insert(tables["sequences"]).values(id=7, name="old", **common))
    ids = {"uuid": "u", "public_uuid": "p", "ulid": "l"}
    connection.execute(
        insert(tables["sessions"]).values(id=8, sequence_id=7, state="finalized", created_at_ns=1, **ids)
    )
    common |= {"uuid": "t", "ontology_tag": "IMU", "serialization_format": "default", "state": "finalized"}
    uploaded = {"arrow_schema": b"schema", "table_identifier": "imu.a"}
    connection.execute(
        insert(tables["topics"]).values(id=9, sequence_id=7, session_id=8, path="a", **common, **uploaded)
    )
    common |= {"uuid": "e", "state": "empty"}
    connection.execute(insert(tables["topics"]).values(id=10, sequence_id=7, session_id=8, path="b", **common))


def test_the_migrations_lead_to_the_schema_of_this_version(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        differences = [
            each
            for each in compare_metadata(context, metadata)
            if not (each[0] == "remove_table" and each[1].name in OUTSIDE_OF_MIGRATIONS)
            # PostgreSQL has two indexes more, on expressions.
            and not (each[0] == "remove_index" and each[1].name.endswith("_c"))
        ]
    database.close()
    assert differences == []


def test_what_an_earlier_version_wrote_is_found_by_queries(database_url: str) -> None:
    database = Database(database_url)
    with database.transaction() as connection:
        bring_to(connection, "0001")
        fill_first_schema(connection)
    migrate(database)
    for section in ("sequence", "topic"):
        with database.snapshot() as connection:
            query = parse_query({section: {"user_metadata": {"weather.kind": {"$eq": "rain"}}}})
            assert {each.path for each in find_candidates(connection, query)} == {"a", "b"}
    with database.snapshot() as connection:
        digests = {row.path: row.arrow_schema_digest for row in connection.execute(select(topics))}
    assert digests == {"a": schema_digest(b"schema"), "b": ""}
    database.close()


@pytest.mark.parametrize("revision", ["0001", "base"])
def test_every_migration_can_be_undone(database_url: str, revision: str) -> None:
    database = Database(database_url)
    with database.transaction() as connection:
        bring_to(connection, "0001")
        fill_first_schema(connection)
        bring_to(connection, "head")
    with database.transaction() as connection:
        bring_to(connection, revision, backwards=True)
        remaining = set(inspect(connection).get_table_names()) - OUTSIDE_OF_MIGRATIONS
    assert ("sequences" in remaining) == (revision == "0001")
    assert "metadata_paths" not in remaining
    database.close()
