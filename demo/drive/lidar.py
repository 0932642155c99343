"""The laser scanner: a horizontal plane of beams, 0.55 m above the road, cast against every box near the car."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import numpy as np

from demo.drive import road, vehicle
from demo.drive.messages import Sample, SensorClock, build, header

FORWARD: Final = 3.4  # metres ahead of the rear axle
BEAMS: Final = 271
ANGLE_MIN: Final = -math.radians(135)
ANGLE_STEP: Final = math.radians(1)
RANGE_MIN: Final = 0.1  # metres
RANGE_MAX: Final = 30.0


def scans() -> Iterator[Sample]:
    """10 Hz. A beam that meets nothing is +inf (ROS REP 117)."""
    random = np.random.default_rng(107)
    # From the math module: NumPy picks its own sine by the kind of processor, and the last bits differ.
    angles = [ANGLE_MIN + index * ANGLE_STEP for index in range(BEAMS)]
    directions = np.array([(math.cos(angle), math.sin(angle)) for angle in angles])
    for tick in SensorClock(10.0, 0.0267, 0.0009, 0.012, seed=7).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        walls = _in_car_frame(_walls(tick.seconds), state)
        ranges, facing = cast(directions, walls)
        ranges = ranges + random.normal(0.0, 0.008, BEAMS)
        hit = (ranges >= RANGE_MIN) & (ranges <= RANGE_MAX)
        yield Sample(
            "/scan",
            "sensor_msgs/msg/LaserScan",
            build(
                "sensor_msgs/msg/LaserScan",
                header=header(tick.stamp_ns, "laser"),
                angle_min=round(ANGLE_MIN, 6),
                angle_max=round(-ANGLE_MIN, 6),
                angle_increment=round(ANGLE_STEP, 8),
                time_increment=0.0,  # all beams at once
                scan_time=0.1,
                range_min=RANGE_MIN,
                range_max=RANGE_MAX,
                ranges=np.where(hit, np.round(ranges, 3), np.inf).astype(np.float32),
                intensities=np.where(hit, np.round(200 * facing), 0).astype(np.float32),
            ),
            tick.publish_ns,
            tick.log_ns,
        )


def cast(directions: np.ndarray, walls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance along every beam to the first wall (inf: none), and how squarely it was met (0 to 1).

    Args:
        directions: Unit vectors, shape (beams, 2).
        walls: Line pieces, shape (walls, 4): x and y of both ends; the scanner is at the origin, metres.
    """
    if not len(walls):
        return np.full(len(directions), np.inf), np.zeros(len(directions))
    start, along = walls[:, :2], walls[:, 2:] - walls[:, :2]
    # origin + t * direction = start + u * along, solved by Cramer's rule for every pair of beam and wall.
    denominator = directions[:, :1] * along[:, 1] - directions[:, 1:] * along[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (start[:, 0] * along[:, 1] - start[:, 1] * along[:, 0]) / denominator
        u = (start[:, 0] * directions[:, 1:] - start[:, 1] * directions[:, :1]) / denominator
    distance = np.where((t > 0) & (u >= 0) & (u <= 1), t, np.inf)
    nearest = np.argmin(distance, axis=1)
    beams = np.arange(len(directions))
    lengths = np.sqrt(along[:, 0] ** 2 + along[:, 1] ** 2)
    return distance[beams, nearest], np.abs(denominator[beams, nearest]) / lengths[nearest]


def _box_walls(box: road.Box, seconds: float) -> list[tuple[float, float, float, float]]:
    s, d = box.position(seconds)
    corners = [
        road.to_world(s + along * box.length / 2, d + across * box.width / 2)
        for along, across in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    following = corners[1:] + corners[:1]
    return [(a.east, a.north, b.east, b.north) for a, b in zip(corners, following, strict=True)]


@cache
def _standing_walls() -> list[tuple[float, float, float, float]]:
    standing = (box for box in road.BOXES if not box.speed and box.crossing is None)
    return [wall for box in standing for wall in _box_walls(box, 0.0)]


def _walls(seconds: float) -> list[tuple[float, float, float, float]]:
    moving = (box for box in road.BOXES if box.speed or box.crossing is not None)
    return _standing_walls() + [wall for box in moving for wall in _box_walls(box, seconds)]


def _in_car_frame(walls: Sequence[tuple[float, float, float, float]], state: vehicle.State) -> np.ndarray:
    cosine, sine = math.cos(state.heading), math.sin(state.heading)
    offsets = np.asarray(walls).reshape(-1, 2) - (state.east + FORWARD * cosine, state.north + FORWARD * sine)
    near = (np.abs(offsets) < RANGE_MAX + 15).all(axis=1).reshape(-1, 2).any(axis=1)
    offsets = offsets.reshape(-1, 2, 2)[near].reshape(-1, 2)
    turned = np.column_stack(
        (offsets[:, 0] * cosine + offsets[:, 1] * sine, offsets[:, 1] * cosine - offsets[:, 0] * sine)
    )
    return np.round(turned, 9).reshape(-1, 4)
