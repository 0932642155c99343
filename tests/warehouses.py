"""The two kinds of storage that a lake can be on.

A module of tests that runs on both says so: `WAREHOUSES = BOTH` runs each test twice; `WAREHOUSES = BY_DATABASE` pairs
storage with the database that a test has anyway, SQLite with files and PostgreSQL with S3, which costs no second run.
In other modules `@on_both_kinds` runs one test of many on both; in these, `@only_on_files` spares a test that has
nothing to do with storage.
"""

import polars as pl
import pytest
from pyiceberg.table import Table

from lakehouse.catalog.settings import Settings
from tests.s3_server import S3Server

BOTH = ["files", "s3"]
BY_DATABASE = ["by_database"]
on_both_kinds = pytest.mark.parametrize("warehouse_kind", BOTH)
only_on_files = pytest.mark.parametrize("warehouse_kind", ["files"], scope="module")


def store_settings(request: pytest.FixtureRequest, kind: str) -> dict[str, str]:
    """Settings, by the names of `Settings`, of an empty warehouse: in the home, or a new bucket of a real S3 server."""
    if kind == "by_database":
        kind = "s3" if request.getfixturevalue("database_url").startswith("postgresql") else "files"
    if kind == "files":
        return {"store_endpoint": ""}
    server: S3Server = request.getfixturevalue("s3")
    return server.settings(server.new_bucket())


def environment(settings: dict[str, str]) -> dict[str, str]:
    """The same settings as environment variables."""
    return {str(Settings.model_fields[name].validation_alias): value for name, value in settings.items()}


def scan_iceberg(table: Table, snapshot_id: int | None = None) -> pl.LazyFrame:
    """A table in Polars, which asks AWS where the bucket is unless it is told here, whatever the catalog says."""
    told = {name: value for name, value in table.io.properties.items() if name.startswith("s3.")}
    return pl.scan_iceberg(table, snapshot_id=snapshot_id, storage_options=told or None)
