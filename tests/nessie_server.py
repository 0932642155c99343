"""Nessie, in memory: one jar that needs no other service, and that commits to several tables at once.

Each test takes a branch of its own, which is a catalog of its own: no test sees the tables of another. It lets in only
who shows a token of its authorization server.
"""

import contextlib
import itertools
import json
import os
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from engines.install import ensure, java_home
from engines.processes import server_process
from engines.versions import NESSIE_JAVA
from tests.authorization_server import SCOPE, AuthorizationServer, authorization_server
from tests.processes import die_with_parent, free_port
from tests.rest_catalog_server import START_TIMEOUT_S, RestCatalogServer
from tests.s3_server import S3Server

WAREHOUSE = "lake"
_UNAUTHORIZED = 401
_numbers = itertools.count()


@dataclass(frozen=True)
class NessieServer(RestCatalogServer):
    """A running Nessie.

    Attributes:
        authorization: Gives the tokens for it.
    """

    commits_at_once: ClassVar[bool] = True
    authorization: AuthorizationServer

    def new_catalog(self) -> str:
        main = self._api("GET", "trees/main")["reference"]
        name = f"test-{next(_numbers)}"
        self._api("POST", f"trees?name={name}&type=BRANCH", main)
        return f"http://127.0.0.1:{self.port}/iceberg/{name}"

    def access(self) -> dict[str, str]:
        return {
            "catalog_credential": self.authorization.credential,
            "catalog_oauth2_server_uri": self.authorization.url,
            "catalog_scope": SCOPE,
        }

    def token(self) -> str:
        return self.authorization.token()

    def _api(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextlib.contextmanager
def nessie_server(s3: S3Server) -> Iterator[NessieServer]:
    """Run a server until the end of the block; it goes down with this process even if that is killed."""
    with authorization_server() as authorization, _nessie_server(s3, authorization) as server:
        yield server


@contextlib.contextmanager
def _nessie_server(s3: S3Server, authorization: AuthorizationServer) -> Iterator[NessieServer]:
    (jar,) = ensure("nessie").glob("*.jar")
    server = NessieServer(free_port(), s3, s3.new_bucket(), WAREHOUSE, authorization)
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
        "nessie.server.authentication.enabled": "true",
        "quarkus.oidc.public-key": authorization.public_key,
    }
    java = java_home(NESSIE_JAVA) / "bin" / "java"
    command = [str(java), "-Xmx384m", "-XX:TieredStopAtLevel=1"]
    command += [f"-D{name}={value}" for name, value in properties.items()]
    with (
        tempfile.TemporaryDirectory(prefix="lakehouse-nessie-") as directory,
        server_process(
            "Nessie",
            [*command, "-jar", str(jar)],
            log=Path(directory) / "server.log",
            is_ready=lambda: _answers(server),
            start_timeout_s=START_TIMEOUT_S,
            directory=Path(directory),
            environment={**os.environ, "LC_ALL": "C.UTF-8"},
            before_start=die_with_parent(signal.SIGKILL),
        ),
    ):
        yield server


def _answers(server: NessieServer) -> bool:
    url = f"http://127.0.0.1:{server.port}/iceberg/v1/config?warehouse={WAREHOUSE}"
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError as error:
        return error.code == _UNAUTHORIZED
    return True
