"""GetFlightInfo, GetSchema and ListFlights (protocol section 9)."""

import json
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_gateway.raw_client import PLAIN_SCHEMA, RawClient, plain_batch, status_of

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
METADATA = {
    "vehicle": {"id": "v7", "n": 1, "f": 1.0},
    "tags": ["rain", None, True],
    "big": 2**70,
    "text": "\u00fc\U0001f697\x00",
}


def test_a_sequence_lists_its_sessions_and_topics(raw: RawClient, name: str) -> None:
    metadata = METADATA
    raw.action("sequence_create", locator=name, user_metadata=metadata)
    first = raw.action("session_create", locator=name)
    second = raw.action("session_create", locator=name)
    imu = raw.add_topic(name, first, "imu", user_metadata={"rate": 100})
    raw.upload(imu, plain_batch(1, 2))
    raw.action("session_finalize", session_uuid=first["uuid"])
    raw.add_topic(name, second, "gps")

    info = raw.describe(name)
    assert len(info.schema) == 0
    assert json.loads(info.descriptor.command) == {"resource_locator": name}
    about = json.loads(info.app_metadata)
    assert about["resource_locator"] == name
    assert about["user_metadata"] == metadata
    assert list(about["user_metadata"]) == list(metadata)
    assert [session["locator"] for session in about["sessions"]] == [first["locator"], second["locator"]]
    assert [session["locked"] for session in about["sessions"]] == [True, False]
    assert [session["topics"] for session in about["sessions"]] == [[f"{name}/imu"], [f"{name}/gps"]]
    assert about["sessions"][0]["completed_at_ns"] > about["sessions"][0]["created_at_ns"]
    assert about["sessions"][1]["completed_at_ns"] is None

    endpoints = [json.loads(endpoint.app_metadata) for endpoint in info.endpoints]
    assert [endpoint["resource_locator"] for endpoint in endpoints] == [f"{name}/imu", f"{name}/gps"]
    assert [endpoint["locked"] for endpoint in endpoints] == [True, False]
    assert endpoints[0]["user_metadata"] == {"rate": 100}
    assert endpoints[0]["ontology_tag"] == "Plain"
    assert endpoints[0]["serialization_format"] == "default"
    assert endpoints[0]["time_window_info"] is None
    assert all(endpoint.locations == [] for endpoint in info.endpoints)


def test_capabilities_are_revealed_to_their_creator_only(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    for locator in (name, topic.locator):
        described = raw.describe(locator).serialize()
        assert topic.uuid.encode() not in described
        assert topic.session_uuid.encode() not in described
    public_uuid = json.loads(raw.describe(name).app_metadata)["sessions"][0]["uuid"]
    finalize = status_of(lambda: raw.action("session_finalize", session_uuid=public_uuid))
    assert finalize.code is grpc.StatusCode.NOT_FOUND


def test_a_topic_has_one_endpoint_and_its_schema(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    assert len(raw.describe(topic.locator).schema) == 0
    assert len(raw.schema(topic.locator)) == 0
    raw.upload(topic, plain_batch(1))
    info = raw.describe(topic.locator)
    assert len(info.endpoints) == 1
    assert info.schema.equals(PLAIN_SCHEMA)
    assert raw.schema(topic.locator).equals(PLAIN_SCHEMA, check_metadata=True)


def test_repeated_descriptions_are_equal(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    for locator in (name, topic.locator):
        assert raw.describe(locator).serialize() == raw.describe(locator).serialize()


def window(raw: RawClient, locator: str, **bounds: Any) -> Any:
    endpoint = json.loads(raw.describe(locator, **bounds).endpoints[0].app_metadata)
    assert endpoint["data_info"]["total_row_count"] == 5
    assert endpoint["data_info"]["interval"] == {"start_ns": -10, "end_ns": 40}
    return endpoint["time_window_info"]


def test_a_window_includes_its_start_and_excludes_its_end(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(40, 0, 10), plain_batch(-10, 10))
    for locator in (topic.locator, name):
        assert window(raw, locator) is None
        assert window(raw, locator, timestamp_ns_start=None, timestamp_ns_end=None) is None
        assert window(raw, locator, timestamp_ns_start=0, timestamp_ns_end=40) == {
            "interval": {"start_ns": 0, "end_ns": 10},
            "row_count": 3,
        }
        assert window(raw, locator, timestamp_ns_start=1)["row_count"] == 3
        assert window(raw, locator, timestamp_ns_end=0) == {
            "interval": {"start_ns": -10, "end_ns": -10},
            "row_count": 1,
        }
        assert window(raw, locator, timestamp_ns_start=11, timestamp_ns_end=40) == {"interval": None, "row_count": 0}
        assert window(raw, locator, timestamp_ns_start=10, timestamp_ns_end=10) == {"interval": None, "row_count": 0}
        beyond = window(raw, locator, timestamp_ns_start=-(2**63), timestamp_ns_end=2**63 - 1)
        assert beyond["row_count"] == 5


@pytest.mark.parametrize(
    "bounds",
    [
        {"timestamp_ns_start": 2, "timestamp_ns_end": 1},
        {"timestamp_ns_start": "1"},
        {"timestamp_ns_start": 1.5},
        {"timestamp_ns_end": True},
        {"timestamp_ns_end": 2**63},
        {"timestamp_ns_start": -(2**63) - 1},
    ],
)
def test_a_malformed_window_is_an_invalid_argument(raw: RawClient, name: str, bounds: dict[str, Any]) -> None:
    raw.action("sequence_create", locator=name)
    assert status_of(lambda: raw.describe(name, **bounds)).code is INVALID_ARGUMENT


def test_what_does_not_exist_is_not_found(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    for locator in (f"{name}-x", f"{name}/nowhere"):
        assert status_of(lambda: raw.describe(locator)).code is grpc.StatusCode.NOT_FOUND  # noqa: B023
    assert status_of(lambda: raw.schema(f"{name}/nowhere")).code is grpc.StatusCode.NOT_FOUND


def test_sessions_cannot_be_described_and_sequences_have_no_schema(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    assert status_of(lambda: raw.describe(topic.session_locator)).code is INVALID_ARGUMENT
    assert status_of(lambda: raw.schema(topic.session_locator)).code is INVALID_ARGUMENT
    assert status_of(lambda: raw.schema(name)).code is INVALID_ARGUMENT


@pytest.mark.parametrize("rpc", ["GetFlightInfo", "GetSchema"])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xff\xff",
        flight.FlightDescriptor.for_path("drive").serialize(),
        flight.FlightDescriptor.for_command(b"not json").serialize(),
        flight.FlightDescriptor.for_command(b'{"resource_locator":null}').serialize(),
        flight.FlightDescriptor.for_command(b"{}").serialize(),
        flight.FlightDescriptor.for_command(b'{"resource_locator":"a","timestamp_ns_start":NaN}').serialize(),
    ],
)
def test_a_bad_descriptor_is_an_invalid_argument(raw: RawClient, rpc: str, message: bytes) -> None:
    assert status_of(lambda: raw.unary_raw(rpc, message)).code is INVALID_ARGUMENT


def test_flights_are_the_sequences_sorted_by_name(raw: RawClient, arrow: flight.FlightClient, name: str) -> None:
    for suffix in ("b", "a", "C"):
        raw.action("sequence_create", locator=f"{name}-{suffix}")
    listed = [listed for listed in raw.names() if listed.startswith(f"{name}-")]
    assert listed == [f"{name}-C", f"{name}-a", f"{name}-b"]
    assert raw.names(b"\x0a\x01/") == raw.names()
    assert all(isinstance(info.schema, pa.Schema) for info in arrow.list_flights())
    assert status_of(lambda: raw.names(b"\x0a\x05drive")).code is INVALID_ARGUMENT
    assert status_of(lambda: raw.names(b"\x0a\xff")).code is INVALID_ARGUMENT
