"""The gateway is killed (SIGKILL) at every step of upload, finalize and delete; afterwards the invariants hold.

1. An acknowledged upload survives. 2. A session is visible wholly or not at all, in every reader. 3. What is read
equals what was written. 5. Finalized data never changes, and a reused name never shows old data.

The next process checks what it finds, repairs it as a user would, and is killed at the next step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from mosaicolabs import MosaicoClient
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse
from tests.crash.gateway_process import GatewayProcess
from tests.warehouses import BY_DATABASE, environment, scan_iceberg

WAREHOUSES = BY_DATABASE

UPLOAD_STEPS = ["data-file-close:before:1", "data-file-close:after:1", "data-file-close:before:3"]
RECORD_STEPS = ["topic-record:before:1", "topic-record:after:1", "topic-record:after:2"]
COMMIT_STEPS = [
    f"{step}:{side}:{visit}"
    for step in ("manifest-write", "metadata-write")
    for side in ("before", "after")
    for visit in (1, 2)
] + [f"{step}:{side}" for step in ("pointer-swap", "control-plane-write") for side in ("before", "after")]
TOPICS = ("imu/front", "odometry")
ROWS_PER_BATCH = 20_000
DIED = (pa.ArrowException, flight.FlightError, OSError)


def rows_of(topic: str, seed: int) -> list[pa.RecordBatch]:
    """Three batches of the same topic; values depend on topic and seed."""
    generator = np.random.default_rng([seed, len(topic)])
    schema = pa.schema(
        [
            pa.field("timestamp_ns", pa.int64(), nullable=False),
            pa.field("state", pa.struct([pa.field("x", pa.float64()), pa.field("n", pa.uint64(), nullable=False)])),
        ]
    )
    batches = []
    for number in range(3):
        stamps = 1_000_000_000 + np.arange(number * ROWS_PER_BATCH, (number + 1) * ROWS_PER_BATCH) * 5_000_000
        state = pa.StructArray.from_arrays(
            [
                pa.array(generator.normal(size=ROWS_PER_BATCH)),
                pa.array(generator.integers(0, 2**63, ROWS_PER_BATCH, dtype=np.uint64)),
            ],
            fields=list(schema.field("state").type),
        )
        batches.append(pa.record_batch([pa.array(stamps, pa.int64()), state], schema=schema))
    return batches


@dataclass
class Progress:
    """What the client knows when the server dies."""

    session: dict[str, Any] | None = None
    acknowledged: list[str] = field(default_factory=list)
    finalized: bool = False


def write_sequence(gateway: GatewayProcess, name: str, seed: int, progress: Progress) -> None:
    gateway.action("sequence_create", locator=name, user_metadata={"seed": seed})
    progress.session = gateway.action("session_create", locator=name)
    assert progress.session is not None
    for topic in TOPICS:
        created = gateway.action(
            "topic_create",
            session_uuid=progress.session["uuid"],
            locator=f"{name}/{topic}",
            serialization_format="default",
            ontology_tag="VehicleState",
            user_metadata={},
        )
        assert created is not None
        gateway.upload(f"{name}/{topic}", created["uuid"], rows_of(topic, seed))
        progress.acknowledged.append(topic)
    gateway.action("session_finalize", session_uuid=progress.session["uuid"])
    progress.finalized = True


class Lake:
    """One home that outlives many gateway processes."""

    def __init__(self, home: Path, database_url: str, store: dict[str, str]) -> None:
        self.home = home
        self.database_url = database_url
        self.store = store
        settings = Settings.load(home=home, db_url=database_url, **store)
        self._catalog_properties = {
            "uri": settings.database_url,
            "warehouse": settings.warehouse_uri,
            **Warehouse.open(settings).iceberg_properties(),
        }

    def start(self) -> GatewayProcess:
        return GatewayProcess(self.home, self.database_url, **environment(self.store))

    def rows_in_iceberg(self, name: str) -> dict[str, pl.DataFrame]:
        """What a stock Iceberg reader sees of a sequence, by topic."""
        catalog = SqlCatalog("lake", **self._catalog_properties)
        try:
            found = {}
            for topic in TOPICS:
                try:
                    table = catalog.load_table(("vehicle_state", topic.replace("/", "_")))
                except NoSuchTableError:
                    continue
                rows = scan_iceberg(table).filter(pl.col("sequence") == name).sort("timestamp_ns").collect()
                if len(rows):
                    found[topic] = rows
            return found
        finally:
            catalog.close()

    def sessions_in_iceberg(self, name: str) -> int:
        catalog = SqlCatalog("lake", **self._catalog_properties)
        try:
            table = catalog.load_table("mosaico.sessions")
        except NoSuchTableError:
            return 0
        else:
            return len(scan_iceberg(table).filter(pl.col("sequence") == name).collect())
        finally:
            catalog.close()


@pytest.fixture
def lake(tmp_path: Path, database_url: str, store: dict[str, str]) -> Lake:
    return Lake(tmp_path, database_url, store)


def expected(topic: str, seed: int) -> pa.Table:
    return pa.Table.from_batches(rows_of(topic, seed))


def assert_reads_equal(gateway: GatewayProcess, name: str, topic: str, seed: int) -> None:
    """The gateway returns exactly what was uploaded, schema included."""
    info = gateway.client.get_flight_info(
        flight.FlightDescriptor.for_command(f'{{"resource_locator":"{name}/{topic}"}}'.encode())
    )
    read = gateway.client.do_get(info.endpoints[0].ticket).read_all()
    wanted = expected(topic, seed)
    assert read.schema.equals(wanted.schema)
    assert read.replace_schema_metadata(None).equals(wanted.replace_schema_metadata(None))


def assert_in_iceberg(found: dict[str, pl.DataFrame], seed: int) -> None:
    """A stock Iceberg reader sees all topics with all rows."""
    assert set(found) == set(TOPICS)
    for topic, rows in found.items():
        wanted = expected(topic, seed)
        assert rows["timestamp_ns"].to_list() == wanted["timestamp_ns"].to_pylist()
        assert rows["state"].struct.field("x").to_list() == [row["x"] for row in wanted["state"].to_pylist()]


def check_and_repair(lake: Lake, gateway: GatewayProcess, name: str, seed: int, progress: Progress) -> None:
    """Check the invariants on a sequence whose writer lost its server, then make room for the next try."""
    with MosaicoClient.connect(host="127.0.0.1", port=gateway.port) as client:
        handler = client.sequence_handler(name)
        if progress.session is None:
            if handler is not None:
                gateway.action("sequence_delete", locator=name)
            return
        assert handler is not None
        (session,) = handler.sessions
        found = lake.rows_in_iceberg(name)
        if session.locked:
            assert_in_iceberg(found, seed)
            assert lake.sessions_in_iceberg(name) == 1
        else:
            assert not progress.finalized, "an acknowledged finalize was lost"
            assert found == {}, "an open session is visible in Iceberg"
            assert lake.sessions_in_iceberg(name) == 0
        for topic in progress.acknowledged:
            topic_handler = client.topic_handler(name, topic)
            assert topic_handler is not None
            assert topic_handler.locked, "an acknowledged upload was lost"
            assert_reads_equal(gateway, name, topic, seed)
    if not session.locked and set(progress.acknowledged) == set(TOPICS):
        gateway.action("session_finalize", session_uuid=progress.session["uuid"])
        assert_in_iceberg(lake.rows_in_iceberg(name), seed)
    gateway.action("sequence_delete", locator=name)
    assert lake.rows_in_iceberg(name) == {}
    assert lake.sessions_in_iceberg(name) == 0


@pytest.fixture
def witness(lake: Lake) -> Iterator[None]:
    """A sequence finalized before any crash; it must never change."""
    gateway = lake.start()
    write_sequence(gateway, "witness", 0, Progress())
    gateway.stop()
    yield
    gateway = lake.start()
    try:
        for topic in TOPICS:
            assert_reads_equal(gateway, "witness", topic, 0)
    finally:
        gateway.stop()
    assert_in_iceberg(lake.rows_in_iceberg("witness"), 0)


@pytest.mark.slow
@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("steps", [UPLOAD_STEPS + RECORD_STEPS, COMMIT_STEPS[:6], COMMIT_STEPS[6:]])
def test_writing_a_session_survives_a_kill_at_every_step(lake: Lake, steps: list[str]) -> None:
    gateway = lake.start()
    for seed, step in enumerate(steps, start=1):
        progress = Progress()
        gateway.crash_at(step)
        with pytest.raises(DIED):
            write_sequence(gateway, "drive", seed, progress)
        assert gateway.was_killed(), f"{step} was not reached"
        gateway.stop()
        gateway = lake.start()
        check_and_repair(lake, gateway, "drive", seed, progress)
    gateway.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("witness")
def test_deleting_a_sequence_survives_a_kill_at_every_step(lake: Lake) -> None:
    gateway = lake.start()
    for seed, step in enumerate(COMMIT_STEPS[::2], start=1):
        write_sequence(gateway, "doomed", seed, Progress())
        gateway.crash_at(step)
        with pytest.raises(DIED):
            gateway.action("sequence_delete", locator="doomed")
        assert gateway.was_killed(), f"{step} was not reached"
        gateway.stop()
        gateway = lake.start()
        still_there = b"doomed" in [info.descriptor.path[0] for info in gateway.client.list_flights()]
        if still_there:
            for topic in TOPICS:
                assert_reads_equal(gateway, "doomed", topic, seed)
            assert_in_iceberg(lake.rows_in_iceberg("doomed"), seed)
            gateway.action("sequence_delete", locator="doomed")
        assert lake.rows_in_iceberg("doomed") == {}
        assert lake.sessions_in_iceberg("doomed") == 0
    gateway.stop()
