"""Each engine on each kind of catalog: engines and lakes are started once, when the first test needs them."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from engines.spark import catalog_settings, open_spark
from engines.trino import trino_server
from lakehouse.contracts.results import VALIDATION_RESULTS
from lakehouse.orchestration.recordings.ingest import ingest_recording
from tests.docs.documented_lake import RECORDING, verdict
from tests.engines.engines_under_test import DuckDB, Engine, Polars, Spark, Trino
from tests.engines.shared_lake import SharedLake, lake_in_production, lake_in_rest_catalog, lake_on_files
from tests.nessie_server import nessie_server
from tests.processes import die_with_parent, free_port
from tests.reference_catalog_server import reference_catalog_server
from tests.rest_catalog_server import RestCatalogServer
from tests.s3_server import S3Server

# All tests of one engine go to one worker: one Java process each.
# What needs a REST catalog goes where it runs anyway: "rest" is Nessie, "history" Iceberg's own server, whose tables
# keep their snapshots.
_SPARK = [pytest.mark.spark, pytest.mark.xdist_group("spark")]
_TRINO = [pytest.mark.trino, pytest.mark.xdist_group("trino")]
_HERE = [pytest.mark.xdist_group("embedded engines")]
_HERE_REST = [pytest.mark.slow, pytest.mark.xdist_group("spark")]
WRITERS = [
    pytest.param(("spark", "production"), id="spark", marks=_SPARK),
    pytest.param(("spark", "rest"), id="spark-rest", marks=_SPARK),
    pytest.param(("trino", "production"), id="trino", marks=_TRINO),
    pytest.param(("trino", "rest"), id="trino-rest", marks=_TRINO),
]
EMBEDDED = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=_HERE_REST if kind == "rest" else _HERE)
    for name in ("duckdb", "polars")
    for kind in ("files", "production", "rest")
]
READERS = [*WRITERS, *EMBEDDED]
_REST_CATALOGS = ("rest", "history")
WRITERS_IN_HISTORY = [
    pytest.param(("spark", "history"), id="spark-history", marks=_SPARK),
    pytest.param(("trino", "history"), id="trino-history", marks=_TRINO),
]
READERS_IN_HISTORY = [
    *WRITERS_IN_HISTORY,
    *(pytest.param((name, "history"), id=f"{name}-history", marks=_HERE_REST) for name in ("duckdb", "polars")),
]

PROJECT = Path(__file__).parents[2]


class Stage:
    """Starts what is asked for, once.

    Args:
        stack: What ends it all.
    """

    def __init__(self, stack: ExitStack, directories: pytest.TempPathFactory, s3: S3Server) -> None:
        self._stack = stack
        self._directories = directories
        self._s3 = s3
        self.lake = cache(self._open_lake)
        self.demo = cache(self._record_demo)
        self.engine = cache(self._open_engine)
        self._spark_session = cache(self._open_spark)
        self._trino_port = cache(self._start_trino)

    def _open_lake(self, kind: str) -> SharedLake:
        home = self._directories.mktemp(kind)
        if kind == "files":
            return self._stack.enter_context(lake_on_files(home))
        if kind == "production":
            return self._stack.enter_context(lake_in_production(home, self._s3))
        start = nessie_server if kind == "rest" else reference_catalog_server
        server: RestCatalogServer = self._stack.enter_context(start(self._s3))
        return self._stack.enter_context(lake_in_rest_catalog(home, server))

    def _record_demo(self, kind: str) -> DuckDB:
        """The demo recording in a lake, with verdicts about its swerve; to be asked by DuckDB."""
        lake = self.lake(kind)
        ingest_recording(lake.lakehouse, RECORDING)
        verdicts = [verdict("gaps", "failed", 1), verdict("gaps", "passed", 2), verdict("magnitude", "warned", 2)]
        lake.lakehouse.system_tables.append(VALIDATION_RESULTS, verdicts)
        return DuckDB(lake)

    def _open_engine(self, name: str, kind: str) -> Engine:
        if name == "duckdb":
            return DuckDB(self.lake(kind))
        if name == "polars":
            return Polars(self.lake(kind))
        catalog = "lake" if kind == "production" else kind
        return Spark(self._spark_session(), catalog) if name == "spark" else Trino(self._trino_port(), catalog)

    def _open_spark(self) -> SparkSession:
        # Without adaptive execution the plan that is asked for metrics is the one that ran.
        session = open_spark(self.lake("production").location, spark__sql__adaptive__enabled="false")
        self._stack.callback(session.stop)
        for kind in _REST_CATALOGS:
            for name, value in catalog_settings(self.lake(kind).location, kind).items():
                session.conf.set(name, value)
        return session

    def _start_trino(self) -> int:
        server = trino_server(
            self.lake("production").location,
            free_port(),
            die_with_parent(signal.SIGKILL),
            {kind: self.lake(kind).location for kind in _REST_CATALOGS},
        )
        return self._stack.enter_context(server)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack, tmp_path_factory, s3)


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name of an engine and kind of a lake; modules say which: READERS or WRITERS."""
    name, kind = request.param
    return name, kind


@pytest.fixture(scope="session")
def engine(place: tuple[str, str], stage: Stage) -> Engine:
    return stage.engine(*place)


@pytest.fixture(scope="session")
def lake(place: tuple[str, str], stage: Stage) -> SharedLake:
    return stage.lake(place[1])
