"""Lakes behind a gateway, with recordings that have something of everything: on files, on S3, in a REST catalog."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight
from mosaicolabs import MosaicoClient, QueryOntologyCatalog
from pydantic import SecretStr
from pyiceberg.catalog import Catalog

from engines.lake import LakeLocation
from lakehouse.catalog.iceberg.catalogs import open_pyiceberg_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.results import VALIDATION_RESULTS
from lakehouse.flight_gateway.server import Gateway
from tests.docs.documented_lake import verdict
from tests.engines import told_by_sdk
from tests.engines.recordings import DAY_NS, DRIVE, MODELS, NOON_NS, imu_rows, odd_rows, write_with_sdk
from tests.postgres_server import fresh_database, postgres_server
from tests.processes import free_port
from tests.rest_catalog_server import RestCatalogServer
from tests.s3_server import S3Server

_numbers = itertools.count()


@dataclass(frozen=True)
class SharedLake:
    """What tests of other engines work on.

    Attributes:
        lakehouse: For uploads and maintenance.
        sdk: The official client, at the gateway.
        client: Talks to the gateway, as the SDK does underneath; for types that it has no class for.
        settings: Of the lake.
    """

    lakehouse: Lakehouse
    sdk: MosaicoClient
    client: flight.FlightClient
    settings: Settings

    @property
    def location(self) -> LakeLocation:
        """The lake in the words of the engines."""
        return LakeLocation.from_settings(self.settings)

    @property
    def environment(self) -> dict[str, str]:
        """For processes that open the lake by themselves."""
        told = {}
        for name in self.settings.model_fields_set:
            value = getattr(self.settings, name)
            told[str(Settings.model_fields[name].validation_alias)] = str(
                value.get_secret_value() if isinstance(value, SecretStr) else value
            )
        return {**os.environ, **told}

    @cached_property
    def messages(self) -> dict[str, tuple[list[str], list[Any]]]:
        """The drive that the SDK wrote, as it reads it, by path: see `message_rows`."""
        return {path: told_by_sdk.message_rows(self.sdk, DRIVE, path) for path in MODELS}

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

    def find(self, expression: Any) -> set[str]:
        """Sequences with a row that meets a condition, by the SDK."""
        found = self.sdk.query(QueryOntologyCatalog(expression))
        assert found is not None
        return {item.sequence.name for item in found}

    @contextlib.contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalog in PyIceberg."""
        lake = self.lakehouse
        catalog = open_pyiceberg_catalog(lake.settings, lake.warehouse, lake.database)
        try:
            yield catalog
        finally:
            catalog.close()


def fresh_name(prefix: str) -> str:
    """A name that no other test of this process or another uses."""
    return f"{prefix}_{os.getpid()}_{next(_numbers)}"


def verdict_on_robot() -> dict[str, Any]:
    """A row of `mosaico.validation_results`."""
    return {**verdict("gaps", "passed", 1), "sequence": "robot_0", "topic": "robot_0/imu"}


@contextlib.contextmanager
def shared_lake(settings: Settings) -> Iterator[SharedLake]:
    """Three drives on three days, `robot_0` to `robot_2`, each with IMU and a topic of odd types; two drives that the
    SDK wrote; and something in each table that the system keeps about itself.
    """
    with Lakehouse.open(settings) as lakehouse:
        gateway = Gateway(lakehouse, port=0)
        port = gateway.start()
        try:
            with (
                flight.FlightClient(f"grpc://127.0.0.1:{port}") as client,
                MosaicoClient.connect("127.0.0.1", port) as sdk,
            ):
                lake = SharedLake(lakehouse, sdk, client, settings)
                for number in range(3):
                    start_ns = NOON_NS + number * DAY_NS
                    topics = {"imu": ("IMU", imu_rows(start_ns, 10.0 * number)), "odd": ("Odd", odd_rows(start_ns))}
                    lake.write(f"robot_{number}", topics)
                write_with_sdk(sdk)
                lakehouse.system_tables.append(VALIDATION_RESULTS, [verdict_on_robot()])
                lake.write("mistake", {"mistake": ("IMU", imu_rows(NOON_NS, 0.0))})
                sdk.sequence_delete("mistake")
                run_audit_care(lakehouse.database, lakehouse.table_files, lakehouse.committer, settings)
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
    """The pointers to the tables in an Iceberg REST catalog, which commits to several at once if it can, and S3."""
    options = server.settings(server.new_catalog())
    together = "always" if server.commits_at_once else "never"
    settings = Settings.load(home=home, db_url="", catalog_multi_table_commit=together, **options)
    with shared_lake(settings) as lake:
        yield lake
