"""Which decoder reads a channel."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from rosbags.typesys import Stores, get_typestore

from lakehouse.orchestration.recordings.decoding.decoded import MessageDecoder
from lakehouse.orchestration.recordings.decoding.json_messages import JsonDecoder
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.decoding.protobuf_messages import ProtobufDecoder
from lakehouse.orchestration.recordings.decoding.ros import RosDecoder
from lakehouse.orchestration.recordings.decoding.ros_types import (
    Definitions,
    decoded_schema,
    normalized_type,
    parse_definitions,
)
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from lakehouse.orchestration.recordings.recording import Channel

ROS_ENCODINGS = frozenset({"cdr", "ros1"})
_NEWEST_FIRST = tuple(store for store in reversed(Stores) if store.name.startswith("ROS2_"))
_ROS_DEFINITIONS = frozenset({"ros1msg", "ros2msg", "ros2idl", "omgidl"})


def ros_definitions(channel: Channel) -> Definitions:
    """The definitions that come with a ROS channel, or those of the standard messages when it has none.

    Raises:
        MessageDefinitionError: If there are none.
    """
    return next(_candidate_definitions(channel))


def needs_survey(channel: Channel) -> bool:
    """Whether all messages of the channel must be looked at before the first can be decoded."""
    return channel.encoding == "json"


def decoders_for(channel: Channel, survey: JsonSurvey | None = None) -> Iterator[MessageDecoder]:
    """Decoders to try on the messages of a channel, the likeliest first.

    Args:
        channel: The channel.
        survey: Of its messages, if it needs one.

    Raises:
        MessageDefinitionError: If its messages cannot become columns; they can be kept raw.
    """
    if channel.encoding in ROS_ENCODINGS:
        message_type = normalized_type(channel.message_type)
        for definitions in _candidate_definitions(channel):
            yield RosDecoder(message_type, definitions, is_cdr=channel.encoding == "cdr")
    elif channel.encoding == "json":
        schema = channel.schema if channel.schema_encoding == "jsonschema" else b""
        yield JsonDecoder(schema, survey or JsonSurvey())
    elif channel.encoding == "protobuf" and channel.schema_encoding == "protobuf":
        yield ProtobufDecoder(channel.message_type, channel.schema)
    else:
        raise MessageDefinitionError(channel.message_type, f"there is no decoder for the encoding '{channel.encoding}'")


def _candidate_definitions(channel: Channel) -> Iterator[Definitions]:
    """The definitions in the recording; else those of each distribution in which the type differs, newest first.

    Raises:
        MessageDefinitionError: If there are none.
    """
    if channel.schema.strip() and channel.schema_encoding in _ROS_DEFINITIONS:
        text = channel.schema.decode("utf-8", errors="replace")
        yield parse_definitions(channel.message_type, text, channel.schema_encoding)
        return
    message_type = normalized_type(channel.message_type)
    seen: list[pa.Schema] = []
    for store in (Stores.ROS1_NOETIC,) if channel.encoding == "ros1" else _NEWEST_FIRST:
        definitions: dict[str, Any] = dict(get_typestore(store).fielddefs)
        if message_type in definitions:
            schema = decoded_schema(message_type, definitions)
            if schema not in seen:
                seen.append(schema)
                yield definitions
    if not seen:
        raise MessageDefinitionError(channel.message_type, "the recording holds none, and it is not a standard type")
