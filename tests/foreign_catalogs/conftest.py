"""Two catalog servers of different kinds, started once, when the first test needs them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign_catalogs.foreign_lake import ForeignLake
from tests.nessie_server import NessieServer, nessie_server
from tests.reference_catalog_server import ReferenceCatalogServer, reference_catalog_server
from tests.rest_catalog_server import RestCatalogServer
from tests.s3_server import S3Server


@pytest.fixture(scope="session")
def nessie(s3: S3Server) -> Iterator[NessieServer]:
    with nessie_server(s3) as running:
        yield running


@pytest.fixture(scope="session")
def reference(s3: S3Server) -> Iterator[ReferenceCatalogServer]:
    with reference_catalog_server(s3) as running:
        yield running


def _server(request: pytest.FixtureRequest, name: str) -> RestCatalogServer:
    server: RestCatalogServer = request.getfixturevalue(name)
    return server


@pytest.fixture(params=["nessie-together", "reference-postgresql"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> ForeignLake:
    """A lake on each server, both ways to commit, both databases beside the catalog.

    Tests may name others: a server, `together` for commits to several tables in one request, the database.
    """
    name, *options = request.param.split("-")
    url = request.getfixturevalue("postgres_url") if "postgresql" in options else ""
    return ForeignLake(_server(request, name), tmp_path, "together" in options, url)


@pytest.fixture(params=["nessie", "reference"])
def one_by_one(request: pytest.FixtureRequest, tmp_path: Path) -> ForeignLake:
    """A lake on each server that commits to one table after the other."""
    return ForeignLake(_server(request, request.param), tmp_path, together=False)


@pytest.fixture
def on_nessie(nessie: NessieServer, tmp_path: Path) -> ForeignLake:
    """The same on the server that asks for access."""
    return ForeignLake(nessie, tmp_path, together=False)


@pytest.fixture
def on_reference(reference: ReferenceCatalogServer, tmp_path: Path) -> ForeignLake:
    """The same on the server whose tables keep their snapshots and tags."""
    return ForeignLake(reference, tmp_path, together=False)
