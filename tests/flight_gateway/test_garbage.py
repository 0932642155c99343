"""No request, however malformed, gives anything but a proper refusal."""

import random
from collections.abc import Callable

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

from lakehouse.flight_gateway.actions import ACTIONS
from tests.flight_gateway.raw_client import SERVICE, RawClient, status_of

REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
RPCS = ["DoAction", "DoGet", "GetFlightInfo", "GetSchema", "ListFlights", "DoPut"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["locator", "user_metadata", "session_uuid", "serialization_format", "ontology_tag", "notification_type", "msg"]


def call(raw: RawClient, rpc: str, message: bytes) -> Callable[[], object]:
    channel = raw.channel
    if rpc == "DoPut":
        return lambda: list(channel.stream_stream(SERVICE + rpc)(iter([message]), timeout=20))
    if rpc.startswith("Get"):
        return lambda: channel.unary_unary(SERVICE + rpc)(message, timeout=20)
    return lambda: list(channel.unary_stream(SERVICE + rpc)(message, timeout=20))


def refused_or_answered(function: Callable[[], object]) -> None:
    try:
        function()
    except grpc.RpcError:
        assert status_of(function).code in REFUSALS


@pytest.mark.parametrize("rpc", RPCS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.binary(max_size=40))
def test_random_bytes(raw: RawClient, rpc: str, message: bytes) -> None:
    refused_or_answered(call(raw, rpc, message))


@pytest.mark.parametrize("rpc", RPCS)
def test_damaged_requests(raw: RawClient, rpc: str) -> None:
    generator = random.Random(rpc)
    valid = {
        "DoAction": flight.Action("sequence_notification_list", b'{"locator":"drive"}').serialize(),
        "DoGet": flight.Ticket(b'{"resource_locator":"a/b","created_at_ns":1}').serialize(),
        "ListFlights": b"\x0a\x01/",
    }.get(rpc, flight.FlightDescriptor.for_command(b'{"resource_locator":"drive","topic_uuid":"x"}').serialize())
    if rpc == "DoPut":
        valid = b"\x0a" + bytes([len(valid)]) + valid
    for _ in range(300):
        damaged = bytearray(valid)
        for _ in range(generator.choice([1, 2, 5])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        refused_or_answered(call(raw, rpc, bytes(damaged)))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(action=st.sampled_from(sorted(ACTIONS)), body=st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_any_json_for_any_action(raw: RawClient, action: str, body: object) -> None:
    def do() -> object:
        return raw.action(action, {"body": body} if body is None else body)

    try:
        do()
    except grpc.RpcError as error:
        code = error.code()  # type: ignore[attr-defined]
        if code is not grpc.StatusCode.ALREADY_EXISTS:
            assert status_of(do).code in REFUSALS
