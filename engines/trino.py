"""A Trino server on the lake: `python -m engines.trino` runs one until Ctrl-C, `python -m engines.trino SQL` asks it.

It is Trino's own server with its Iceberg connector, as one node that listens on 127.0.0.1 only. On a cluster, what
`trino_settings` returns belongs into `etc/catalog/lake.properties`.
"""

import argparse
import contextlib
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engines import versions
from engines.install import ensure, java_home
from engines.lake import CATALOG_NAME, JdbcCatalog, LakeLocation, RestCatalog
from engines.processes import ServerStartError, server_process
from lakehouse.catalog.settings import Settings

DEFAULT_PORT = 8085
START_TIMEOUT_S = 180
_HEAP = "1G"
# Lines of its log that say what is wrong, among a thousand that say where.
_TELLING = re.compile(r"\bERROR\b|Caused by:|^\d+\) |^Error: ")
_JVM_OPTIONS = (
    f"-Xmx{_HEAP}",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    # What Trino's own launcher demands (its documentation, "Deploying Trino", JVM config).
    "-Djdk.attach.allowAttachSelf=true",
    "-Dfile.encoding=UTF-8",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "--add-modules=jdk.incubator.vector",
)


def trino_settings(lake: LakeLocation) -> dict[str, str]:
    """Properties of a Trino catalog for a lake.

    Raises:
        ValueError: If the tables' pointers are in a database other than PostgreSQL, the only one that Trino's Iceberg
            connector can open here.
    """
    settings = {"connector.name": "iceberg", **_catalog_settings(lake.catalog)}
    if store := lake.object_store:
        settings |= {"fs.native-s3.enabled": "true", "s3.region": store.region}
        if store.endpoint:
            settings |= {"s3.endpoint": store.endpoint, "s3.path-style-access": "true"}
        if store.access_key:
            settings |= {"s3.aws-access-key": store.access_key, "s3.aws-secret-key": store.secret_key}
    else:
        settings |= {"fs.native-local.enabled": "true", "local.location": "/"}
    return settings


def _catalog_settings(catalog: JdbcCatalog | RestCatalog) -> dict[str, str]:
    if isinstance(catalog, RestCatalog):
        access = {"token": catalog.token}
        if catalog.credential:
            access = {"credential": catalog.credential, "server-uri": catalog.token_url, "scope": catalog.scope}
        given = {f"iceberg.rest-catalog.oauth2.{name}": value for name, value in access.items() if value}
        return {
            "iceberg.catalog.type": "rest",
            "iceberg.rest-catalog.uri": catalog.uri,
            **({"iceberg.rest-catalog.warehouse": catalog.warehouse} if catalog.warehouse else {}),
            **({"iceberg.rest-catalog.security": "OAUTH2", **given} if given else {}),
        }
    if not catalog.url.startswith("jdbc:postgresql:"):
        raise ValueError("Trino needs the lake's database in PostgreSQL: set MOSAICOD_DB_URL")
    return {
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.catalog-name": CATALOG_NAME,
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.connection-url": catalog.url,
        "iceberg.jdbc-catalog.connection-user": catalog.user,
        "iceberg.jdbc-catalog.connection-password": catalog.password,
        "iceberg.jdbc-catalog.default-warehouse-dir": catalog.warehouse,
    }


@contextlib.contextmanager
def trino_server(
    lake: LakeLocation,
    port: int = DEFAULT_PORT,
    before_start: Callable[[], None] | None = None,
    others: Mapping[str, LakeLocation] | None = None,
) -> Iterator[int]:
    """Run a server until the end of the block and yield its port.

    Args:
        lake: The lake to open as catalog `lake`.
        port: On 127.0.0.1.
        before_start: Runs in the child process before it becomes the server.
        others: More lakes, by the names of their catalogs.

    Raises:
        InstallationError: If Java or the server are missing and cannot be had.
        ServerStartError: If it does not start.
        ValueError: If Trino cannot open such a lake.
    """
    catalogs = {name: trino_settings(each) for name, each in {CATALOG_NAME: lake, **(others or {})}.items()}
    home, java = ensure("trino"), java_home(versions.TRINO_JAVA) / "bin" / "java"
    with tempfile.TemporaryDirectory(prefix="lakehouse-trino-", ignore_cleanup_errors=True) as directory:
        etc = Path(directory) / "etc"
        (etc / "catalog").mkdir(parents=True)
        server = {
            "node.environment": "lakehouse",
            "node.id": "only",
            "node.internal-address": "127.0.0.1",
            "node.bind-ip": "127.0.0.1",
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": str(port),
            "discovery.uri": f"http://127.0.0.1:{port}",
            "catalog.management": "static",
            "plugin.dir": str(home / "plugin"),
            "query.max-memory-per-node": "300MB",
            "memory.heap-headroom-per-node": "200MB",
        }
        _write_properties(etc / "config.properties", server)
        for name, settings in catalogs.items():
            _write_properties(etc / "catalog" / f"{name}.properties", settings)
        command = [str(java), *_JVM_OPTIONS, f"-Dconfig={etc / 'config.properties'}"]
        command += ["-cp", str(home / "lib" / "*"), "io.trino.server.TrinoServer"]
        with server_process(
            "Trino",
            command,
            log=Path(directory) / "log",
            is_ready=lambda: _is_started(port),
            start_timeout_s=START_TIMEOUT_S,
            telling=_TELLING,
            directory=Path(directory),
            before_start=before_start,
        ):
            yield port


def _write_properties(path: Path, properties: dict[str, str]) -> None:
    # They hold the keys of the store.
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


def _is_started(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info", timeout=5) as answer:
        return b'"starting":false' in answer.read()


def query(port: int, sql: str) -> tuple[list[str], list[Sequence[object]]]:
    """Run one statement on a server; returns the names of the columns, and the rows."""
    from trino.dbapi import connect

    with contextlib.closing(connect(host="127.0.0.1", port=port, user="lakehouse", catalog=CATALOG_NAME)) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        rows = cursor.fetchall()
        return [column.name for column in cursor.description or ()], rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sql", nargs="?", help="one statement for the server that runs already")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    options = parser.parse_args()
    if options.sql:
        names, rows = query(options.port, options.sql)
        print("\t".join(names), *("\t".join(map(str, row)) for row in rows), sep="\n")
        return
    try:
        with trino_server(LakeLocation.from_settings(Settings.load()), options.port) as port:
            print(
                f"Trino {versions.TRINO} listens on http://127.0.0.1:{port}, catalog {CATALOG_NAME}. Ctrl-C stops it."
            )
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except (ServerStartError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
