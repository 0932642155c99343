"""A real Iceberg REST catalog server for tests: Nessie, in memory, over a real S3 server.

Chosen because it is one jar, runs without any other service, and commits to several tables at once. Each test takes a
branch of its own, which is a catalog of its own: no test sees the tables of another.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.install import ensure, java_home
from engines.versions import NESSIE_JAVA
from tests.processes import die_with_parent, free_port
from tests.s3_server import S3Server
from tests.warehouses import environment

START_TIMEOUT_S = 180
WAREHOUSE = "lake"
_numbers = itertools.count()


@dataclass(frozen=True)
class RestCatalogServer:
    """A running server.

    Attributes:
        port: On 127.0.0.1.
        s3: Where its tables are.
        bucket: The bucket of all of them.
    """

    port: int
    s3: S3Server
    bucket: str

    def new_catalog(self) -> str:
        """URI of an empty catalog that nobody else gets."""
        main = self._api("GET", "trees/main")["reference"]
        name = f"test-{next(_numbers)}"
        self._api("POST", f"trees?name={name}&type=BRANCH", main)
        return f"http://127.0.0.1:{self.port}/iceberg/{name}"

    def settings(self, catalog: str) -> dict[str, Any]:
        """Settings, by the names of `Settings`, of a lake whose tables are in this catalog."""
        return {**self.s3.settings(self.bucket), "catalog_uri": catalog, "catalog_warehouse": WAREHOUSE}

    def environment(self, catalog: str) -> dict[str, str]:
        """The same settings as environment variables."""
        return {
            **environment(self.s3.settings(self.bucket)),
            "LAKEHOUSE_CATALOG_URI": catalog,
            "LAKEHOUSE_CATALOG_WAREHOUSE": WAREHOUSE,
        }

    def _api(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def rest_catalog_server(s3: S3Server) -> Iterator[RestCatalogServer]:
    """Run a server until the end of the block; it goes down with this process even if that is killed."""
    (jar,) = ensure("rest-catalog").glob("*.jar")
    server = RestCatalogServer(free_port(), s3, s3.new_bucket())
    properties = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": server.port,
        "quarkus.management.host": "127.0.0.1",
        "quarkus.management.port": free_port(),
        "quarkus.log.level": "WARN",
        "nessie.version.store.type": "IN_MEMORY",
        "nessie.catalog.default-warehouse": WAREHOUSE,
        f"nessie.catalog.warehouses.{WAREHOUSE}.location": f"s3://{server.bucket}/",
        "nessie.catalog.service.s3.default-options.endpoint": f"{s3.endpoint}/",
        "nessie.catalog.service.s3.default-options.region": s3.region,
        "nessie.catalog.service.s3.default-options.path-style-access": "true",
        "nessie.catalog.service.s3.default-options.access-key": "urn:nessie-secret:quarkus:lakehouse.s3",
        # Engines bring keys of their own; the server would have clients send it each request to the store to sign.
        "nessie.catalog.service.s3.default-options.request-signing-enabled": "false",
        "lakehouse.s3.name": s3.access_key,
        "lakehouse.s3.secret": s3.secret_key,
    }
    java = java_home(NESSIE_JAVA) / "bin" / "java"
    command = [str(java), "-Xmx384m", "-XX:TieredStopAtLevel=1"]
    command += [f"-D{name}={value}" for name, value in properties.items()]
    with tempfile.TemporaryDirectory(prefix="lakehouse-catalog-") as directory:
        log_file = Path(directory) / "server.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*command, "-jar", str(jar)],
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        try:
            _wait_until_ready(process, server, log_file)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], server: RestCatalogServer, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    url = f"http://127.0.0.1:{server.port}/iceberg/v1/config?warehouse={WAREHOUSE}"
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except (OSError, urllib.error.URLError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the catalog did not start: {log.read_text()[-3000:]}") from None
            time.sleep(0.2)
        else:
            return
