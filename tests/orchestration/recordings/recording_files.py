"""Recordings made for tests, and independent ways to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import ConnectionExtRosbag2
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.time_window import TimeWindow

SHARED = Path(__file__).resolve().parents[4] / "shared"
ROS2 = get_typestore(Stores.ROS2_HUMBLE)
ROS1 = get_typestore(Stores.ROS1_NOETIC)
START_NS = 1_700_000_000_000_000_000

Message = tuple[int, bytes]
"""Time, Unix ns, and payload."""


def texts(count: int, *, ros1: bool = False, prefix: str = "text") -> list[Message]:
    """`std_msgs/msg/String` messages, 10 ms apart."""
    store = ROS1 if ros1 else ROS2
    serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
    kind = store.types["std_msgs/msg/String"]
    return [
        (START_NS + index * 10_000_000, bytes(serialize(kind(f"{prefix} {index}"), "std_msgs/msg/String")))
        for index in range(count)
    ]


def write_mcap(
    path: Path,
    channels: Sequence[tuple[str, str, str, str, bytes, Iterable[Message]]],
    *,
    compression: CompressionType = CompressionType.ZSTD,
    chunk_size: int = 4096,
    publish_offset_ns: int = 0,
    finish: Callable[[McapWriter], None] = lambda writer: None,
    **options: Any,
) -> Path:
    """An MCAP file of (topic, message encoding, schema name, schema encoding, schema, messages)."""
    writer = McapWriter(str(path), compression=compression, chunk_size=chunk_size, **options)
    writer.start("", "tests")
    for topic, encoding, schema_name, schema_encoding, schema, messages in channels:
        schema_id = writer.register_schema(schema_name, schema_encoding, schema) if schema_name else 0
        channel_id = writer.register_channel(topic, encoding, schema_id)
        for number, (time_ns, payload) in enumerate(messages):
            writer.add_message(channel_id, time_ns, payload, time_ns + publish_offset_ns, number)
    finish(writer)
    writer.finish()
    return path


def string_channel(topic: str, messages: Iterable[Message]) -> tuple[str, str, str, str, bytes, Iterable[Message]]:
    """A channel of `std_msgs/msg/String` for `write_mcap`."""
    return topic, "cdr", "std_msgs/msg/String", "ros2msg", b"string data", messages


def write_rosbag1(
    path: Path,
    topics: Sequence[tuple[str, str, Iterable[Message]]],
    compression: Rosbag1Writer.CompressionFormat | None = None,
) -> Path:
    """A ROS 1 bag of (topic, message type, messages)."""
    writer = Rosbag1Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        for number, (topic, message_type, messages) in enumerate(topics):
            connection = writer.add_connection(topic, message_type, typestore=ROS1, callerid=f"/node{number}")
            for time_ns, payload in messages:
                writer.write(connection, time_ns, payload)
    return path


def write_rosbag2(
    path: Path,
    topics: Sequence[tuple[str, str, Iterable[Message]]],
    storage: StoragePlugin = StoragePlugin.SQLITE3,
    configure: Callable[[Rosbag2Writer], None] = lambda writer: None,
) -> Path:
    """A rosbag2 directory of (topic, message type, messages)."""
    writer = Rosbag2Writer(path, version=9, storage_plugin=storage)
    configure(writer)
    with writer:
        for topic, message_type, messages in topics:
            connection = writer.add_connection(topic, message_type, typestore=ROS2)
            assert isinstance(connection.ext, ConnectionExtRosbag2)
            for time_ns, payload in messages:
                writer.write(connection, time_ns, payload)
    return path


def stored_rows(lake: Lakehouse, sequence: str, topic: str) -> list[dict[str, Any]]:
    """All rows of a topic, as a client would read them."""
    record = lake.topics.get(TopicLocator(sequence, topic))
    return [row for batch in lake.reader.read(record, TimeWindow()) for row in batch.to_pylist()]


def as_plain(value: Any) -> Any:
    """A rosbags message as the nested dictionaries that `to_pylist` gives; NaN becomes the text 'nan'."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name.removesuffix("_"): as_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name != "__msgtype__" and not str(field.type).startswith("ClassVar")
        }
    if isinstance(value, np.ndarray):
        return as_plain(value.tolist())
    if isinstance(value, dict):
        return {key.removesuffix("_"): as_plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [as_plain(child) for child in value]
    if isinstance(value, float) and value != value:
        return "nan"
    return value


def with_bytes_as_lists(value: Any) -> Any:
    """Bytes are columns of their own for us, and arrays of small numbers for rosbags: lists of numbers here."""
    if isinstance(value, dict):
        return {key: with_bytes_as_lists(child) for key, child in value.items()}
    if isinstance(value, list):
        return [with_bytes_as_lists(child) for child in value]
    return list(value) if isinstance(value, bytes) else value
