"""Lakes behind a gateway, with recordings that have something of everything: on files, on S3, in a REST catalog."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
from pyiceberg.catalog import Catalog

from engines.lake import LakeLocation
from lakehouse.catalog.iceberg.catalogs import open_pyiceberg_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.server import Gateway
from tests.postgres_server import fresh_database, postgres_server
from tests.processes import free_port
from tests.rest_catalog_server import RestCatalogServer
from tests.s3_server import S3Server

NOON_NS = 1_773_489_600_000_000_000  # 2026-03-14T12:00:00Z
DAY_NS = 86_400 * 10**9
ROWS = 200
VECTOR = pa.struct([("x", pa.float64()), ("y", pa.float64()), ("z", pa.float64())])
IMU = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("acceleration", VECTOR),
        pa.field("temperature", pa.float32()),
    ]
)
POINT = pa.struct([("name", pa.string()), ("weight", pa.uint8())])
ODD = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("tiny", pa.uint8()),
        pa.field("wide", pa.uint32()),
        pa.field("huge", pa.uint64()),
        pa.field("half", pa.float16()),
        pa.field("flag", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("blob", pa.binary()),
        pa.field("numbers", pa.list_(pa.float32())),
        pa.field("points", pa.list_(POINT)),
        pa.field("state", pa.struct([("code", pa.int16()), ("inner", pa.struct([("level", pa.float64())]))])),
    ]
)
_numbers = itertools.count()


@dataclass(frozen=True)
class SharedLake:
    """What tests of other engines work on.

    Attributes:
        lakehouse: For uploads and maintenance.
        client: Talks to the gateway, as the SDK does underneath.
        settings: Of the lake.
    """

    lakehouse: Lakehouse
    client: flight.FlightClient
    settings: Settings

    @property
    def location(self) -> LakeLocation:
        """The lake in the words of the engines."""
        return LakeLocation.from_settings(self.settings)

    def write(self, sequence: str, topics: dict[str, tuple[str, pa.RecordBatch]], *, finalize: bool = True) -> Any:
        """Record a sequence: tag and rows by topic path. Returns the session."""
        batches = {path: (tag, [rows]) for path, (tag, rows) in topics.items()}
        return self.write_batches(sequence, batches, finalize=finalize)

    def write_batches(
        self, sequence: str, topics: dict[str, tuple[str, list[pa.RecordBatch]]], *, finalize: bool = True
    ) -> Any:
        """The same of topics that come in several batches."""
        lake = self.lakehouse
        lake.sequences.create(sequence, {"vehicle": sequence.partition("_")[0], "run": len(topics)})
        session = lake.sessions.create(sequence)
        for path, (tag, batches) in topics.items():
            locator = TopicLocator(sequence, path)
            topic = lake.topics.create(session.uuid, locator, "default", tag)
            with lake.topics.begin_upload(locator, topic, batches[0].schema) as upload:
                for batch in batches:
                    upload.write(batch)
                upload.finish()
        if finalize:
            lake.sessions.finalize(session.uuid)
        return session

    def read(self, sequence: str, path: str) -> pa.Table:
        """A topic as clients get it."""
        command = f'{{"resource_locator":"{sequence}/{path}"}}'.encode()
        info = self.client.get_flight_info(flight.FlightDescriptor.for_command(command))
        return self.client.do_get(info.endpoints[0].ticket).read_all()

    def find(self, tag_path: str, operator: str, value: float | list[float]) -> set[str]:
        """Sequences with a row that meets a condition, as clients ask for them."""
        found = self.lakehouse.query({"ontology": {tag_path: {operator: value}}})
        return {match.name for match in found}

    @contextlib.contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog in PyIceberg."""
        lake = self.lakehouse
        catalog = open_pyiceberg_catalog(lake.settings, lake.warehouse, lake.database)
        try:
            yield catalog
        finally:
            catalog.close()


def imu_rows(start_ns: int, y: float, rows: int = ROWS) -> pa.RecordBatch:
    """Acceleration whose y rises by one over the rows; temperature is missing every third time."""
    times = start_ns + np.arange(rows) * 5_000_000
    index = np.arange(rows)
    acceleration = pa.StructArray.from_arrays(
        [pa.array(index * 0.5), pa.array(y + index / rows), pa.array(np.full(rows, 9.81))], fields=list(VECTOR)
    )
    temperature = pa.array(index.astype(np.float32), mask=index % 3 == 0)
    return pa.record_batch([pa.array(times), acceleration, temperature], schema=IMU)


def odd_rows(start_ns: int) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = [
        {
            "tiny": 255,
            "wide": 2**32 - 1,
            "huge": 2**64 - 1,
            "half": np.float16(0.5),
            "flag": True,
            "text": "größe \U0001f697",
            "blob": b"\x00\xff",
            "numbers": [1.5, None, -2.0],
            "points": [{"name": "a", "weight": 200}, {"name": None, "weight": None}],
            "state": {"code": -5, "inner": {"level": 1.25}},
        },
        {"numbers": [], "points": [], "state": {"code": None, "inner": None}, "text": "", "blob": b""},
        {},
    ]
    for number, row in enumerate(rows):
        row["timestamp_ns"] = start_ns + number * 1_000
    return pa.RecordBatch.from_pylist(rows, schema=ODD)


def fresh_name(prefix: str) -> str:
    """A name that no other test of this process or another uses."""
    return f"{prefix}_{os.getpid()}_{next(_numbers)}"


def plain(value: Any) -> Any:
    """A value in a form that all engines and Arrow can be brought to: structs as tuples, numbers as Python's own."""
    if isinstance(value, dict):
        return tuple(plain(each) for each in value.values())
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, (list, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, datetime):
        # Polars and PyArrow tell the zone, Spark converts to that of the machine and does not.
        return value.astimezone(UTC)
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, float | np.floating):
        return float(value)
    return int(value)


def plain_rows(rows: Sequence[Any]) -> list[Any]:
    return [plain(row) for row in rows]


@contextlib.contextmanager
def shared_lake(settings: Settings) -> Iterator[SharedLake]:
    """Three drives on three days, `robot_0` to `robot_2`, each with IMU and a topic of odd types."""
    with Lakehouse.open(settings) as lakehouse:
        gateway = Gateway(lakehouse, port=0)
        gateway_port = gateway.start()
        try:
            with flight.FlightClient(f"grpc://127.0.0.1:{gateway_port}") as client:
                lake = SharedLake(lakehouse, client, settings)
                for number in range(3):
                    start_ns = NOON_NS + number * DAY_NS
                    topics = {"imu": ("IMU", imu_rows(start_ns, 10.0 * number)), "odd": ("Odd", odd_rows(start_ns))}
                    lake.write(f"robot_{number}", topics)
                yield lake
        finally:
            gateway.stop(grace=1)


@contextlib.contextmanager
def lake_on_files(home: Path) -> Iterator[SharedLake]:
    """Everything below one directory, as on a laptop."""
    with shared_lake(Settings.load(home=home, db_url="", store_endpoint="")) as lake:
        yield lake


@contextlib.contextmanager
def lake_in_production(home: Path, s3: S3Server) -> Iterator[SharedLake]:
    """PostgreSQL, which holds the pointers to the tables too, and S3."""
    port = free_port()
    with postgres_server(port), fresh_database("127.0.0.1", "lake", port) as database_url:
        settings = Settings.load(home=home, db_url=database_url, **s3.settings(s3.new_bucket()))
        with shared_lake(settings) as lake:
            yield lake


@contextlib.contextmanager
def lake_in_rest_catalog(home: Path, server: RestCatalogServer) -> Iterator[SharedLake]:
    """The pointers to the tables in an Iceberg REST catalog, which commits to several at once, and S3."""
    options = server.settings(server.new_catalog())
    settings = Settings.load(home=home, db_url="", catalog_multi_table_commit="always", **options)
    with shared_lake(settings) as lake:
        yield lake
