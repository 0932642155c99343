"""The framing and the IPC codec on their own: what goes in comes out, and garbage never passes."""

import contextlib
import random
import sys
import weakref
from collections.abc import Iterator

import grpc
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.catalog.errors import BadRequestError, InvalidDataError, UploadCancelledError
from lakehouse.flight_gateway.ipc_decoder import DecodedUpload
from lakehouse.flight_gateway.ipc_encoder import BatchEncoder
from lakehouse.flight_gateway.ipc_messages import inspect_message, layout_of
from lakehouse.flight_gateway.wire import read_criteria, read_flight_data, write_flight_data
from tests.flight_gateway.raw_client import PLAIN_SCHEMA, plain_batch

MIB = 1 << 20


def decode(messages: list[bytes], schema: pa.Schema | None = None) -> list[pa.RecordBatch]:
    decoded = DecodedUpload(iter(messages), 50 * MIB)
    assert schema is None or decoded.read_schema().equals(schema, check_metadata=True)
    if schema is None:
        decoded.read_schema()
    return list(decoded.batches())


def encode(schema: pa.Schema, batches: list[pa.RecordBatch], compression: str | None = None) -> list[bytes]:
    encoder = BatchEncoder(schema, compression)
    return [encoder.schema_message(), *(message for batch in batches for message in encoder.batch_messages(batch))]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_flight_data_is_read_as_it_was_written(header: bytes, body: bytes) -> None:
    found = read_flight_data(write_flight_data([header], [body]))
    assert (found.header.to_pybytes(), found.body.to_pybytes()) == (header, body)


@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    for read in (read_flight_data, read_criteria):
        with contextlib.suppress(BadRequestError):
            read(message)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.binary(max_size=64))
def test_any_metadata_is_understood_or_refused(header: bytes, body: bytes) -> None:
    with contextlib.suppress(InvalidDataError):
        inspect_message(pa.py_buffer(header), pa.py_buffer(body))


def test_unknown_fields_are_skipped() -> None:
    message = b"\x28\x05" + b"\x31" + bytes(8) + b"\x3d" + bytes(4) + b"\x42\x03abc" + write_flight_data([b"h"], [b"b"])
    assert read_flight_data(message).header.to_pybytes() == b"h"


def mixed_batches() -> Iterator[pa.RecordBatch]:
    for words in (["a", "b"], ["b", "c", "d"], ["a"]):
        yield pa.record_batch(
            {
                "timestamp_ns": range(len(words)),
                "word": pa.array(words).dictionary_encode(),
                "deep": pa.array([[{"w": word}] for word in words], pa.list_(pa.struct({"w": pa.utf8()}))),
                "view": pa.array([word * 20 for word in words], pa.string_view()),
                "flag": pa.array([None] * len(words), pa.bool_()),
            }
        )


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_batches_come_out_as_they_went_in(compression: str | None) -> None:
    batches = [*mixed_batches(), *(batch.slice(1) for batch in mixed_batches() if batch.num_rows > 1)]
    schema = batches[0].schema.with_metadata({"k": "v"})
    batches = [batch.cast(schema) for batch in batches]
    decoded = decode(encode(schema, batches, compression), schema)
    assert [batch.to_pylist() for batch in decoded] == [batch.to_pylist() for batch in batches]
    for batch in decoded:
        batch.validate(full=True)


def test_decoded_buffers_are_aligned() -> None:
    rows = pa.record_batch({"timestamp_ns": np.arange(1000), "x": np.arange(1000.0)})
    for padding in range(8):
        messages = encode(rows.schema, [rows])
        messages[1] = b"\x1a" + bytes([padding]) + bytes(padding) + messages[1]
        (batch,) = decode(messages)
        assert batch.equals(rows)
        assert all(buffer.address % 8 == 0 for column in batch.columns for buffer in column.buffers() if buffer)


def test_every_truncation_is_refused() -> None:
    messages = encode(PLAIN_SCHEMA, [plain_batch(1, 2, 3)])
    for message in messages:
        whole = read_flight_data(message)
        for length in range(len(whole.header) - 8):  # the last bytes may be padding
            cut = write_flight_data([whole.header.slice(0, length)], [whole.body])
            others = [cut] if message is messages[0] else [messages[0], cut]
            if length or len(whole.body):
                with pytest.raises(BadRequestError):
                    decode(others)
    body = read_flight_data(messages[1])
    for length in range(len(body.body) - 7):
        with pytest.raises(InvalidDataError):
            decode([messages[0], write_flight_data([body.header], [body.body.slice(0, length)])])


def test_damaged_metadata_is_refused_or_harmless() -> None:
    generator = random.Random(5)
    batches = list(mixed_batches())
    messages = encode(batches[0].schema, batches)
    for _ in range(3000):
        damaged = list(messages)
        target = generator.randrange(len(damaged))
        content = bytearray(damaged[target])
        for _ in range(generator.choice([1, 2, 4])):
            content[generator.randrange(len(content))] = generator.choice([0, 1, 0x7F, 0xFF, generator.randrange(256)])
        damaged[target] = bytes(content)
        with contextlib.suppress(BadRequestError, pa.ArrowInvalid):
            for batch in decode(damaged):
                batch.validate(full=True)


def test_growing_dictionaries_are_bounded() -> None:
    schema = pa.schema([pa.field("timestamp_ns", pa.int64()), pa.field("w", pa.dictionary(pa.int32(), pa.utf8()))])

    def batch(number: int) -> pa.RecordBatch:
        word = f"{number}" + "x" * MIB
        return pa.record_batch([pa.array([number], pa.int64()), pa.array([word]).dictionary_encode()], schema=schema)

    encoder = BatchEncoder(schema)
    messages = [encoder.schema_message(), *(m for i in range(30) for m in encoder.batch_messages(batch(i)))]
    decoded = DecodedUpload(iter(messages), 2 * MIB)
    decoded.read_schema()
    assert sum(batch.num_rows for batch in decoded.batches()) == 30  # replaced dictionaries do not add up
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    words: list[str] = []
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for number in range(30):
            words.append(f"{number}" + "x" * MIB)
            column = pa.DictionaryArray.from_arrays(pa.array([number], pa.int32()), pa.array(words))
            writer.write_batch(pa.record_batch([pa.array([number], pa.int64()), column], schema=schema))
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    deltas = [write_flight_data([message.metadata], [message.body]) for message in reader]
    assert sum(map(len, deltas)) < 40 * MIB
    decoded = DecodedUpload(iter(deltas), 2 * MIB)
    decoded.read_schema()
    with pytest.raises(InvalidDataError, match="memory"):
        list(decoded.batches())


def test_a_cancellation_seen_late_is_still_a_cancellation() -> None:
    """gRPC may report the end of the messages first; the next receive then raises."""

    class Requests:
        def __init__(self, messages: list[bytes]) -> None:
            self._messages = iter(messages)
            self._ended = False

        def __iter__(self) -> "Requests":
            return self

        def __next__(self) -> bytes:
            if self._ended:
                raise grpc.RpcError
            try:
                return next(self._messages)
            except StopIteration:
                self._ended = True
                raise

    decoded = DecodedUpload(Requests(encode(PLAIN_SCHEMA, [plain_batch(1)])), 50 * MIB)
    decoded.read_schema()
    with pytest.raises(UploadCancelledError):
        list(decoded.batches())


def test_a_layout_is_known_for_what_can_be_stored() -> None:
    assert layout_of(PLAIN_SCHEMA) == (2, 4)
    assert layout_of(pa.schema([])) == (0, 0)
    assert layout_of(pa.schema([pa.field("v", pa.string_view())])) is None


def test_nothing_holds_the_last_batch_while_the_next_is_awaited() -> None:
    messages = encode(PLAIN_SCHEMA, [plain_batch(*range(1000))] * 3)
    unused = sys.getrefcount(messages[1])
    references: list[int] = []

    def observed() -> Iterator[bytes]:
        for number in range(len(messages)):
            references.append(sys.getrefcount(messages[number - 1]))
            yield messages[number]

    decoded = DecodedUpload(observed(), 50 * MIB)
    decoded.read_schema()
    for batch in decoded.batches():
        del batch
    assert references[2:] == [unused, unused]


def test_an_encoded_batch_is_released_while_its_message_waits() -> None:
    source = plain_batch(*range(100_000))
    column = weakref.ref(source)
    stream = BatchEncoder(PLAIN_SCHEMA).batch_messages(source)
    del source
    assert len(next(stream)) > MIB
    assert column() is None
