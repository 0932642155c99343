"""API keys at the gateway: every call is checked, before anything else (protocol section 4, checklist item 18)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from mosaicolabs import MosaicoClient
from pyarrow import flight
from sqlalchemy import select

from lakehouse.catalog.access.permissions import Permission, parse_permissions
from lakehouse.catalog.access.tokens import Token
from lakehouse.catalog.control_plane.schema import audit_log
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.actions import ACTIONS
from lakehouse.flight_gateway.authorizer import KeyRequired
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.raw_client import (
    RawClient,
    plain_batch,
    status_of,
)
from tests.postgres_server import fresh_database


@dataclass(frozen=True)
class Guarded:
    """Two gateways that ask for keys, on one database."""

    lakehouse: Lakehouse
    ports: tuple[int, int]

    def key(self, permissions: str, *, exact: bool = True, expires_at_ns: int | None = None) -> str:
        granted = parse_permissions(permissions, exact=exact)
        token, _ = self.lakehouse.api_keys.create(granted, expires_at_ns=expires_at_ns)
        return token.reveal()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("lake")
    if request.param == "sqlite":
        yield from _two_gateways(home, "")
    else:
        with fresh_database(request.getfixturevalue("postgres_host"), f"guarded_{home.name}_{time.time_ns()}") as url:
            yield from _two_gateways(home, url)


def _two_gateways(home: Path, database_url: str) -> Iterator[Guarded]:
    settings = Settings.load(home=home, db_url=database_url)
    with Lakehouse.open(settings) as lakehouse, Lakehouse.open(settings) as other:
        gateways = [Gateway(lake, port=0, authorizer=KeyRequired(lake.api_keys)) for lake in (lakehouse, other)]
        first, second = (gateway.start() for gateway in gateways)
        yield Guarded(lakehouse, (first, second))
        for gateway in gateways:
            gateway.stop(grace=2)


@pytest.fixture(scope="module")
def client_with(guarded: Guarded) -> Iterator[Callable[[str], RawClient]]:
    clients: dict[str, RawClient] = {}

    def client(key: str) -> RawClient:
        if key not in clients:
            clients[key] = RawClient(guarded.ports[0], key)
        return clients[key]

    yield client
    for each in clients.values():
        each.close()


ClientWith = Callable[[str], RawClient]


def calls_of_every_kind(raw: RawClient, message: bytes) -> list[Callable[[], object]]:
    return [
        *(lambda action=action: raw.action(action, message) for action in [*ACTIONS, "nonsense"]),
        lambda: raw.unary_raw("GetFlightInfo", message),
        lambda: raw.unary_raw("GetSchema", message),
        lambda: raw.names(),
        lambda: raw.get(message),
        lambda: raw.put([message]),
    ]


def outcome(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("message", [b"{}", b"\xff", flight.FlightDescriptor.for_command(b"{}").serialize()])
def test_nothing_without_a_key_not_even_what_is_malformed(client_with: ClientWith, message: bytes) -> None:
    for call in calls_of_every_kind(client_with(""), message):
        refused = status_of(call)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert "an API key is missing in the request header 'mosaico-api-key-token'" in refused.text


def test_unknown_expired_and_revoked_keys_open_nothing(guarded: Guarded, client_with: ClientWith) -> None:
    expired = guarded.key("manage", exact=False, expires_at_ns=time.time_ns() + 1)
    revoked = guarded.key("manage", exact=False)
    guarded.lakehouse.api_keys.revoke(revoked[-8:])
    for key, reason in [
        (Token.generate().reveal(), "does not exist"),
        (revoked, "does not exist"),
        (expired, "has expired"),
    ]:
        for call in calls_of_every_kind(client_with(key), b"{}"):
            refused = status_of(call)
            assert refused.code is grpc.StatusCode.PERMISSION_DENIED
            assert reason in refused.text
            assert key[:37] not in refused.text


def test_malformed_keys_are_called_so(guarded: Guarded, client_with: ClientWith) -> None:
    key = guarded.key("manage", exact=False)
    for malformed in ("nonsense", key[:-1], key.upper(), key + "0", key[:5] + "0" * 32 + key[37:]):
        refused = status_of(client_with(malformed).names)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert "the API key is malformed" in refused.text
        assert malformed not in refused.text


@pytest.mark.parametrize("permission", ["read", "write", "delete"])
def test_an_exact_permission_opens_its_calls_and_no_others(
    guarded: Guarded, client_with: ClientWith, permission: str
) -> None:
    raw = client_with(guarded.key(permission))
    needed = [
        *(ACTIONS[action].permission for action in ACTIONS),
        Permission.ANY,
        *[Permission.READ] * 4,
        Permission.WRITE,
    ]
    for call, wanted in zip(calls_of_every_kind(raw, b"\xff"), needed, strict=True):
        if wanted in (Permission.ANY, Permission(permission)):
            assert outcome(call) in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
        else:
            refused = status_of(call)
            assert refused.code is grpc.StatusCode.PERMISSION_DENIED
            assert f"lacks the permission '{wanted}'" in refused.text


@pytest.mark.parametrize(("word", "rung"), [("read", 1), ("write", 2), ("delete", 3), ("manage", 3)])
def test_the_ladder_with_the_sdk(guarded: Guarded, name: str, word: str, rung: int) -> None:
    with MosaicoClient.connect("127.0.0.1", guarded.ports[0], api_key=guarded.key("manage", exact=False)) as admin:
        raw = RawClient(guarded.ports[0], guarded.key("write", exact=False))
        topic = raw.new_topic(name)
        raw.upload(topic, plain_batch(1, 2, 3))
        raw.action("session_finalize", session_uuid=topic.session_uuid)
        raw.close()
        assert admin.sequence_handler(name) is not None
    with MosaicoClient.connect("127.0.0.1", guarded.ports[1], api_key=guarded.key(word, exact=False)) as client:
        handler = client.topic_handler(name, "imu/front")
        assert handler is not None
        assert len(list(handler.get_data_streamer())) == 3
        if rung < 2:
            with pytest.raises(flight.FlightUnauthorizedError):
                client.sequence_create(f"{name}-new", {}).__enter__()
        else:
            assert client.sequence_create(f"{name}-new", {}) is not None
        if rung < 3:
            with pytest.raises(flight.FlightUnauthorizedError):
                client.sequence_delete(name)
        else:
            client.sequence_delete(name)
            assert client.sequence_handler(name) is None


def test_the_sdk_hears_that_it_may_not_instead_of_not_found(guarded: Guarded, name: str) -> None:
    """Checklist 18: no key, unknown key, expired key, missing permission."""
    port = guarded.ports[0]
    for key in (None, Token.generate().reveal(), guarded.key("read", expires_at_ns=time.time_ns() + 1)):
        with pytest.raises(ConnectionError, match="Unauthorized"):
            MosaicoClient.connect("127.0.0.1", port, timeout=0, api_key=key)
    with MosaicoClient.connect("127.0.0.1", port, api_key=guarded.key("write")) as client:
        with pytest.raises(flight.FlightUnauthorizedError):
            client.sequence_handler(name)
        with pytest.raises(flight.FlightUnauthorizedError):
            client.topic_handler(name, "imu")
        with pytest.raises(flight.FlightUnauthorizedError):
            client.list_sequences()
        with pytest.raises(flight.FlightUnauthorizedError):
            client.sequence_delete(name)


def test_a_connected_sdk_loses_every_right_in_all_gateways_when_its_key_is_revoked(guarded: Guarded, name: str) -> None:
    key = guarded.key("manage", exact=False)
    clients = [MosaicoClient.connect("127.0.0.1", port, api_key=key) for port in guarded.ports]
    for client in clients:
        assert client.sequence_handler(name) is None
    guarded.lakehouse.api_keys.revoke(key[-8:])
    for client in clients:
        with pytest.raises(flight.FlightUnauthorizedError):
            client.sequence_handler(name)
        with pytest.raises(flight.FlightUnauthorizedError):
            client.topic_handler(name, "imu")
        client.close()


def test_the_audit_log_names_the_key(guarded: Guarded, client_with: ClientWith, name: str) -> None:
    writer, deleter = guarded.key("write", exact=False), guarded.key("delete", exact=False)
    topic = client_with(writer).new_topic(name)
    client_with(writer).upload(topic, plain_batch(1))
    client_with(writer).action("session_finalize", session_uuid=topic.session_uuid)
    client_with(deleter).action("sequence_delete", locator=name)
    with guarded.lakehouse.database.snapshot() as connection:
        query = select(audit_log.c.operation, audit_log.c.actor).where(audit_log.c.resource.startswith(name))
        actors = {row.operation: row.actor for row in connection.execute(query)}
    assert actors["session_finalize"] == f"key {writer[-8:]}"
    assert actors["sequence_delete"] == f"key {deleter[-8:]}"


def test_every_action_names_its_permission() -> None:
    by_permission: dict[Permission, set[str]] = {permission: set() for permission in Permission}
    for action, entry in ACTIONS.items():
        by_permission[entry.permission].add(action)
    assert by_permission[Permission.ANY] == {"info", "version"}
    assert by_permission[Permission.DELETE] == {action for action in ACTIONS if action.endswith(("_delete", "_purge"))}
    assert by_permission[Permission.WRITE] == {
        action for action in ACTIONS if action.endswith(("_create", "_finalize"))
    }
