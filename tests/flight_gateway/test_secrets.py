"""Keys, passwords and the UUIDs that entitle to write are in no log of a gateway."""

from pathlib import Path

import grpc
import psycopg
from sqlalchemy import make_url

from lakehouse.catalog.access.api_keys import ApiKeys
from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.access.tokens import Token
from lakehouse.catalog.control_plane.migrate import open_database
from lakehouse.catalog.settings import Settings
from tests.flight_gateway.raw_client import RawClient, plain_batch, status_of
from tests.flight_gateway.test_run_command import free_port, running

PASSWORD = "hunter2-of-the-database"
SECRETS = {
    "MOSAICOD_STORE_ACCESS_KEY": "access-key-of-the-store",
    "MOSAICOD_STORE_SECRET_KEY": "secret-key-of-the-store",
}


def test_a_gateway_logs_no_secret_at_debug_level_whatever_happens(tmp_path: Path, postgres_url: str, name: str) -> None:
    url = make_url(postgres_url).set(password=PASSWORD)
    extra = {**SECRETS, "MOSAICOD_DB_URL": url.render_as_string(hide_password=False)}
    database = open_database(Settings.load(home=tmp_path, db_url=postgres_url))
    keys = ApiKeys(database)
    key, reader = (keys.create(parse_permissions(word))[0].reveal() for word in ("manage", "read"))
    database.close()
    port = free_port()
    options = ["--api-key", "--log-level", "debug", "--log-format", "json"]
    with running(tmp_path, port, *options, **extra) as process:
        clients = [RawClient(port, each) for each in (key, reader, Token.generate().reveal(), key[:-1])]
        topic = clients[0].new_topic(name)
        clients[0].upload(topic, plain_batch(1, 2, 3))
        for client in clients[1:]:
            assert status_of(lambda client=client: client.action("session_create", locator=name)).code in (
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNAUTHENTICATED,
            )
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
    for secret in (key[5:37], reader[5:37], PASSWORD, topic.session_uuid, topic.uuid, *SECRETS.values()):
        assert secret not in log
