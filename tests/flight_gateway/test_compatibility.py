"""What clients of the generations 0.5 and 0.6 need besides the newer keys (protocol section 16)."""

import json

from pyarrow import flight

from tests.flight_gateway.raw_client import RawClient, plain_batch


def test_endpoints_carry_the_older_info_block(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    empty = json.loads(raw.describe(name).endpoints[0].app_metadata)
    assert empty["info"] == {"chunks_number": 0, "total_bytes": 0, "timestamp": None}
    raw.upload(topic, plain_batch(3, 5))
    for bounds in ({}, {"timestamp_ns_start": 4}):
        filled = json.loads(raw.describe(topic.locator, **bounds).endpoints[0].app_metadata)
        assert filled["info"]["chunks_number"] == filled["data_info"]["total_chunks_count"] == 1
        assert filled["info"]["total_bytes"] == filled["data_info"]["total_bytes"] > 0
        assert filled["info"]["timestamp"] == {"start_ns": 3, "end_ns": 5}


def test_sessions_have_a_public_uuid(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    (session,) = json.loads(raw.describe(name).app_metadata)["sessions"]
    assert session["uuid"] != topic.session_uuid
    raw.action("session_delete", session_uuid=session["uuid"])
    assert json.loads(raw.describe(name).app_metadata)["sessions"] == []


def test_schemas_carry_what_older_clients_read_from_their_metadata(
    raw: RawClient, arrow: flight.FlightClient, name: str
) -> None:
    raw.action("sequence_create", locator=name, user_metadata={"vehicle": "v7"})
    session = raw.action("session_create", locator=name)
    topic = raw.add_topic(name, session, "imu", user_metadata={"rate": 1}, ontology_tag="IMU")
    raw.upload(topic, plain_batch(3, 5, 9))
    of_sequence = raw.describe(name).schema.metadata
    assert of_sequence[b"mosaico:context"] == b"sequence"
    assert json.loads(of_sequence[b"mosaico:user_metadata"]) == {"vehicle": "v7"}
    info = raw.describe(topic.locator, timestamp_ns_start=4)
    assert info.schema.metadata[b"mosaico:context"] == b"topic"
    properties = {"ontology_tag": "IMU", "serialization_format": "default"}
    assert json.loads(info.schema.metadata[b"mosaico:properties"]) == properties
    stream = arrow.do_get(info.endpoints[0].ticket).schema.metadata
    assert json.loads(stream[b"mosaico:user_metadata"]) == {"rate": 1}
    assert json.loads(stream[b"mosaico:properties"]) == properties | {
        "message_count": 2,
        "timestamp_ns_min": 5,
        "timestamp_ns_max": 9,
    }


def test_the_pure_schema_has_none_of_it(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    assert raw.schema(topic.locator).metadata is None
