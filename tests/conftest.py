"""Fixtures for all tests: both databases, each test with an empty one of its own."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_server import fresh_database, postgres_server
from tests.s3_server import S3Server, s3_server
from tests.warehouses import BY_DATABASE, store_settings

# Gateways that tests start would fight for the default port.
os.environ.setdefault("LAKEHOUSE_STATUS_PORT", "0")
# As docs/sql.md has it: Polars warns of a plugin that is missing otherwise.
os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
_numbers = itertools.count()

# Tests behind these markers share a server that is dear to start: one worker runs them all.
SHARED_SERVERS = ("spark", "trino", "browser")
# What takes longest starts first, so that no worker is left with it alone at the end.
STARTED_FIRST = ("spark", "trino", "browser", "slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order and group the tests for several workers."""
    for item in items:
        for server in SHARED_SERVERS:
            if item.get_closest_marker(server):
                item.add_marker(pytest.mark.xdist_group(server))
    items.sort(key=lambda item: next((i for i, name in enumerate(STARTED_FIRST) if item.get_closest_marker(name)), 9))


@pytest.fixture(scope="session")
def postgres_host() -> Iterator[str]:
    """Socket directory of a running PostgreSQL server."""
    with postgres_server() as host:
        yield host


@pytest.fixture
def postgres_url(postgres_host: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    with fresh_database(postgres_host, f"lake_{os.getpid()}_{next(_numbers)}") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'lakehouse.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A running S3 server; tests take a bucket of their own with `s3.new_bucket()`."""
    with s3_server() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Modules may say with `WAREHOUSES` which storage they run on (tests/warehouses.py); all others run on files."""
    kinds = getattr(metafunc.module, "WAREHOUSES", None)
    if any(mark.args[0] == "warehouse_kind" for mark in metafunc.definition.iter_markers("parametrize")):
        return  # the test says it for itself
    if kinds and kinds != BY_DATABASE and "warehouse_kind" in metafunc.fixturenames:
        metafunc.parametrize("warehouse_kind", kinds, scope="module")


@pytest.fixture(scope="module")
def warehouse_kind(request: pytest.FixtureRequest) -> str:
    """Which storage the lake is on: files, s3, or by the kind of database."""
    kinds: list[str] = getattr(request.module, "WAREHOUSES", ["files"])
    return kinds[0]


@pytest.fixture
def store(request: pytest.FixtureRequest, warehouse_kind: str) -> dict[str, str]:
    """Settings of an empty warehouse for one test."""
    return store_settings(request, warehouse_kind)
