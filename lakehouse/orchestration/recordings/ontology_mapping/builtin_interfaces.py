"""builtin_interfaces (ROS 2), and `time` and `duration` of ROS 1.

Source: common_interfaces, builtin_interfaces/msg/Time.msg and Duration.msg: `int32 sec`, `uint32 nanosec` in [0, 10e9).
"""

from lakehouse.orchestration.recordings.ontology_mapping.expressions import MessageTable, Required, record
from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows

NANOSECONDS_PER_SECOND = 1_000_000_000


def _is_normalized(rows: Rows) -> BooleanMask:
    return rows.numbers("nanosec") < NANOSECONDS_PER_SECOND


TIME = Required(
    _is_normalized,
    "a time with a second or more in its nanoseconds is invalid",
    record(seconds="sec", nanoseconds="nanosec"),
)

MESSAGES: MessageTable = {
    "builtin_interfaces/msg/Time": ("Time", TIME),
    "builtin_interfaces/msg/Duration": ("Duration", TIME),
}
