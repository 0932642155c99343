"""DoPut: what a topic accepts, what it refuses, and what an acknowledged upload means (protocol section 8)."""

import json
import re

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from lakehouse.flight_gateway.ipc_encoder import BatchEncoder
from lakehouse.flight_gateway.wire import write_flight_data
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import (
    PLAIN_SCHEMA,
    RawClient,
    plain_batch,
    status_of,
    upload_command,
    upload_messages,
    with_descriptor,
)
from tests.warehouses import BOTH

WAREHOUSES = BOTH
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
SCHEMA_MESSAGE = BatchEncoder(PLAIN_SCHEMA).schema_message()
STRANGER = "00000000-0000-4000-8000-000000000000"


def endpoint_of(raw: RawClient, locator: str) -> dict:
    return json.loads(raw.describe(locator).endpoints[0].app_metadata)


def test_an_acknowledged_upload_is_final_and_readable_before_the_session_is(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(10, 20), plain_batch(30))
    endpoint = endpoint_of(raw, topic.locator)
    assert endpoint["locked"] is True
    assert endpoint["completed_at_ns"] > 0
    assert endpoint["data_info"]["interval"] == {"start_ns": 10, "end_ns": 30}
    assert endpoint["data_info"]["total_row_count"] == 3


def test_a_schema_without_rows_finalizes_the_topic(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic)
    assert endpoint_of(raw, topic.locator)["data_info"] == {
        "interval": None,
        "total_row_count": 0,
        "total_bytes": 0,
        "total_chunks_count": 0,
    }
    raw.action("session_finalize", session_uuid=topic.session_uuid)


def test_empty_batches_are_ignored(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(), plain_batch(5), plain_batch(), plain_batch())
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 1


def test_a_schema_of_timestamps_alone_is_legal(raw: RawClient, name: str) -> None:
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False)])
    topic = raw.new_topic(name)
    raw.upload(topic, pa.record_batch([pa.array([1, 2], pa.int64())], schema=schema), schema=schema)
    assert raw.schema(topic.locator).equals(schema)
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 2


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([]),
        pa.schema([pa.field("x", pa.int64())]),
        pa.schema([pa.field("Timestamp_ns", pa.int64())]),
        pa.schema([pa.field("timestamp_ns", pa.int32())]),
        pa.schema([pa.field("timestamp_ns", pa.timestamp("ns"))]),
        pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("timestamp_ns", pa.int64())]),
        pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("nothing", pa.null())]),
        pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("either", pa.dense_union([pa.field("a", "int8")]))]),
        pa.schema([pa.field("timestamp_ns", pa.int64()), *(pa.field(f"c{i}", pa.int8()) for i in range(10_001))]),
    ],
    ids=lambda schema: f"{len(schema)} columns" if len(schema) > 2 else str(schema).replace("\n", ", "),
)
def test_an_unsupported_schema_is_refused_at_the_start(raw: RawClient, name: str, schema: pa.Schema) -> None:
    topic = raw.new_topic(name)
    refused = status_of(lambda: raw.put(upload_messages(topic, schema=schema)))
    assert refused.code is INVALID_ARGUMENT
    assert "Unsupported schema" in refused.text
    assert endpoint_of(raw, topic.locator)["locked"] is False


def test_a_refused_schema_leaves_the_topic_free_for_a_better_one(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    status_of(lambda: raw.put(upload_messages(topic, schema=pa.schema([pa.field("x", pa.int64())]))))
    raw.upload(topic, plain_batch(1))


def test_a_schema_nested_too_deeply_is_refused(raw: RawClient, name: str) -> None:
    deep = pa.int8()
    for _ in range(100):
        deep = pa.list_(deep)
    schema = pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("deep", deep)])
    topic = raw.new_topic(name)
    assert status_of(lambda: raw.put(upload_messages(topic, schema=schema))).code is INVALID_ARGUMENT


@pytest.mark.parametrize(
    "descriptor",
    [
        b"",
        b"\xff\xff",
        flight.FlightDescriptor.for_path("a", "b").serialize(),
        flight.FlightDescriptor.for_command(b"").serialize(),
        flight.FlightDescriptor.for_command(b"{").serialize(),
        flight.FlightDescriptor.for_command(b"\xff\xfe").serialize(),
        flight.FlightDescriptor.for_command(b"[]").serialize(),
        flight.FlightDescriptor.for_command(b"[" * 100_000).serialize(),
        flight.FlightDescriptor.for_command(b'{"resource_locator":"a/b"}').serialize(),
        flight.FlightDescriptor.for_command(b'{"resource_locator":7,"topic_uuid":"x"}').serialize(),
        upload_command("a/b", "no uuid"),
        upload_command("sequence-only", STRANGER),
        upload_command("sequence:01JXYZ3V8Q6M2W7K9T4R5N0ABC", STRANGER),
    ],
)
def test_a_bad_descriptor_is_an_invalid_argument(raw: RawClient, descriptor: bytes) -> None:
    assert status_of(lambda: raw.put([with_descriptor(descriptor, SCHEMA_MESSAGE)])).code is INVALID_ARGUMENT


def test_a_missing_descriptor_is_an_invalid_argument(raw: RawClient) -> None:
    refused = status_of(lambda: raw.put([SCHEMA_MESSAGE]))
    assert refused.code is INVALID_ARGUMENT
    assert "Unsupported descriptor" in refused.text


def test_an_upload_without_schema_is_an_invalid_argument(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    command = upload_command(topic.locator, topic.uuid)
    for messages in ([], [with_descriptor(command, b"")]):
        refused = status_of(lambda: raw.put(messages))  # noqa: B023
        assert refused.code is INVALID_ARGUMENT
        assert "Missing schema" in refused.text
    raw.upload(topic, plain_batch(1))


def test_the_schema_may_follow_the_descriptor(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    _, *batches = upload_messages(topic, plain_batch(1))
    raw.put([with_descriptor(upload_command(topic.locator, topic.uuid), b""), SCHEMA_MESSAGE, *batches])
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 1


def test_the_uuid_entitles_to_upload(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    foreign = with_descriptor(upload_command(topic.locator, STRANGER), SCHEMA_MESSAGE)
    assert status_of(lambda: raw.put([foreign])).code is grpc.StatusCode.PERMISSION_DENIED
    nowhere = with_descriptor(upload_command(f"{name}/nowhere", topic.uuid), SCHEMA_MESSAGE)
    assert status_of(lambda: raw.put([nowhere])).code is grpc.StatusCode.NOT_FOUND


def test_a_batch_of_another_schema_breaks_the_upload(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    other = pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("x", pa.utf8()), pa.field("y", pa.utf8())])
    batch = pa.record_batch([pa.array([1]), pa.array(["a"]), pa.array(["b"])], schema=other)
    foreign = list(BatchEncoder(other).batch_messages(batch))
    messages = [*upload_messages(topic, plain_batch(1)), *foreign]
    assert status_of(lambda: raw.put(messages)).code is INVALID_ARGUMENT
    assert endpoint_of(raw, topic.locator)["locked"] is False
    finalize = status_of(lambda: raw.action("session_finalize", session_uuid=topic.session_uuid))
    assert finalize.code is grpc.StatusCode.FAILED_PRECONDITION
    assert status_of(lambda: raw.upload(topic, plain_batch(1))).code is grpc.StatusCode.FAILED_PRECONDITION
    raw.action("topic_delete", locator=topic.locator)


def test_null_timestamps_are_refused(raw: RawClient, name: str) -> None:
    schema = pa.schema([pa.field("timestamp_ns", pa.int64())])
    batch = pa.record_batch([pa.array([1, None], pa.int64())], schema=schema)
    topic = raw.new_topic(name)
    assert status_of(lambda: raw.put(upload_messages(topic, batch, schema=schema))).code is INVALID_ARGUMENT


def test_messages_without_arrow_data_are_skipped(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    first, *rest = upload_messages(topic, plain_batch(1))
    only_metadata = b"\x1a\x05hello"  # field 3, app_metadata
    raw.put([first, only_metadata, *rest, only_metadata])
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 1


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_bodies_are_accepted(raw: RawClient, name: str, compression: str) -> None:
    topic = raw.new_topic(name)
    encoder = BatchEncoder(PLAIN_SCHEMA, compression)
    batch = plain_batch(*range(5000))
    raw.put(
        [
            with_descriptor(upload_command(topic.locator, topic.uuid), SCHEMA_MESSAGE),
            *encoder.batch_messages(batch),
        ]
    )
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 5000


def test_dictionary_columns_are_accepted_and_come_back(raw: RawClient, arrow: flight.FlightClient, name: str) -> None:
    first = pa.record_batch({"timestamp_ns": [1, 2], "mode": pa.array(["park", "drive"]).dictionary_encode()})
    second = pa.record_batch([pa.array([3]), pa.array(["halt"]).dictionary_encode()], schema=first.schema)
    topic = raw.new_topic(name)
    raw.upload(topic, first, second, schema=first.schema)
    read = arrow.do_get(raw.describe(topic.locator).endpoints[0].ticket).read_all()
    assert read.schema.equals(first.schema)
    assert read["mode"].to_pylist() == ["park", "drive", "halt"]


def test_a_message_of_the_announced_size_is_accepted_and_a_larger_one_refused(
    raw: RawClient, served: Served, name: str
) -> None:
    limit = served.lakehouse.settings.max_grpc_message_size
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("data", pa.binary())])

    def one_row(size: int) -> pa.RecordBatch:
        return pa.record_batch([pa.array([1], pa.int64()), pa.array([bytes(size)], pa.binary())], schema=schema)

    topic = raw.new_topic(name)
    raw.upload(topic, one_row(limit), schema=schema)
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 1
    other = raw.new_topic(name + "-larger")
    too_large = upload_messages(other, one_row(limit + (4 << 20)), schema=schema)
    refused = status_of(lambda: raw.put(too_large))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Said by gRPC itself; what it accepts is the announced size and what frames it.
    assert re.search(rf"larger than max \(\d+ vs\. {limit + (2 << 20)}\)", refused.text)


def test_a_message_with_more_bytes_than_it_describes_is_refused(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    serialized = plain_batch(1).serialize()
    header_end = 8 + int.from_bytes(serialized[4:8].to_pybytes(), "little")
    padded = write_flight_data([serialized[8:header_end]], [serialized[header_end:], bytes(64)])
    messages = [*upload_messages(topic), padded]
    assert status_of(lambda: raw.put(messages)).code is INVALID_ARGUMENT


def test_gzip_compressed_requests_are_accepted(served: Served, raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    channel = grpc.insecure_channel(f"127.0.0.1:{served.port}", compression=grpc.Compression.Gzip)
    with channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")
        assert list(call(iter(upload_messages(topic, plain_batch(*range(10_000)))))) == []
    assert endpoint_of(raw, topic.locator)["data_info"]["total_row_count"] == 10_000
