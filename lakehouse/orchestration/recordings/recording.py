"""What every container format offers: channels, and their messages in blocks of bounded size."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

DEFAULT_BLOCK_BYTES = 16 << 20
LARGEST_TIME_NS = 2**63 - 1
"""MCAP times are unsigned; the lake counts in signed 64-bit nanoseconds, until April 2262."""

_MESSAGE_OVERHEAD = 200
_HASH_PIECE = 4 << 20
_MOST_DAMAGES = 100

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a recording.

    Attributes:
        name: File name without folders.
        size: Bytes.
        sha256: Hexadecimal digest of the content.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A stream of messages of one type.

    Attributes:
        id: Unique within the recording.
        topic: As recorded.
        message_type: As recorded; empty when the container knows none.
        encoding: Of the messages: `cdr`, `ros1`, `json`, `protobuf`, or whatever the container says.
        schema_encoding: Of the definition: `ros1msg`, `ros2msg`, `ros2idl`, `jsonschema`, `protobuf`, or empty.
        schema: The definition as recorded; empty when there is none.
        message_count: From the container's own index; None when it has none.
        metadata: What else the container says about the channel: QoS, latching, caller.
    """

    id: int
    topic: str
    message_type: str
    encoding: str
    schema_encoding: str
    schema: bytes
    message_count: int | None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawMessages:
    """Consecutive messages of one channel, in the order of the container.

    Attributes:
        log_time_ns: When each message was recorded, Unix ns.
        publish_time_ns: When it was sent, Unix ns; None when the format does not know.
        sequence: The publisher's counter; None when the format does not know.
    """

    channel: Channel
    log_time_ns: Times
    publish_time_ns: Times | None
    sequence: npt.NDArray[np.uint32] | None
    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file carried inside a recording (MCAP).

    Attributes:
        log_time_ns: When it was recorded, Unix ns.
        create_time_ns: When it was created, Unix ns; 0 if unknown.
    """

    name: str
    media_type: str
    log_time_ns: int
    create_time_ns: int
    data: bytes


class Recording(ABC):
    """An open recording. Use as a context manager.

    Attributes:
        name: File or directory name.
        format: `mcap`, `rosbag1`, `rosbag2-sqlite3` or `rosbag2-mcap`.
        channels: All channels, also those without messages.
        details: What the container says about itself (library, profile, distribution, metadata records).
        damages: What was found broken and left out; grows while messages are read.
        unusable: Channel id -> reason -> messages that could not be handed out.
    """

    format: str

    def __init__(self, name: str, files: list[Path]) -> None:
        self.name = name
        self._files = files
        self.channels: list[Channel] = []
        self._channel_of_stream: dict[int, Channel] = {}
        self.details: dict[str, Any] = {}
        self.damages: list[str] = []
        self.unusable: dict[int, Counter[str]] = {}

    @cached_property
    def source(self) -> list[SourceFile]:
        """The files of the recording with their content hashes; reads them whole at the first call."""
        return [SourceFile(file.name, file.stat().st_size, _sha256(file)) for file in self._files]

    @abstractmethod
    def read_messages(
        self, channels: Collection[Channel] | None = None, block_bytes: int = DEFAULT_BLOCK_BYTES
    ) -> Iterator[RawMessages]:
        """The messages of some channels (all by default), block by block.

        Blocks of different channels alternate; within a channel the order of the container is kept. At most about
        `block_bytes` of messages are held at a time.

        Raises:
            UnreadableRecordingError: If the container breaks in a way that leaves nothing to go on with.
        """

    def attachments(self) -> Iterator[Attachment]:
        """Files carried inside the recording."""
        return iter(())

    @abstractmethod
    def close(self) -> None:
        """Release the files."""

    def note_damage(self, damage: str) -> None:
        """Remember what is broken, once."""
        if len(self.damages) < _MOST_DAMAGES and damage not in self.damages:
            self.damages.append(damage)

    def channel_of(self, stream: int) -> Channel | None:
        """The channel that a stream of the container belongs to."""
        return self._channel_of_stream.get(stream)

    def _set_channels(self, streams: Iterable[tuple[int, Hashable, Channel]]) -> None:
        """Make the streams of the container channels; several with one key (publishers of one topic) become one.

        Args:
            streams: The container's own number, a key that tells message types of one topic apart, and the channel.
        """
        groups: dict[Hashable, list[tuple[int, Channel]]] = {}
        for stream, key, channel in streams:
            groups.setdefault((channel.topic, key), []).append((stream, channel))
        for members in groups.values():
            channels = [channel for _, channel in members]
            merged = channels[0]
            if len(channels) > 1:
                counts = [channel.message_count for channel in channels]
                metadata = [channel.metadata for channel in channels]
                merged = dataclasses.replace(
                    merged,
                    message_count=None if None in counts else sum(count or 0 for count in counts),
                    metadata=metadata[0] if all(item == metadata[0] for item in metadata) else {"publishers": metadata},
                )
            self.channels.append(merged)
            self._channel_of_stream.update((stream, merged) for stream, _ in members)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockBuffer:
    """Collects messages by channel, and hands out the fullest channels when too many bytes wait."""

    def __init__(self, recording: Recording, channels: Collection[Channel] | None, block_bytes: int) -> None:
        chosen = recording.channels if channels is None else channels
        self._channels = {channel.id: channel for channel in chosen}
        self._recording = recording
        self._unusable = recording.unusable
        self._limit = block_bytes
        self._bytes = 0
        self._waiting: dict[int, _Waiting] = {}

    def wants(self, stream: int) -> bool:
        """Whether messages of a stream of the container are asked for."""
        channel = self._recording.channel_of(stream)
        return channel is not None and channel.id in self._channels

    def add(self, stream: int, log_time_ns: int, publish_time_ns: int, sequence: int, payload: bytes) -> None:
        """Take a message of a wanted stream."""
        channel = self._recording.channel_of(stream)
        assert channel is not None
        channel_id = channel.id
        if log_time_ns > LARGEST_TIME_NS or publish_time_ns > LARGEST_TIME_NS:
            self.reject(stream, "its time is beyond the year 2262")
            return
        waiting = self._waiting.get(channel_id)
        if waiting is None:
            waiting = self._waiting[channel_id] = _Waiting()
        waiting.log_times.append(log_time_ns)
        waiting.publish_times.append(publish_time_ns)
        waiting.sequences.append(sequence)
        waiting.payloads.append(payload)
        size = len(payload) + _MESSAGE_OVERHEAD
        waiting.bytes += size
        self._bytes += size

    def reject(self, stream: int, reason: str) -> None:
        """Count a message of a wanted stream that cannot be handed out."""
        channel = self._recording.channel_of(stream)
        assert channel is not None
        self._unusable.setdefault(channel.id, Counter())[reason] += 1

    def full_blocks(self) -> Iterator[RawMessages]:
        """Blocks to hand out now; none while there is room."""
        if self._bytes < self._limit:
            return
        for channel_id in sorted(self._waiting, key=lambda id_: self._waiting[id_].bytes, reverse=True):
            if self._bytes <= self._limit // 2:
                return
            yield self._take(channel_id)

    def remaining_blocks(self) -> Iterator[RawMessages]:
        """Everything that still waits."""
        for channel_id in list(self._waiting):
            yield self._take(channel_id)

    def _take(self, channel_id: int) -> RawMessages:
        waiting = self._waiting.pop(channel_id)
        self._bytes -= waiting.bytes
        return RawMessages(
            self._channels[channel_id],
            np.array(waiting.log_times, dtype=np.int64),
            np.array(waiting.publish_times, dtype=np.int64) if waiting.publish_times[0] >= 0 else None,
            np.array(waiting.sequences, dtype=np.uint32) if waiting.sequences[0] >= 0 else None,
            waiting.payloads,
        )


UNKNOWN = -1
"""Given to `BlockBuffer.add` as publish time or sequence by formats that have none."""


class _Waiting:
    __slots__ = ("bytes", "log_times", "payloads", "publish_times", "sequences")

    def __init__(self) -> None:
        self.log_times: list[int] = []
        self.publish_times: list[int] = []
        self.sequences: list[int] = []
        self.payloads: list[bytes] = []
        self.bytes = 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_PIECE):
            digest.update(piece)
    return digest.hexdigest()
