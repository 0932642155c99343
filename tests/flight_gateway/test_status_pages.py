"""Health and metrics over HTTP: what orchestrators and Prometheus see of a gateway."""

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.cli.run import status_server
from lakehouse.flight_gateway.readiness import Readiness
from lakehouse.flight_gateway.server import Gateway
from lakehouse.flight_gateway.status_server import StatusServer
from tests.flight_gateway.raw_client import SERVICE, RawClient, plain_batch, status_of, upload_messages
from tests.processes import free_port
from tests.s3_server import s3_server


@dataclass(frozen=True)
class Watched:
    """A gateway of its own with its pages."""

    lakehouse: Lakehouse
    raw: RawClient
    pages: StatusServer
    status_port: int

    def get(self, page: str) -> tuple[int, str]:
        return get(self.status_port, page)

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name and at least these labels."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        assert samples, name
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=30) as response:
            return int(response.status), response.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@contextmanager
def watching(home: Path, **settings: Any) -> Iterator[Watched]:
    with Lakehouse.open(Settings.load(home=home, **settings)) as lakehouse, Gateway(lakehouse, port=0) as gateway:
        raw = RawClient(int(gateway.uri.rpartition(":")[2]))
        with StatusServer(gateway.metrics, Readiness(lakehouse, patience_s=0.5), "127.0.0.1", 0) as pages:
            assert pages._server is not None
            yield Watched(lakehouse, raw, pages, int(pages._server.server_address[1]))
        raw.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(tmp_path_factory.mktemp("lake")) as watched:
        yield watched


def test_a_working_gateway_is_healthy_and_ready(watched: Watched) -> None:
    status, text = watched.get("/health")
    assert (status, json.loads(text)["status"]) == (200, "ok")
    status, text = watched.get("/ready")
    assert (status, json.loads(text)) == (200, {"status": "ready", "database": "ok", "warehouse": "ok"})
    status, text = watched.get("/elsewhere?x=/health")
    assert (status, json.loads(text)) == (404, {"error": "pages: /health, /ready, /metrics"})


def test_calls_are_counted_by_rpc_action_and_status(watched: Watched, name: str) -> None:
    raw = watched.raw
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(*range(1000)))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    ticket = raw.describe(topic.locator).endpoints[0].ticket.ticket
    read = raw.get(ticket)
    for action in ("sequence_create", "nonsense", "nonsense/2"):
        assert status_of(lambda action=action: raw.action(action, locator=name)).code is not grpc.StatusCode.OK

    calls = "lakehouse_requests_total"
    assert watched.metric(calls, rpc="DoAction", action="sequence_create", status="OK") == 1
    assert watched.metric(calls, rpc="DoAction", action="sequence_create", status="ALREADY_EXISTS") == 1
    assert watched.metric(calls, rpc="DoAction", action="", status="INVALID_ARGUMENT") == 2
    assert watched.metric(calls, rpc="DoPut", status="OK") == watched.metric(calls, rpc="DoGet", status="OK") == 1
    assert watched.metric("lakehouse_request_seconds_count", rpc="DoPut") == 1
    assert watched.metric("lakehouse_sent_bytes_total", rpc="DoGet") == sum(map(len, read))
    assert watched.metric("lakehouse_received_bytes_total", rpc="DoPut") > 16_000
    assert watched.metric("lakehouse_commits_total") >= 1
    assert watched.metric("lakehouse_commit_conflicts_total") == 0
    assert "nonsense" not in watched.get("/metrics")[1]


def test_uploads_count_while_they_are_open(watched: Watched, name: str) -> None:
    topic = watched.raw.new_topic(name)
    messages = upload_messages(topic, plain_batch(*range(100)), plain_batch(*range(100)))
    seen: list[tuple[float, float, float]] = []

    def looking_in_the_middle() -> Iterator[bytes]:
        yield from messages[:2]
        while watched.metric("lakehouse_upload_buffer_bytes") == 0:
            pass
        seen.append(
            (
                watched.metric("lakehouse_open_uploads"),
                watched.metric("lakehouse_requests_in_progress", rpc="DoPut"),
                watched.metric("lakehouse_upload_buffer_bytes"),
            )
        )
        yield from messages[2:]

    assert list(watched.raw.channel.stream_stream(SERVICE + "DoPut")(looking_in_the_middle())) == []
    assert seen[0][:2] == (1, 1)
    assert 0 < seen[0][2] <= watched.metric("lakehouse_upload_buffer_limit_bytes")
    assert watched.metric("lakehouse_open_uploads") == watched.metric("lakehouse_upload_buffer_bytes") == 0


def test_queries_and_connections_are_counted(watched: Watched, name: str) -> None:
    topic = watched.raw.new_topic(name, ontology_tag="Counted")
    watched.raw.upload(topic, plain_batch(*range(100)))
    watched.raw.action("session_finalize", session_uuid=topic.session_uuid)
    before = [watched.metric(f"lakehouse_query_files_{each}_total") for each in ("considered", "opened")]
    for bound in (50, 500):
        watched.raw.action("query", ontology={"Counted.x": {"$gt": bound}})
    after = [watched.metric(f"lakehouse_query_files_{each}_total") for each in ("considered", "opened")]
    assert [int(new - old) for new, old in zip(after, before, strict=True)] == [2, 1]
    assert watched.metric("lakehouse_database_connections_limit") == 10
    with watched.lakehouse.database.snapshot():
        assert watched.metric("lakehouse_database_connections_in_use") == 1


def test_the_documentation_names_every_metric(watched: Watched) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    for family in text_string_to_metric_families(watched.get("/metrics")[1]):
        if family.name.startswith("lakehouse_") and family.name != "lakehouse_info":
            suffix = "_total" if family.type == "counter" else ""
            assert f"`{family.name}{suffix}`" in page


def test_a_lost_warehouse_and_a_lost_database_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.flight_gateway.readiness.FRESH_S", 0.0)
    with watching(tmp_path) as watched:
        assert watched.get("/ready")[0] == 200
        warehouse = tmp_path / "warehouse"
        warehouse.rename(tmp_path / "elsewhere")
        status, text = watched.get("/ready")
        assert (status, json.loads(text)) == (
            503,
            {"status": "not ready", "database": "ok", "warehouse": "unreachable"},
        )
        (tmp_path / "elsewhere").rename(warehouse)
        assert watched.get("/ready")[0] == 200
        _use_up_connections(watched.lakehouse.database, watched)
        assert watched.get("/health")[0] == 200
        assert watched.get("/ready")[0] == 200
        watched.pages.announce_stop()
        assert watched.get("/ready") == (503, '{"status": "stopping"}\n')


def test_a_gateway_that_loses_its_store_or_its_database_is_ready_again_when_they_are_back(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.flight_gateway.readiness.FRESH_S", 0.0)
    root, port, keys = tmp_path / "store", free_port(), ("access", "secret-of-the-store")
    database = make_url(postgres_url)

    def accept_connections(accepts: bool) -> None:
        """What a database does that is taken down: nobody gets in, and who is in is thrown out."""
        admin = database.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{database.database}" ALLOW_CONNECTIONS {accepts}'.encode())
            if not accepts:
                stop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                connection.execute(stop, [database.database])

    with ExitStack() as store, ExitStack() as lake:
        server = store.enter_context(s3_server(root, port=port, keys=keys))
        watched = lake.enter_context(watching(tmp_path, db_url=postgres_url, **server.settings(server.new_bucket())))

        def until(status: int, **found: str) -> None:
            deadline = time.monotonic() + 60
            while (page := watched.get("/ready"))[0] != status or found.items() - json.loads(page[1]).items():
                assert time.monotonic() < deadline, page
                assert watched.get("/health")[0] == 200
                time.sleep(0.1)

        until(200, database="ok", warehouse="ok")
        store.close()
        until(503, database="ok", warehouse="unreachable")
        with s3_server(root, port=port, keys=keys):
            until(200, database="ok", warehouse="ok")
            accept_connections(False)
            until(503, database="unreachable", warehouse="ok")
            accept_connections(True)
            until(200, database="ok", warehouse="ok")
            topic = watched.raw.new_topic("after-all")
            watched.raw.upload(topic, plain_batch(1, 2, 3))
            watched.raw.action("session_finalize", session_uuid=topic.session_uuid)


def _use_up_connections(database: Database, watched: Watched) -> None:
    taken = [database.engine.connect() for _ in range(10)]
    status, text = watched.get("/ready")
    for connection in taken:
        connection.close()
    assert (status, json.loads(text)["database"]) == (503, "unreachable")


def test_whoever_says_nothing_or_nonsense_keeps_nobody_waiting(watched: Watched) -> None:
    silent = [socket.create_connection(("127.0.0.1", watched.status_port)) for _ in range(20)]
    silent[0].sendall(b"\x00\xff nonsense\r\n\r\n")
    silent[1].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    silent[1].close()
    assert watched.get("/health")[0] == 200
    for connection in silent:
        connection.close()


def test_a_taken_port_is_an_error_if_somebody_chose_it(
    watched: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = Settings.load(home=tmp_path, status_port=watched.status_port)
    with Lakehouse.open(chosen) as lakehouse:
        gateway = Gateway(lakehouse)
        with pytest.raises(ConfigurationError, match="for health and metrics: Address already in use; set LAKEHOUSE_"):
            status_server(gateway, lakehouse)
        lakehouse.settings = chosen.model_copy()
        lakehouse.settings.model_fields_set.discard("status_port")
        assert status_server(gateway, lakehouse) is None
    assert "no health page, no metrics" in caplog.text


def test_an_address_of_somebody_else_is_an_error(watched: Watched) -> None:
    server = StatusServer(Gateway(watched.lakehouse).metrics, Readiness(watched.lakehouse), "192.0.2.1", 80)
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1, port 80 for health and metrics"):
        server.start()
