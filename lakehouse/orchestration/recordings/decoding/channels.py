"""Which decoder reads a channel."""

from collections.abc import Iterator
from typing import Any

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.msg import normalize_msgtype

from lakehouse.orchestration.recordings.decoding.decoded import MessageDecoder
from lakehouse.orchestration.recordings.decoding.ros import RosDecoder
from lakehouse.orchestration.recordings.decoding.ros_types import Definitions, parse_definitions
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from lakehouse.orchestration.recordings.recording import Channel

ROS_ENCODINGS = frozenset({"cdr", "ros1"})
_ROS_DEFINITIONS = frozenset({"ros1msg", "ros2msg", "ros2idl", "omgidl"})


def ros_definitions(channel: Channel) -> Definitions:
    """The definitions for a ROS channel: its own, or those of the standard messages when the recording has none.

    Raises:
        MessageDefinitionError: If there are none.
    """
    if channel.schema.strip() and channel.schema_encoding in _ROS_DEFINITIONS:
        text = channel.schema.decode("utf-8", errors="replace")
        return parse_definitions(channel.message_type, text, channel.schema_encoding)
    store = Stores.ROS1_NOETIC if channel.encoding == "ros1" else Stores.LATEST
    standard: dict[str, Any] = dict(get_typestore(store).fielddefs)
    if normalize_msgtype(channel.message_type) not in standard:
        raise MessageDefinitionError(channel.message_type, "the recording holds none, and it is not a standard type")
    return standard


def decoders_for(channel: Channel) -> Iterator[MessageDecoder]:
    """Decoders to try on the messages of a channel, the likeliest first.

    Raises:
        MessageDefinitionError: If its messages cannot become columns; they can be kept raw.
    """
    if channel.encoding in ROS_ENCODINGS:
        message_type = normalize_msgtype(channel.message_type)
        yield RosDecoder(message_type, ros_definitions(channel), is_cdr=channel.encoding == "cdr")
        return
    raise MessageDefinitionError(channel.message_type, f"messages are encoded as '{channel.encoding}'")
