"""What must be known about an IPC message before Arrow decodes it.

Arrow verifies the structure of a message itself, but as far as memory goes it trusts some numbers: the decompressed
sizes that a compressed body announces, the growth of dictionaries over a stream, and the number of values where a
value has no width. They are read here from the FlatBuffers metadata (Arrow format: Message.fbs), every offset checked.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import pyarrow as pa
from pyarrow import ipc

from lakehouse.catalog.errors import InvalidDataError


class MessageKind(IntEnum):
    """The `MessageHeader` union of Message.fbs."""

    SCHEMA = 1
    DICTIONARY = 2
    RECORD_BATCH = 3


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """Facts of one IPC message; sizes in bytes.

    Attributes:
        decompressed_size: What the buffers occupy once decoded; the body's size when it is not compressed.
        value_count: Sum of the lengths of all arrays, children included.
        layout: Counts of the field nodes and buffers of a record batch; the same for every batch of a schema. None for
            other messages, and with view columns, whose buffers vary.
        dictionary_id: Which dictionary a dictionary message sets, else None.
        is_delta: Whether it extends that dictionary instead of replacing it.
    """

    kind: MessageKind
    body_size: int
    decompressed_size: int
    value_count: int
    layout: tuple[int, int] | None
    dictionary_id: int | None
    is_delta: bool


def kind_and_body_size(header: bytes) -> tuple[MessageKind, int]:
    """The same two facts of a message that Arrow wrote itself."""
    message = _Table.root(memoryview(header))
    return MessageKind(message.scalar(1, "<B", 0)), message.scalar(3, "<q", 0)


def inspect_message(header: pa.Buffer, body: pa.Buffer) -> MessageFacts:
    """Read the facts of a message.

    Raises:
        InvalidDataError: If the metadata is malformed, of another kind than Flight carries, or describes a larger body
            than there is.
    """
    try:
        message = _Table.root(memoryview(header))
        kind = MessageKind(message.scalar(1, "<B", 0))
        body_size = message.scalar(3, "<q", 0)
        if not 0 <= body_size <= len(body):
            raise InvalidDataError(f"the message announces a body of {body_size} bytes but has {len(body)}")
        dictionary_id, is_delta, batch = None, False, message.table(2)
        if kind is MessageKind.DICTIONARY and batch is not None:
            dictionary_id, is_delta = batch.scalar(0, "<q", 0), bool(batch.scalar(2, "<B", 0))
            batch = batch.table(1)
        decompressed_size, value_count, layout = body_size, 0, None
        if kind is not MessageKind.SCHEMA and batch is not None:
            if batch.table(3) is not None:
                decompressed_size = _decompressed_size(batch, memoryview(body)[:body_size])
            value_count = sum(length for length, _ in batch.structs(1, "<qq"))
            if kind is MessageKind.RECORD_BATCH and not batch.vector_length(4):
                layout = batch.vector_length(1), batch.vector_length(2)
        return MessageFacts(kind, body_size, decompressed_size, value_count, layout, dictionary_id, is_delta)
    except (struct.error, ValueError):
        raise InvalidDataError("the Arrow metadata of a message is malformed") from None


def layout_of(schema: pa.Schema) -> tuple[int, int] | None:
    """The `MessageFacts.layout` that every batch of the schema has; None when it may vary or pyarrow cannot tell."""
    try:
        columns = [column.combine_chunks() for column in schema.empty_table().columns]
    except (pa.ArrowException, ValueError):
        return None
    message = ipc.read_message(pa.record_batch(columns, schema=schema).serialize())
    return inspect_message(message.metadata, message.body).layout


def _decompressed_size(batch: "_Table", body: memoryview) -> int:
    """Sum of the sizes that precede each compressed buffer (-1: stored uncompressed)."""
    total = 0
    for offset, length in batch.structs(2, "<qq"):
        if length == 0:
            continue
        if offset < 0 or length < 8 or offset + length > len(body):
            raise InvalidDataError("a compressed buffer lies outside the message body")
        announced = struct.unpack_from("<q", body, offset)[0]
        if announced < -1:
            raise InvalidDataError("a compressed buffer announces a negative size")
        total += length - 8 if announced == -1 else announced
    return total


class _Table:
    """A FlatBuffers table in a buffer nobody has verified: positions never become negative, struct checks the rest."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - self._unpack("<i", position)
        self._vtable_size = self._unpack("<H", self._vtable)

    @classmethod
    def root(cls, data: memoryview) -> "_Table":
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def scalar(self, slot: int, layout: str, default: int) -> int:
        position = self._field(slot)
        return default if position is None else self._unpack(layout, position)

    def table(self, slot: int) -> "_Table | None":
        position = self._field(slot)
        return None if position is None else _Table(self._data, position + self._unpack("<I", position))

    def vector_length(self, slot: int) -> int:
        position = self._field(slot)
        return 0 if position is None else self._unpack("<I", position + self._unpack("<I", position))

    def structs(self, slot: int, layout: str) -> list[tuple[int, ...]]:
        position = self._field(slot)
        if position is None:
            return []
        count = self.vector_length(slot)
        position += self._unpack("<I", position)
        content = self._data[position + 4 : position + 4 + count * struct.calcsize(layout)]
        # A vector that runs past the end leaves a partial struct, which struct refuses; a missing one Arrow does.
        return list(struct.iter_unpack(layout, content))

    def _field(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._unpack("<H", self._vtable + entry)
        return self._position + offset if offset else None

    def _unpack(self, layout: str, position: int) -> int:
        if position < 0:
            raise ValueError("negative offset")
        value: int = struct.unpack_from(layout, self._data, position)[0]
        return value
