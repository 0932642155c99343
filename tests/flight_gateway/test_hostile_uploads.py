"""Whatever a client sends as an upload, the gateway answers with a proper status and goes on serving."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

from lakehouse.flight_gateway.ipc_encoder import BatchEncoder
from lakehouse.flight_gateway.ipc_messages import kind_and_body_size
from lakehouse.flight_gateway.wire import write_flight_data
from tests.flight_gateway.raw_client import (
    PLAIN_SCHEMA,
    NewTopic,
    RawClient,
    plain_batch,
    status_of,
    upload_command,
    upload_messages,
    with_descriptor,
)

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
HOSTILE = Path(__file__).parents[3] / "shared" / "hostile" / "arrow-ipc-stream"
HOSTILE_FILES = sorted(HOSTILE.iterdir()) if HOSTILE.is_dir() else []


def encapsulated_messages(stream: bytes) -> Iterator[bytes]:
    """Cut an IPC stream into FlightData messages as far as its framing makes sense."""
    position = 0
    while position + 8 <= len(stream):
        size = int.from_bytes(stream[position : position + 4], "little")
        position += 4
        if size == 0xFFFFFFFF:
            size = int.from_bytes(stream[position : position + 4], "little")
            position += 4
        header = stream[position : position + size]
        position += len(header)
        try:
            body_size = kind_and_body_size(header)[1]
        except (ValueError, struct.error):
            body_size = len(stream)
        body = stream[position : position + max(0, body_size)]
        position += len(body)
        yield write_flight_data([header], [body])


@pytest.mark.skipif(not HOSTILE_FILES, reason="the collection of hostile files is not here")
def test_hostile_streams_are_refused(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    topics: Iterator[NewTopic] = (raw.add_topic(name, session, f"t{i}") for i in range(10_000))
    for path in HOSTILE_FILES:
        content = path.read_bytes()
        for messages in (
            [b"", *encapsulated_messages(content)],
            [b"", content],
            [b"", write_flight_data([content], [])],
            [b"", write_flight_data([content[:512]], [content])],
        ):
            topic = next(topics)
            messages[0] = with_descriptor(upload_command(topic.locator, topic.uuid), b"")
            assert status_of(lambda: raw.put(messages)).code is INVALID_ARGUMENT, path.name  # noqa: B023
        topic = next(topics)
        after_schema = [upload_messages(topic)[0], *list(encapsulated_messages(content))[1:]]
        if len(after_schema) > 1:
            assert status_of(lambda: raw.put(after_schema)).code is INVALID_ARGUMENT, path.name  # noqa: B023
    raw.upload(next(topics), plain_batch(1))


def test_damaged_uploads_are_refused_or_harmless(raw: RawClient, name: str) -> None:
    """Bytes of a valid upload overwritten at random: refused, or (damage in values only) stored and readable."""
    generator = random.Random(7)
    schema = pa.schema(
        [
            *PLAIN_SCHEMA,
            pa.field("label", pa.utf8()),
            pa.field("points", pa.list_(pa.struct([pa.field("x", pa.float32()), pa.field("on", pa.bool_())]))),
            pa.field("mode", pa.dictionary(pa.int8(), pa.utf8())),
            pa.field("table", pa.map_(pa.utf8(), pa.int32())),
        ]
    )
    values = {
        "timestamp_ns": range(20),
        "x": [float(i) for i in range(20)],
        "label": [None if i % 3 else "ab" * i for i in range(20)],
        "points": [[{"x": 1.0, "on": True}] * (i % 4) for i in range(20)],
        "mode": ["park", "drive"] * 10,
        "table": [[("a", i)] for i in range(20)],
    }
    batch = pa.record_batch(
        [pa.array(values[field.name], field.type) for field in schema],  # type: ignore[call-overload]
        schema=schema,
    )
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    codes = set()
    for number in range(300):
        topic = raw.add_topic(name, session, f"t{number}")
        messages = upload_messages(topic, batch, schema=schema)
        target = generator.randrange(1, len(messages))
        damaged = bytearray(messages[target])
        for _ in range(generator.choice([1, 1, 2, 8])):
            damaged[generator.randrange(len(damaged))] = generator.choice(
                [0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)]
            )
        messages[target] = bytes(damaged)
        try:
            raw.put(messages)
        except grpc.RpcError as error:
            codes.add(error.code())  # type: ignore[attr-defined]
        else:
            codes.add(grpc.StatusCode.OK)
            assert len(raw.get(raw.describe(topic.locator).endpoints[0].ticket.ticket)) >= 1
        raw.action("topic_delete", locator=topic.locator)
    assert codes == {grpc.StatusCode.OK, INVALID_ARGUMENT}


def test_a_tiny_message_cannot_announce_a_huge_number_of_values(raw: RawClient, name: str) -> None:
    count = 2**31 - 1
    nothing = pa.FixedSizeListArray.from_buffers(
        pa.list_(pa.int8(), 0), count, [None], children=[pa.array([], pa.int8())]
    )
    column = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), nothing)
    batch = pa.record_batch([pa.array([1], pa.int64()), column], names=["timestamp_ns", "nothing"])
    topic = raw.new_topic(name)
    refused = status_of(lambda: raw.put(upload_messages(topic, batch, schema=batch.schema)))
    assert refused.code is INVALID_ARGUMENT


def test_a_compressed_body_cannot_expand_without_bound(raw: RawClient, name: str) -> None:
    schema = pa.schema([PLAIN_SCHEMA.field(0), pa.field("data", pa.binary())])
    batch = pa.record_batch([pa.array([1], pa.int64()), pa.array([bytes(600 << 20)], pa.binary())], schema=schema)
    (bomb,) = BatchEncoder(schema, "zstd").batch_messages(batch)
    assert len(bomb) < 1 << 20
    topic = raw.new_topic(name)
    refused = status_of(lambda: raw.put([*upload_messages(topic, schema=schema), bomb]))
    assert refused.code is INVALID_ARGUMENT


def test_a_dictionary_cannot_expand_without_bound(raw: RawClient, name: str) -> None:
    indices = pa.array([0] * 5000, pa.int8())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (1 << 20)]))
    batch = pa.record_batch([pa.array(range(5000), pa.int64()), column], names=["timestamp_ns", "text"])
    topic = raw.new_topic(name)
    assert status_of(lambda: raw.put(upload_messages(topic, batch, schema=batch.schema))).code is INVALID_ARGUMENT


def test_invalid_text_and_offsets_are_refused(raw: RawClient, name: str) -> None:
    schema = pa.schema([PLAIN_SCHEMA.field(0), pa.field("text", pa.utf8())])
    stamp = pa.array([1], pa.int64())
    bad_text = pa.Array.from_buffers(
        pa.utf8(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    bad_offset = pa.Array.from_buffers(
        pa.utf8(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"ab")]
    )
    for number, column in enumerate((bad_text, bad_offset)):
        (message,) = BatchEncoder(schema).batch_messages(pa.record_batch([stamp, column], schema=schema))
        if column is bad_offset:
            offsets = struct.pack("<ii", 0, 2)
            assert message.count(offsets) >= 1
            head, _, tail = message.rpartition(offsets)
            message = head + struct.pack("<ii", 0, 2**30) + tail
        topic = raw.new_topic(f"{name}-{number}")
        refused = status_of(lambda: raw.put([*upload_messages(topic, schema=schema), message]))  # noqa: B023
        assert refused.code is INVALID_ARGUMENT


def test_a_decompression_bomb_of_grpc_is_refused(raw: RawClient, name: str) -> None:
    """gzip of zeros: a quarter of a megabyte on the wire, 256 MB for a naive receiver."""
    topic = raw.new_topic(name)
    channel = grpc.insecure_channel(
        f"127.0.0.1:{raw.port}",
        compression=grpc.Compression.Gzip,
        options=[("grpc.max_send_message_length", -1)],
    )
    messages = [*upload_messages(topic), write_flight_data([bytes(64)], [bytes(256 << 20)])]
    with channel:
        refused = status_of(
            lambda: list(channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")(iter(messages)))
        )
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
