"""Keys, passwords and the UUIDs that entitle to write are in no log of a gateway."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import psycopg
from sqlalchemy import make_url

from lakehouse.catalog.access.api_keys import ApiKeys
from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.access.tokens import Token
from lakehouse.catalog.control_plane.migrate import open_database
from lakehouse.catalog.settings import Settings
from tests.flight_gateway.raw_client import SERVICE, RawClient, plain_batch, status_of, upload_messages
from tests.flight_gateway.test_run_command import running
from tests.processes import free_port
from tests.refusing_catalog import refusing_catalog
from tests.s3_server import s3_server
from tests.warehouses import environment as environment_of

PASSWORD = "hunter2-of-the-database"
STORE_KEYS = ("access-key-of-the-store", "secret-key-of-the-store")
TOKEN = "token-of-the-catalog"
OPTIONS = ["--log-level", "debug", "--log-format", "json"]


def test_a_gateway_logs_no_secret_at_debug_level_whatever_happens(tmp_path: Path, postgres_url: str, name: str) -> None:
    url = make_url(postgres_url).set(password=PASSWORD)
    extra = {"MOSAICOD_DB_URL": url.render_as_string(hide_password=False)}
    database = open_database(Settings.load(home=tmp_path, db_url=postgres_url))
    keys = ApiKeys(database)
    key, reader = (keys.create(parse_permissions(word))[0].reveal() for word in ("manage", "read"))
    database.close()
    port = free_port()
    with running(tmp_path, port, "--api-key", *OPTIONS, **extra) as process:
        clients = [RawClient(port, each) for each in (key, reader, Token.generate().reveal(), key[:-1])]
        topic = clients[0].new_topic(name)
        clients[0].upload(topic, plain_batch(1, 2, 3))
        for client in clients[1:]:
            refused = status_of(lambda client=client: client.action("session_create", locator=name))
            assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
            connection.execute("ALTER TABLE sessions RENAME TO lost")
        failed = status_of(lambda: clients[0].action("session_finalize", session_uuid=topic.session_uuid))
        assert failed.code is grpc.StatusCode.INTERNAL
        clients[0].close()
        for client in clients[1:]:
            client.close()
        log = (tmp_path / "log").read_text()
        assert process.poll() is None
    assert "Traceback" in log
    assert f"key {key[-8:]}" in log
    for secret in (key[5:37], reader[5:37], PASSWORD, topic.session_uuid, topic.uuid):
        assert secret not in log


def test_a_gateway_whose_store_goes_away_in_mid_upload_logs_no_key(tmp_path: Path, name: str) -> None:
    port = free_port()
    with ExitStack() as store:
        server = store.enter_context(s3_server(tmp_path / "store", keys=STORE_KEYS))
        bucket = server.new_bucket()
        variables = {
            **environment_of(server.settings(bucket)),
            "MOSAICOD_MAX_CHUNK_SIZE_IN_BYTES": str(1 << 20),
            "MOSAICOD_PARQUET_IN_MEMORY_ENCODING_BUFFER_SIZE": str(1 << 20),
        }
        with running(tmp_path, port, *OPTIONS, **variables) as process:
            raw = RawClient(port)
            topic = raw.new_topic(name)
            schema, *batches = upload_messages(topic, *[plain_batch(*range(k, 10**7, 100)) for k in range(10)])

            def going_on_without_the_store() -> Iterator[bytes]:
                yield schema
                yield from batches[:5]
                while not any((server.root / bucket).rglob("*.parquet")):
                    time.sleep(0.05)
                store.close()
                yield from batches[5:]

            upload = raw.channel.stream_stream(SERVICE + "DoPut")
            failed = status_of(lambda: list(upload(going_on_without_the_store(), timeout=120)))
            assert failed.code is grpc.StatusCode.INTERNAL
            assert "could not be written" in failed.text, "not that its files could not be removed either"
            raw.close()
            assert process.poll() is None
            log = (tmp_path / "log").read_text()
    assert "Traceback" in log
    for secret in STORE_KEYS:
        assert secret not in log


def test_a_gateway_whose_catalog_refuses_it_one_day_logs_no_token(tmp_path: Path, name: str) -> None:
    port = free_port()
    with refusing_catalog() as catalog:
        variables = {"LAKEHOUSE_CATALOG_URI": catalog.uri, "LAKEHOUSE_CATALOG_TOKEN": TOKEN}
        catalog.greets = True
        with running(tmp_path, port, *OPTIONS, **variables):
            raw = RawClient(port)
            topic = raw.new_topic(name)
            told = []
            # The first: an answer that says it went well, and makes no sense.
            for catalog.status in (200, 400, 401, 500, 501):
                failed = status_of(lambda: raw.upload(topic, plain_batch(1, 2, 3)))
                assert failed.code is grpc.StatusCode.INTERNAL
                assert "catalog" in failed.text
                told.append(failed.text)
            raw.close()
            log = (tmp_path / "log").read_text()
        assert TOKEN in catalog.shown
    assert len(set(told)) == 5
    assert "HTTP status 400" in told[1]
    assert "Traceback" in log
    # Not hidden, but never there: what an authorization server gives is in no setting by which it could be found.
    for text in (TOKEN, "***", "no access with"):
        assert text not in log + "".join(told)
