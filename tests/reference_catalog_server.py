"""Iceberg's own REST catalog server, on PostgreSQL: the protocol as its authors have it.

Tables keep all of their snapshots, tags and branches, and engines may expire them. It takes commits to several tables
in one request, and carries them out one after another. It has one catalog only, so a test that takes a new one ends the
one before.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psycopg

from engines.install import ensure, java_home
from engines.processes import server_process
from engines.versions import ICEBERG_SERVER_JAVA
from tests.postgres_server import postgres_server
from tests.processes import die_with_parent, free_port
from tests.rest_catalog_server import START_TIMEOUT_S, RestCatalogServer
from tests.s3_server import S3Server

_TABLES = ("iceberg_tables", "iceberg_namespace_properties")


@dataclass(frozen=True)
class ReferenceCatalogServer(RestCatalogServer):
    """A running server, which lets everybody in.

    Attributes:
        database_port: Of its PostgreSQL.
    """

    commits_at_once: ClassVar[bool] = False
    database_port: int

    def new_catalog(self) -> str:
        with psycopg.connect(host="127.0.0.1", port=self.database_port, user="postgres") as connection:
            connection.execute(f"TRUNCATE {', '.join(_TABLES)}".encode())
        shutil.rmtree(self.s3.root / self.bucket)
        (self.s3.root / self.bucket).mkdir()
        return f"http://127.0.0.1:{self.port}"

    def access(self) -> dict[str, str]:
        return {}

    def token(self) -> str:
        return ""


@contextlib.contextmanager
def reference_catalog_server(s3: S3Server) -> Iterator[ReferenceCatalogServer]:
    """Run a server until the end of the block; it goes down with this process even if that is killed."""
    database_port = free_port()
    server = ReferenceCatalogServer(free_port(), s3, s3.new_bucket(), "lake", database_port)
    # The server makes a property of each of these: two underscores are a hyphen, one is a dot.
    options = {
        "CATALOG_REST_PORT": str(server.port),
        "CATALOG_URI": f"jdbc:postgresql://127.0.0.1:{database_port}/postgres",
        "CATALOG_JDBC_USER": "postgres",
        "CATALOG_WAREHOUSE": f"s3://{server.bucket}",
        "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
        "CATALOG_HTTP__CLIENT_TYPE": "urlconnection",
        "CATALOG_S3_ENDPOINT": s3.endpoint,
        "CATALOG_S3_PATH__STYLE__ACCESS": "true",
        "CATALOG_S3_ACCESS__KEY__ID": s3.access_key,
        "CATALOG_S3_SECRET__ACCESS__KEY": s3.secret_key,
        "CATALOG_CLIENT_REGION": s3.region,
    }
    command = [str(java_home(ICEBERG_SERVER_JAVA) / "bin" / "java"), "-Xmx256m", "-XX:TieredStopAtLevel=1"]
    command += ["-XX:+UseSerialGC", "-cp", ":".join(map(str, _class_path()))]
    with (
        postgres_server(database_port),
        tempfile.TemporaryDirectory(prefix="lakehouse-catalog-") as directory,
        server_process(
            "the catalog",
            [*command, "org.apache.iceberg.rest.RESTCatalogServer"],
            log=Path(directory) / "server.log",
            is_ready=lambda: _answers(server),
            start_timeout_s=START_TIMEOUT_S,
            directory=Path(directory),
            environment={**os.environ, **options, "LC_ALL": "C.UTF-8"},
            before_start=die_with_parent(signal.SIGKILL),
        ),
    ):
        yield server


def _class_path() -> list[Path]:
    """The server's own jars first; of what Spark needs too, single ones."""
    spark_jars = ensure("spark-jars")
    # Found without being imported, which takes a second.
    pyspark = importlib.util.find_spec("pyspark")
    assert pyspark is not None
    assert pyspark.origin is not None
    hadoop = sorted((Path(pyspark.origin).parent / "jars").glob("hadoop-client-*.jar"))
    of_spark = [jar for name in ("iceberg-aws-bundle", "postgresql") for jar in spark_jars.glob(f"{name}-*.jar")]
    return [*sorted(ensure("iceberg-server").glob("*.jar")), *of_spark, *hadoop]


def _answers(server: ReferenceCatalogServer) -> bool:
    urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/config", timeout=10).close()
    return True
