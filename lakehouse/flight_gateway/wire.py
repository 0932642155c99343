"""Protobuf framing of the few Flight messages that pyarrow does not encode itself.

Field numbers are those of Flight.proto: FlightData {1 descriptor, 2 data_header, 3 app_metadata, 1000 data_body} and
Criteria {1 expression}. The reader is strict: every length is checked against the message before anything is sliced,
so no input can make it read beyond the end or allocate.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from lakehouse.catalog.errors import BadRequestError

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_DESCRIPTOR, _DATA_HEADER, _DATA_BODY = 1, 2, 1000
_CRITERIA_EXPRESSION = 1


@dataclass(frozen=True, slots=True)
class FlightData:
    """One message of a DoPut stream; the buffers are slices of the received bytes, not copies."""

    descriptor: pa.Buffer | None
    header: pa.Buffer
    body: pa.Buffer


_EMPTY = pa.py_buffer(b"")


def read_flight_data(message: bytes) -> FlightData:
    """Split a FlightData message.

    Raises:
        BadRequestError: If it is not well-formed protobuf.
    """
    whole = pa.py_buffer(message)
    parts: dict[int, pa.Buffer] = {}
    for number, start, length in _length_delimited_fields(message):
        parts[number] = whole.slice(start, length)
    return FlightData(parts.get(_DESCRIPTOR), parts.get(_DATA_HEADER, _EMPTY), parts.get(_DATA_BODY, _EMPTY))


def write_flight_data(header: list[bytes | pa.Buffer], body: list[bytes | pa.Buffer]) -> bytes:
    """Frame one message of a DoGet stream from the pieces of its IPC header and body, copying each once."""
    pieces: list[bytes | pa.Buffer] = [_key(_DATA_HEADER), _varint(sum(map(len, header))), *header]
    if body:
        pieces += [_key(_DATA_BODY), _varint(sum(map(len, body))), *body]
    return b"".join(pieces)


def read_criteria(message: bytes) -> bytes:
    """The expression of a Criteria message.

    Raises:
        BadRequestError: If it is not well-formed protobuf.
    """
    expression = b""
    for number, start, length in _length_delimited_fields(message):
        if number == _CRITERIA_EXPRESSION:
            expression = message[start : start + length]
    return expression


def _length_delimited_fields(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, start and length of each length-delimited field; fields of other wire types are skipped."""
    position, end = 0, len(message)
    while position < end:
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise BadRequestError("malformed message: field number out of range")
        if wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(message, position)
            if length > end - position:
                raise BadRequestError("malformed message: a field is longer than the message")
            yield number, position, length
            position += length
        elif wire_type == _VARINT:
            _, position = _read_varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
            if position > end:
                raise BadRequestError("malformed message: a field is longer than the message")
        else:
            raise BadRequestError("malformed message: unknown wire type")


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise BadRequestError("malformed message: it ends within a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BadRequestError("malformed message: a number is too long")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _key(number: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED)
