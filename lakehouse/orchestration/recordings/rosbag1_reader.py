"""ROS 1 bags, format 2.0 (http://wiki.ros.org/Bags/Format/2.0), read chunk by chunk in file order.

A bag whose recorder was killed has no index; it is scanned once beforehand and read as far as it goes.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lakehouse.orchestration.recordings.bounded_file import BoundedFile, TruncatedError
from lakehouse.orchestration.recordings.compression import BrokenChunkError, UnknownCompressionError, decompress
from lakehouse.orchestration.recordings.errors import UnreadableRecordingError, UnsupportedRecordingError
from lakehouse.orchestration.recordings.recording import (
    DEFAULT_BLOCK_BYTES,
    UNKNOWN,
    BlockBuffer,
    Channel,
    RawMessages,
    Recording,
)

MAGIC_PREFIX = b"#ROS"

_VERSION_LINE = re.compile(rb"#ROS(?:BAG|RECORD) V(\d+\.\d+)[^\n]{0,16}\n")
_OP_MESSAGE, _OP_BAG_HEADER, _OP_CHUNK, _OP_CHUNK_INFO, _OP_CONNECTION = 2, 3, 5, 6, 7
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TIME = struct.Struct("<II")
_COUNT = struct.Struct("<II")

Header = dict[str, bytes]


class _BrokenRecordError(ValueError):
    """A record that does not follow the format."""


class Rosbag1Recording(Recording):
    """One ROS 1 bag.

    Raises:
        UnreadableRecordingError: If the file has no intact beginning.
        UnsupportedRecordingError: If it is of another version, or encrypted.
    """

    format = "rosbag1"

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, [path])
        self._file = BoundedFile(path)
        try:
            self._open()
        except (TruncatedError, _BrokenRecordError) as error:
            self._file.close()
            raise UnreadableRecordingError(self.name, f"the beginning is damaged: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read_messages(
        self, channels: Collection[Channel] | None = None, block_bytes: int = DEFAULT_BLOCK_BYTES
    ) -> Iterator[RawMessages]:
        buffer = BlockBuffer(self, channels, block_bytes)
        orphans = 0
        for data in self._chunks():
            for header, payload in self._chunk_records(data):
                try:
                    if _op(header) != _OP_MESSAGE:
                        continue
                    connection = _unpack(_U32, header, "conn")[0]
                    seconds, nanoseconds = _unpack(_TIME, header, "time")
                except _BrokenRecordError as error:
                    self.note_damage(str(error))
                    continue
                if buffer.wants(connection):
                    time_ns = seconds * 1_000_000_000 + nanoseconds
                    buffer.add(connection, time_ns, UNKNOWN, UNKNOWN, payload)
                elif self.channel_of(connection) is None:
                    orphans += 1
            yield from buffer.full_blocks()
        if orphans:
            self.note_damage(f"{orphans:,} messages belong to connections that are not described")
        yield from buffer.remaining_blocks()

    def _open(self) -> None:
        line = _VERSION_LINE.match(self._file.read(min(64, self._file.size)))
        if line is None:
            raise UnreadableRecordingError(self.name, "it is not a ROS 1 bag")
        version = line.group(1).decode()
        if version != "2.0":
            raise UnsupportedRecordingError(
                self.name, f"bag format {version} is not supported, only 2.0; 'rosbag fix' converts old bags"
            )
        self._file.seek(line.end())
        header, _ = self._record()
        if _op(header) != _OP_BAG_HEADER:
            raise _BrokenRecordError("there is no bag header")
        if encryptor := header.get("encryptor", b""):
            raise UnsupportedRecordingError(self.name, f"it is encrypted ({encryptor.decode(errors='replace')[:40]})")
        self._first_chunk = self._file.position
        self._chunk_places: list[int] | None = None
        if not self._read_index(_unpack(_U64, header, "index_pos")[0]):
            self._scan()
            self.damages.clear()
            self.note_damage("the bag has no usable index: its recorder did not end properly")
        self.details["message_counts_from_index"] = self._chunk_places is not None

    def _read_index(self, place: int) -> bool:
        """Connections, chunk places and message counts from the index section; False if it is not usable."""
        if place == 0:
            return False
        connections: dict[int, Channel] = {}
        counts: dict[int, int] = {}
        places = []
        try:
            self._file.seek(place)
            while self._file.remaining:
                header, data = self._record()
                if _op(header) == _OP_CONNECTION:
                    channel = _connection(header, data)
                    connections[channel.id] = channel
                elif _op(header) == _OP_CHUNK_INFO:
                    places.append(_unpack(_U64, header, "chunk_pos")[0])
                    for position in range(0, len(data) - len(data) % _COUNT.size, _COUNT.size):
                        connection, count = _COUNT.unpack_from(data, position)
                        counts[connection] = counts.get(connection, 0) + count
        except (TruncatedError, _BrokenRecordError):
            return False
        if not counts.keys() <= connections.keys():
            return False
        self._chunk_places = sorted(set(places))
        self._set_connections(connections, counts)
        return True

    def _scan(self) -> None:
        connections: dict[int, Channel] = {}
        for data in self._chunks():
            for header, content in self._chunk_records(data):
                try:
                    if _op(header) == _OP_CONNECTION:
                        channel = _connection(header, content)
                        connections.setdefault(channel.id, channel)
                except _BrokenRecordError as error:
                    self.note_damage(str(error))
        self._set_connections(connections, None)

    def _set_connections(self, connections: dict[int, Channel], counts: dict[int, int] | None) -> None:
        self._set_channels(
            (
                channel.id,
                (channel.message_type, channel.metadata.get("md5sum") or channel.schema),
                channel if counts is None else dataclasses.replace(channel, message_count=counts.get(channel.id, 0)),
            )
            for channel in connections.values()
        )

    def _chunks(self) -> Iterator[bytes]:
        """The contents of all chunks that can be read."""
        if self._chunk_places is None:
            self._file.seek(self._first_chunk)
            while self._file.remaining:
                try:
                    header, data = self._record()
                    is_chunk = _op(header) == _OP_CHUNK
                except (TruncatedError, _BrokenRecordError) as error:
                    self.note_damage(f"the file breaks off: {error}")
                    return
                if is_chunk and (content := self._expand(header, data)) is not None:
                    yield content
            return
        for place in self._chunk_places:
            try:
                self._file.seek(place)
                header, data = self._record()
                if _op(header) != _OP_CHUNK:
                    raise _BrokenRecordError("the index points at something that is not a chunk")
            except (TruncatedError, _BrokenRecordError) as error:
                self.note_damage(f"a chunk cannot be read: {error}")
                continue
            if (content := self._expand(header, data)) is not None:
                yield content

    def _expand(self, header: Header, data: bytes) -> bytes | None:
        try:
            compression = header.get("compression", b"none").decode("ascii", errors="replace")
            return decompress(compression, data, _unpack(_U32, header, "size")[0])
        except UnknownCompressionError:
            raise UnsupportedRecordingError(
                self.name, f"chunks are compressed with {compression[:40]!r}, which is not supported"
            ) from None
        except (BrokenChunkError, _BrokenRecordError) as error:
            self.note_damage(str(error))
            return None

    def _chunk_records(self, data: bytes) -> Iterator[tuple[Header, bytes]]:
        """The records inside a chunk; of a damaged chunk, those before the damage."""
        position = 0
        try:
            while position < len(data):
                head, position = _sized(data, position)
                payload, position = _sized(data, position)
                yield _header(head), payload
        except _BrokenRecordError as error:
            self.note_damage(f"a chunk is damaged: {error}")

    def _record(self) -> tuple[Header, bytes]:
        header = _header(self._file.read(_U32.unpack(self._file.read(_U32.size))[0]))
        return header, self._file.read(_U32.unpack(self._file.read(_U32.size))[0])


def _sized(data: bytes, position: int) -> tuple[bytes, int]:
    if position + _U32.size > len(data):
        raise _BrokenRecordError("a record ends too early")
    start = position + _U32.size
    end = start + _U32.unpack_from(data, position)[0]
    if end > len(data):
        raise _BrokenRecordError("a record is longer than what holds it")
    return data[start:end], end


def _header(data: bytes) -> Header:
    """The `name=value` fields of a record header."""
    fields: Header = {}
    position = 0
    while position < len(data):
        item, position = _sized(data, position)
        name, separator, value = item.partition(b"=")
        if not separator:
            raise _BrokenRecordError("a header field has no value")
        fields[name.decode("ascii", errors="replace")] = value
    return fields


def _unpack(kind: struct.Struct, header: Header, name: str) -> tuple[int, ...]:
    value = header.get(name, b"")
    if len(value) != kind.size:
        raise _BrokenRecordError(f"a record has no valid field '{name}'")
    return kind.unpack(value)


def _op(header: Header) -> int:
    value = header.get("op", b"")
    if len(value) != 1:
        raise _BrokenRecordError("a record has no valid field 'op'")
    return value[0]


def _connection(header: Header, data: bytes) -> Channel:
    inner = _header(data)

    def text(value: bytes) -> str:
        return value.decode("utf-8", errors="replace")

    if not inner.get("type"):
        raise _BrokenRecordError("a connection has no message type")
    metadata: dict[str, Any] = {"md5sum": text(inner.get("md5sum", b""))}
    if "callerid" in inner:
        metadata["callerid"] = text(inner["callerid"])
    if "latching" in inner:
        metadata["latching"] = inner["latching"] == b"1"
    return Channel(
        id=_unpack(_U32, header, "conn")[0],
        topic=text(header.get("topic") or inner.get("topic", b"")),
        message_type=text(inner["type"]),
        encoding="ros1",
        schema_encoding="ros1msg",
        schema=inner.get("message_definition", b""),
        message_count=None,
        metadata=metadata,
    )
