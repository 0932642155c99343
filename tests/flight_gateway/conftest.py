"""A real gateway on a free port over an embedded lake, and three kinds of clients for it."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mosaicolabs import MosaicoClient
from pyarrow import flight

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.raw_client import RawClient
from tests.warehouses import store_settings

_numbers = itertools.count()


@dataclass(frozen=True)
class Served:
    """A running gateway with its lake."""

    lakehouse: Lakehouse
    port: int
    home: Path


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warehouse_kind: str
) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("lake")
    with Lakehouse.open(Settings.load(home=home, db_url="", **store_settings(request, warehouse_kind))) as lakehouse:
        gateway = Gateway(lakehouse, port=0)
        port = gateway.start()
        yield Served(lakehouse, port, home)
        gateway.stop(grace=2)


@pytest.fixture(scope="module")
def raw(served: Served) -> Iterator[RawClient]:
    client = RawClient(served.port)
    yield client
    client.close()


@pytest.fixture(scope="module")
def arrow(served: Served) -> Iterator[flight.FlightClient]:
    with flight.FlightClient(f"grpc://127.0.0.1:{served.port}") as client:
        yield client


@pytest.fixture(scope="module")
def sdk(served: Served) -> Iterator[MosaicoClient]:
    with MosaicoClient.connect("127.0.0.1", served.port) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A sequence name that no other test uses."""
    return f"drive-{os.getpid()}-{next(_numbers)}"
