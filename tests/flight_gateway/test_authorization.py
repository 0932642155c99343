"""The hook for permissions: every call is checked, and before anything else (protocol section 4)."""

from collections.abc import Iterator, Mapping

import grpc
import pytest
from mosaicolabs import MosaicoClient
from pyarrow import flight

from lakehouse.catalog.errors import PermissionDeniedError
from lakehouse.flight_gateway.actions import ACTIONS
from lakehouse.flight_gateway.authorizer import Permission
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import SERVICE, RawClient, status_of


class Doorman:
    """Lets in what is on the list; the key is the list."""

    def check(self, permission: Permission, headers: Mapping[str, str | bytes]) -> None:
        allowed = str(headers.get("mosaico-api-key-token", "")).split("+")
        if permission.value not in allowed and not (permission is Permission.ANY and allowed != [""]):
            raise PermissionDeniedError("not enough permissions")


@pytest.fixture(scope="module")
def guarded_port(served: Served) -> Iterator[int]:
    gateway = Gateway(served.lakehouse, port=0, authorizer=Doorman())
    yield gateway.start()
    gateway.stop()


@pytest.fixture(scope="module")
def guarded(guarded_port: int) -> Iterator[RawClient]:
    client = RawClient(guarded_port)
    yield client
    client.close()


@pytest.mark.parametrize("action", [*ACTIONS, "nonsense"])
@pytest.mark.parametrize("body", [b"{}", b"\xff"])
def test_no_action_without_permission_not_even_a_malformed_one(guarded: RawClient, action: str, body: bytes) -> None:
    refused = status_of(lambda: guarded.action(action, body))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert "Unauthorized" in refused.text


@pytest.mark.parametrize("message", [b"", b"\xff", flight.FlightDescriptor.for_command(b"{}").serialize()])
def test_no_rpc_without_permission(guarded: RawClient, message: bytes) -> None:
    channel = guarded.channel
    for call in (
        lambda: guarded.unary_raw("GetFlightInfo", message),
        lambda: guarded.unary_raw("GetSchema", message),
        lambda: list(channel.unary_stream(SERVICE + "DoGet")(message)),
        lambda: list(channel.unary_stream(SERVICE + "ListFlights")(message)),
        lambda: list(channel.stream_stream(SERVICE + "DoPut")(iter([message]))),
    ):
        assert status_of(call).code is grpc.StatusCode.PERMISSION_DENIED


def test_the_sdk_hears_that_it_may_not(guarded_port: int, raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    with pytest.raises(ConnectionError):
        MosaicoClient.connect("127.0.0.1", guarded_port, timeout=1)
    with MosaicoClient.connect("127.0.0.1", guarded_port, api_key="write") as client:
        with pytest.raises(flight.FlightUnauthorizedError):
            client.sequence_handler(name)
        with pytest.raises(flight.FlightUnauthorizedError):
            client.topic_handler(name, "imu")
        with pytest.raises(flight.FlightUnauthorizedError):
            client.sequence_delete(name)
    with MosaicoClient.connect("127.0.0.1", guarded_port, api_key="read+delete") as client:
        assert client.sequence_handler(name) is not None
        client.sequence_delete(name)


def test_every_action_names_its_permission() -> None:
    by_permission: dict[Permission, set[str]] = {permission: set() for permission in Permission}
    for action, entry in ACTIONS.items():
        by_permission[entry.permission].add(action)
    assert by_permission[Permission.ANY] == {"info", "version"}
    assert by_permission[Permission.DELETE] == {action for action in ACTIONS if action.endswith(("_delete", "_purge"))}
    assert by_permission[Permission.WRITE] == {
        action for action in ACTIONS if action.endswith(("_create", "_finalize"))
    }
