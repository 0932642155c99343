"""std_msgs: primitive values and the header that most messages carry.

Source: common_interfaces, std_msgs/msg; ROS 1 headers have a field `seq` besides.
"""

import numpy as np
import pyarrow.compute as pc

from lakehouse.orchestration.recordings.ontology_mapping.builtin_interfaces import TIME
from lakehouse.orchestration.recordings.ontology_mapping.expressions import Field, Inside, MessageTable, OnlyIf, record
from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows

HEADER_MESSAGE = record(
    timestamp=Inside("stamp", TIME),
    frame_id="frame_id",
    sample_counter=Field("seq", optional=True),
)


def _header_is_set(rows: Rows) -> BooleanMask:
    """A header at time zero without a frame is one that nobody filled in."""
    if not rows.has("header"):
        return np.zeros(len(rows), dtype=np.bool_)
    named = pc.not_equal(rows.texts("header.frame_id"), "").to_numpy(zero_copy_only=False)
    timed = (rows.numbers("header.stamp.sec") != 0) | (rows.numbers("header.stamp.nanosec") != 0)
    return named | timed


HEADER = OnlyIf(_header_is_set, Inside("header", HEADER_MESSAGE, optional=True))

_PRIMITIVES = {
    "Bool": "Boolean",
    "Float32": "Floating32",
    "Float64": "Floating64",
    "Int8": "Integer8",
    "Int16": "Integer16",
    "Int32": "Integer32",
    "Int64": "Integer64",
    "String": "String",
    "UInt8": "Unsigned8",
    "UInt16": "Unsigned16",
    "UInt32": "Unsigned32",
    "UInt64": "Unsigned64",
}

MESSAGES: MessageTable = {
    "std_msgs/msg/Header": ("Header", HEADER_MESSAGE),
} | {f"std_msgs/msg/{name}": (tag, record(data="data")) for name, tag in _PRIMITIVES.items()}
