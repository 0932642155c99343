"""The first things a client does: connect and ask what it is talking to."""

import grpc
import pytest
from mosaicolabs import MosaicoClient

from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import SERVICE, RawClient, status_of


def test_info_has_every_value_that_clients_need(raw: RawClient, served: Served) -> None:
    answer = raw.action("info", {})
    assert answer["version"] == "0.7.0"
    assert answer["semver"] == {"major": 0, "minor": 7, "patch": 0, "pre": None}
    settings = served.lakehouse.settings
    assert answer["config"] == {
        "grpc_max_decode_message_size": settings.max_grpc_message_size,
        "grpc_max_encode_message_size": 2**31 - 1,
        "grpc_target_encode_message_size": settings.target_message_size,
    }


def test_older_clients_ask_for_the_version_only(raw: RawClient) -> None:
    assert set(raw.action("version", {})) == {"version", "semver"}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"unknown":1}'])
def test_info_needs_no_payload(raw: RawClient, body: bytes) -> None:
    assert raw.action("info", body)["version"]


def test_the_sdk_connects(served: Served) -> None:
    with MosaicoClient.connect("127.0.0.1", served.port, timeout=5) as client:
        assert client.info().config.grpc_max_decode_message_size == served.lakehouse.settings.max_grpc_message_size


@pytest.mark.parametrize("rpc", ["ListActions", "PollFlightInfo", "Handshake", "DoExchange"])
def test_other_rpcs_are_unimplemented(raw: RawClient, rpc: str) -> None:
    if rpc in ("Handshake", "DoExchange"):
        status = status_of(lambda: list(raw.channel.stream_stream(SERVICE + rpc)(iter([b""]))))
    elif rpc == "ListActions":
        status = status_of(lambda: list(raw.channel.unary_stream(SERVICE + rpc)(b"")))
    else:
        status = status_of(lambda: raw.unary_raw(rpc, b""))
    assert status.code is grpc.StatusCode.UNIMPLEMENTED
    assert rpc in status.text


@pytest.mark.parametrize("action", ["", "nonsense", "Info", pytest.param("x" * 100_000, id="long")])
def test_an_unknown_action_is_an_invalid_argument(raw: RawClient, action: str) -> None:
    assert status_of(lambda: raw.action(action, {})).code is grpc.StatusCode.INVALID_ARGUMENT
