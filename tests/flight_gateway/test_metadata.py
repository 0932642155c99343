"""User metadata: which keys are allowed, and that values come back identical (protocol section 5.4)."""

import json
from typing import Any

import grpc
import pytest
from pyarrow import flight

from tests.flight_gateway.raw_client import RawClient, plain_batch, status_of

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


def stored(raw: RawClient, sequence: str) -> Any:
    return json.loads(raw.describe(sequence).app_metadata)["user_metadata"]


@pytest.mark.parametrize("key", ["", "a.b", "a--b", "--", "é", "a\n", *"()[]{}$*%^+=<>/|@\\\x00\"'!?:;,#~&"])
def test_a_forbidden_key_is_refused_at_any_depth_and_leaves_nothing_behind(raw: RawClient, name: str, key: str) -> None:
    for metadata in ({key: 1}, {"a": {key: 1}}, {"a": [[{"b": {key: None}}]]}):
        refused = status_of(lambda: raw.action("sequence_create", locator=name, user_metadata=metadata))  # noqa: B023
        assert refused.code is INVALID_ARGUMENT
        assert refused.text.startswith("Bad request: invalid json key")
    raw.action("sequence_create", locator=name, user_metadata={"a-b_c d": 1})
    assert stored(raw, name) == {"a-b_c d": 1}


@pytest.mark.parametrize("metadata", ["{}", 7, [], True])
def test_metadata_must_be_an_object(raw: RawClient, name: str, metadata: Any) -> None:
    refused = status_of(lambda: raw.action("sequence_create", locator=name, user_metadata=metadata))
    assert refused.code is INVALID_ARGUMENT


@pytest.mark.parametrize("body", [{}, {"user_metadata": None}, {"user_metadata": {}}])
def test_absent_metadata_is_an_empty_object(raw: RawClient, name: str, body: dict[str, Any]) -> None:
    raw.action("sequence_create", {"locator": name} | body)
    assert stored(raw, name) == {}


def test_values_come_back_identical(raw: RawClient, name: str) -> None:
    metadata = {
        "z": 1,
        "a": 1.0,
        "large": 2**63,
        "larger": -(10**40),
        "small": 5e-324,
        "zero": -0.0,
        "none": None,
        "flags": [True, False, None, [], {}],
        "text": "line\nbreak \u0000 \u00e9 \U0001f697 \ud800 \\ \" ' </script>",
        "nested": {"b": {"c": [{"d": [1, "1", 1.5]}]}},
    }
    raw.action("sequence_create", locator=name, user_metadata=metadata)
    found = stored(raw, name)
    assert json.dumps(found) == json.dumps(metadata)


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", pytest.param(b"1" * 10_000, id="long")]
)
def test_numbers_that_json_cannot_return_are_refused(raw: RawClient, name: str, number: bytes) -> None:
    body = b'{"locator":"' + name.encode() + b'","user_metadata":{"n":' + number + b"}}"
    assert status_of(lambda: raw.action("sequence_create", body)).code is INVALID_ARGUMENT


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"{}{}", b"[" * 200_000, b'{"a":' * 200_000]
)
def test_a_payload_that_is_no_json_object_is_refused(raw: RawClient, body: bytes) -> None:
    assert status_of(lambda: raw.action("sequence_create", body)).code is INVALID_ARGUMENT


def test_deeply_nested_metadata_is_stored_or_refused(raw: RawClient, name: str) -> None:
    for depth in (50, 500, 900, 2000, 50_000):
        sequence = f"{name}-{depth}"
        body = b'{"locator":"%s","user_metadata":{"a":%s%s}}' % (sequence.encode(), b"[" * depth, b"]" * depth)
        try:
            raw.action("sequence_create", body)
        except grpc.RpcError:
            assert status_of(lambda: raw.action("sequence_create", body)).code is INVALID_ARGUMENT  # noqa: B023
        else:
            assert raw.describe(sequence).app_metadata


def test_several_megabytes_of_metadata_pass(raw: RawClient, arrow: flight.FlightClient, name: str) -> None:
    metadata = {"_ros_": {"definitions": "x" * (6 << 20)}}
    raw.action("sequence_create", locator=name, user_metadata=metadata)
    session = raw.action("session_create", locator=name)
    topic = raw.add_topic(name, session, "imu", user_metadata=metadata)
    raw.upload(topic, plain_batch(1))
    assert stored(raw, name) == metadata
    info = raw.describe(topic.locator)
    assert json.loads(info.endpoints[0].app_metadata)["user_metadata"] == metadata
    assert arrow.do_get(info.endpoints[0].ticket).read_all().num_rows == 1


def test_a_sequence_of_a_thousand_topics_is_described(raw: RawClient, arrow: flight.FlightClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    note = {"note": "x" * 10_000}
    for number in range(1000):
        raw.add_topic(name, session, f"sensors/number/{number}", user_metadata=note)
    descriptor = flight.FlightDescriptor.for_command(json.dumps({"resource_locator": name}))
    info = arrow.get_flight_info(descriptor)
    assert len(info.endpoints) == 1000
    assert len(info.serialize()) > 10 << 20
