"""MCAP files (https://mcap.dev/spec), read chunk by chunk in file order.

Record bodies are parsed by the `mcap` library; finding the records, and messages inside chunks, is done here, because
the library trusts the lengths in the file. Without a usable summary the file is scanned once beforehand. A file that
breaks off is read up to the last intact record, around a damaged place the index leads, and what is missing is noted in
`damages`.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from io import BytesIO
from pathlib import Path
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment as McapAttachment
from mcap.records import Channel as McapChannel
from mcap.records import Chunk, ChunkIndex, Footer, Header, Metadata, Schema, Statistics

from lakehouse.orchestration.recordings.bounded_file import BoundedFile, TruncatedError
from lakehouse.orchestration.recordings.compression import BrokenChunkError, UnknownCompressionError, decompress
from lakehouse.orchestration.recordings.errors import UnreadableRecordingError, UnsupportedRecordingError
from lakehouse.orchestration.recordings.recording import (
    DEFAULT_BLOCK_BYTES,
    Attachment,
    BlockBuffer,
    Channel,
    RawMessages,
    Recording,
)

MAGIC = b"\x89MCAP0\r\n"

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_FOOTER_LENGTH = _RECORD.size + 20 + len(MAGIC)
_LARGEST_RECORD = 2 << 30
_DESCRIPTIONS = frozenset(
    {Opcode.HEADER, Opcode.CHUNK, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA, Opcode.STATISTICS}
)
_PARSE_ERRORS = (McapError, struct.error, ValueError, OverflowError)


@dataclass(slots=True)
class _Contents:
    """What is known about a file before its messages are read."""

    schemas: dict[int, Schema] = dataclass_field(default_factory=dict)
    channels: dict[int, McapChannel] = dataclass_field(default_factory=dict)
    metadata: list[Metadata] = dataclass_field(default_factory=list)
    statistics: Statistics | None = None
    has_attachments: bool = False
    chunk_places: set[int] = dataclass_field(default_factory=set)


class McapRecording(Recording):
    """One MCAP file.

    Raises:
        UnreadableRecordingError: If the file has no intact beginning.
        UnsupportedRecordingError: If it is not MCAP version 0.
    """

    format = "mcap"

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, [path])
        self._file = BoundedFile(path)
        self._chunk_places: list[int] = []
        try:
            self._open()
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
        for opcode, body in self._data_records({Opcode.MESSAGE, Opcode.CHUNK}):
            if opcode == Opcode.MESSAGE:
                messages: Iterator[bytes | memoryview] = iter((body,))
            else:
                messages = (inner for code, inner in self._chunk_records(body) if code == Opcode.MESSAGE)
            for message in messages:
                if len(message) < _MESSAGE.size:
                    self.note_damage("a message record is too short")
                    continue
                channel_id, sequence, log_time_ns, publish_time_ns = _MESSAGE.unpack_from(message)
                if buffer.wants(channel_id):
                    payload = bytes(message[_MESSAGE.size :])
                    buffer.add(channel_id, log_time_ns, publish_time_ns, sequence, payload)
                elif self.channel_of(channel_id) is None:
                    orphans += 1
            yield from buffer.full_blocks()
        if orphans:
            self.note_damage(f"{orphans:,} messages belong to channels that are not described")
        yield from buffer.remaining_blocks()

    def attachments(self) -> Iterator[Attachment]:
        if not self._contents.has_attachments:
            return
        for _, body in self._data_records({Opcode.ATTACHMENT}):
            record = self._parse(McapAttachment, body)
            if record is not None:
                yield Attachment(record.name, record.media_type, record.log_time, record.create_time, record.data)

    def _open(self) -> None:
        if self._file.size < len(MAGIC) or (magic := self._file.read(len(MAGIC))) != MAGIC:
            if self._file.size >= len(MAGIC) and magic[:5] == MAGIC[:5]:
                raise UnsupportedRecordingError(self.name, f"MCAP version {chr(magic[5])!r} is not supported")
            raise UnreadableRecordingError(self.name, "it is not an MCAP file")
        contents = self._read_summary()
        if contents is None:
            contents = self._scan()
        else:
            self._chunk_places = sorted(contents.chunk_places)
            header = next(self._data_records({Opcode.HEADER}), None)
            if header is not None:
                self._collect(contents, *header)
        self._contents = contents
        self.damages.clear()  # noted again when messages are read
        counts = contents.statistics.channel_message_counts if contents.statistics else None
        streams = []
        for channel in contents.channels.values():
            schema = contents.schemas.get(channel.schema_id)
            described = Channel(
                id=channel.id,
                topic=channel.topic,
                message_type=schema.name if schema else "",
                encoding=channel.message_encoding,
                schema_encoding=schema.encoding if schema else "",
                schema=bytes(schema.data) if schema else b"",
                message_count=counts.get(channel.id, 0) if counts is not None else None,
                metadata=dict(channel.metadata),
            )
            key = (described.message_type, described.encoding, described.schema_encoding, described.schema)
            streams.append((channel.id, key, described))
        self._set_channels(streams)
        self.details["metadata_records"] = [
            {"name": record.name, "values": dict(record.metadata)} for record in contents.metadata
        ]

    def _read_summary(self) -> _Contents | None:
        """The summary section, if it is there, intact, and says everything needed."""
        contents = _Contents()
        try:
            self._file.seek(self._file.size - _FOOTER_LENGTH)
            if self._file.read(_FOOTER_LENGTH)[-len(MAGIC) :] != MAGIC:
                return None
            self._file.seek(self._file.size - _FOOTER_LENGTH)
            opcode, body = self._record()
            footer = Footer.read(ReadDataStream(BytesIO(body)))
            if opcode != Opcode.FOOTER or footer.summary_start == 0:
                return None
            self._file.seek(footer.summary_start)
            metadata_places = []
            while True:
                opcode, body = self._record()
                if opcode == Opcode.FOOTER:
                    break
                if opcode == Opcode.METADATA_INDEX:
                    metadata_places.append(struct.unpack_from("<Q", body)[0])
                if opcode == Opcode.CHUNK_INDEX and (index := self._parse(ChunkIndex, body)) is not None:
                    contents.chunk_places.add(index.chunk_start_offset)
                self._collect(contents, opcode, body)
            statistics = contents.statistics
            if statistics is None or statistics.channel_count != len(contents.channels):
                return None
            if any(channel.schema_id not in {0, *contents.schemas} for channel in contents.channels.values()):
                return None
            if len(metadata_places) != statistics.metadata_count:
                return None
            for place in metadata_places:
                self._file.seek(place)
                self._collect(contents, *self._record())
            contents.has_attachments = statistics.attachment_count > 0
        except (TruncatedError, *_PARSE_ERRORS):
            return None
        return contents

    def _scan(self) -> _Contents:
        """Read through the whole file for descriptions; keep the statistics if there are any."""
        contents = _Contents()
        for opcode, body in self._data_records(_DESCRIPTIONS, include_summary=True):
            if opcode == Opcode.CHUNK:
                for inner_opcode, inner in self._chunk_records(body):
                    if inner_opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                        self._collect(contents, inner_opcode, bytes(inner))
            else:
                self._collect(contents, opcode, body)
        if contents.statistics is None and not contents.channels and self.damages:
            raise UnreadableRecordingError(self.name, self.damages[0])
        return contents

    def _collect(self, contents: _Contents, opcode: int, body: bytes) -> None:
        if opcode == Opcode.HEADER:
            header = self._parse(Header, body)
            if header is not None:
                self.details |= {"profile": header.profile, "library": header.library}
        elif opcode == Opcode.SCHEMA:
            schema = self._parse(Schema, body)
            if schema is not None:
                contents.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = self._parse(McapChannel, body)
            if channel is not None:
                contents.channels[channel.id] = channel
        elif opcode == Opcode.METADATA:
            metadata = self._parse(Metadata, body)
            if metadata is not None:
                contents.metadata.append(metadata)
        elif opcode == Opcode.STATISTICS:
            contents.statistics = self._parse(Statistics, body)
        elif opcode == Opcode.ATTACHMENT:
            contents.has_attachments = True

    def _data_records(self, wanted: Collection[int], include_summary: bool = False) -> Iterator[tuple[int, bytes]]:
        """The wanted records of the data section.

        Behind a damaged place it goes on with the next chunk that the index knows. Attachments that are not wanted
        come out without their body when the summary is included.
        """
        position = len(MAGIC)
        while True:
            following = bisect_right(self._chunk_places, position)
            next_chunk = self._chunk_places[following] if following < len(self._chunk_places) else self._file.size
            try:
                self._file.seek(position)
                opcode, length = _RECORD.unpack(self._file.read(_RECORD.size))
                end = position + _RECORD.size + length
                if end > next_chunk:
                    raise TruncatedError(f"{length:,} bytes announced, {next_chunk - position:,} left")
                body = self._file.read(length) if opcode in wanted and length <= _LARGEST_RECORD else b""
            except TruncatedError as error:
                if next_chunk == self._file.size:
                    self.note_damage(f"the file breaks off: {error}")
                    return
                self.note_damage("the file is damaged between two chunks")
                position = next_chunk
                continue
            position = end
            if length > _LARGEST_RECORD:
                self.note_damage(f"a record of {length:,} bytes was passed over")
            elif opcode in wanted or (opcode == Opcode.ATTACHMENT and include_summary):
                yield opcode, body
            if opcode == Opcode.FOOTER or (opcode == Opcode.DATA_END and not include_summary):
                return

    def _record(self) -> tuple[int, bytes]:
        opcode, length = _RECORD.unpack(self._file.read(_RECORD.size))
        if length > _LARGEST_RECORD:
            raise TruncatedError(f"a record of {length:,} bytes")
        return opcode, self._file.read(length)

    def _chunk_records(self, body: bytes) -> Iterator[tuple[int, memoryview]]:
        """The records inside a chunk; of a damaged chunk, those before the damage."""
        chunk = self._parse(Chunk, body)
        if chunk is None:
            return
        try:
            data = decompress(chunk.compression, chunk.data, chunk.uncompressed_size)
        except UnknownCompressionError:
            raise UnsupportedRecordingError(
                self.name, f"chunks are compressed with {chunk.compression[:40]!r}, which is not supported"
            ) from None
        except BrokenChunkError as error:
            self.note_damage(str(error))
            return
        if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            self.note_damage("the checksum of a chunk does not match its content")
            return
        view = memoryview(data)
        position = 0
        while position < len(data):
            if len(data) - position < _RECORD.size:
                self.note_damage("a chunk ends in the middle of a record")
                return
            opcode, length = _RECORD.unpack_from(data, position)
            position += _RECORD.size
            if length > len(data) - position:
                self.note_damage("a chunk ends in the middle of a record")
                return
            yield opcode, view[position : position + length]
            position += length

    def _parse(self, kind: Any, body: bytes) -> Any:
        try:
            return kind.read(ReadDataStream(BytesIO(body)))
        except _PARSE_ERRORS:
            self.note_damage(f"a {kind.__name__.lower()} record is damaged")
            return None
