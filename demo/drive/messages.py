"""ROS 2 messages: the types of the demo recording, and what all of them share.

Message classes come from the `rosbags` type store, so that definitions and CDR encoding are those of ROS 2 Humble.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

START_NS: Final = 1_773_480_413_000_000_000  # 2026-03-14T09:26:53Z

CONTROLLER_STATE: Final = "demo_msgs/msg/ControllerState"
CONTROLLER_STATE_DEFINITION: Final = """\
# State of the lane-keeping controller. A type of this demo only: nobody else knows it.
uint8 MODE_STANDBY=0
uint8 MODE_LANE_KEEPING=1
uint8 MODE_EVASIVE=2
std_msgs/Header header
uint8 mode
string mode_name
float64 target_acceleration   # m/s^2
float64 target_steering       # rad, at the front wheels
float64 lateral_error         # m, positive: the car is right of the wanted path
float32[4] wheel_slip         # front left, front right, rear left, rear right; ratio
string[] warnings
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of the recording, with the times at which it was sent and received (ns since the epoch)."""

    topic: str
    message_type: str
    message: Any
    publish_ns: int
    log_ns: int


@dataclass(frozen=True, slots=True)
class Tick:
    """One measurement: when it was really taken (s since the start), its stamp, and when it was sent and received."""

    seconds: float
    stamp_ns: int
    publish_ns: int
    log_ns: int


@dataclass(frozen=True, slots=True)
class SensorClock:
    """A free-running sensor: nothing triggers it, so its phase, jitter and latency are its own. Times in seconds."""

    rate: float
    phase: float
    jitter: float
    latency: float
    seed: int

    def ticks(self, duration: float) -> Iterator[Tick]:
        """The measurements of a drive, strictly increasing in all of their times."""
        random = np.random.default_rng(self.seed)
        count = int((duration - self.phase) * self.rate)
        jitters = np.clip(random.normal(0.0, self.jitter, count), -0.2 / self.rate, 0.2 / self.rate)
        delays = np.clip(random.normal(self.latency, self.latency / 5, count), self.latency / 2, None)
        last = 0
        for index, (jitter, delay) in enumerate(zip(jitters.tolist(), delays.tolist(), strict=True)):
            seconds = max(0.0, self.phase + index / self.rate + jitter)
            stamp = START_NS + round(seconds * 1e9)
            log = max(last + 1000, stamp + round(delay * 1e9))
            yield Tick(seconds, stamp, stamp + (log - stamp) * 2 // 3, log)
            last = log


@cache
def typestore() -> Typestore:
    """ROS 2 Humble with the demo's own type."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(CONTROLLER_STATE_DEFINITION, CONTROLLER_STATE))
    return store


def message_definition(message_type: str) -> str:
    """The `.msg` text with all nested types, as MCAP expects it in a schema of encoding `ros2msg`.

    The demo's own type keeps its comments, which carry the units.
    """
    text, _ = typestore().generate_msgdef(message_type, ros_version=2)
    if message_type == CONTROLLER_STATE:
        nested = text.index("=" * 80)
        return CONTROLLER_STATE_DEFINITION + text[nested:]
    return text


def build(message_type: str, **fields: Any) -> Any:
    """A message of the given type."""
    return typestore().types[message_type](**fields)


def header(stamp_ns: int, frame: str) -> Any:
    """A `std_msgs/Header`."""
    stamp = build("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return build("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def vector(x: float, y: float, z: float) -> Any:
    """A `geometry_msgs/Vector3`."""
    return build("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def quaternion(roll: float, pitch: float, yaw: float) -> Any:
    """A unit `geometry_msgs/Quaternion` from fixed-axis angles in radians, rounded to 12 decimals."""
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    return build(
        "geometry_msgs/msg/Quaternion",
        x=round(sr * cp * cy - cr * sp * sy, 12),
        y=round(cr * sp * cy + sr * cp * sy, 12),
        z=round(cr * cp * sy - sr * sp * cy, 12),
        w=round(cr * cp * cy + sr * sp * sy, 12),
    )


def transform(stamp_ns: int, parent: str, child: str, translation: tuple[float, float, float], rotation: Any) -> Any:
    """A `geometry_msgs/TransformStamped`."""
    return build(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=build("geometry_msgs/msg/Transform", translation=vector(*translation), rotation=rotation),
    )


def diagonal(values: Sequence[float]) -> np.ndarray:
    """A row-major covariance matrix with these variances."""
    return np.diag(np.asarray(values, dtype=np.float64)).reshape(-1)
