"""The place of the drive: a two-lane road through a small town, and what stands or moves on it.

Positions on the road are given as (s, d): `s` metres along the centre line, `d` metres to the left of it. The world
frame is East-North-Up with the origin at s = 0. Traffic keeps to the right, so our lane has its middle at d = -1.75.
"""

import math
from dataclasses import dataclass
from random import Random

LANE_WIDTH = 3.5
OUR_LANE = -LANE_WIDTH / 2
STEP = 0.5  # metres between the samples of the centre line
LENGTH = 620.0
INITIAL_HEADING = 0.6  # radians, counter-clockwise from east

# (from s, to s, curvature in 1/m): the bends. Positive turns left. Curvature ramps over RAMP metres at both ends,
# as roads are built (clothoids), because a step in curvature would be a step in lateral acceleration.
BENDS = ((50.0, 120.0, 0.016), (145.0, 185.0, -0.012), (415.0, 490.0, -0.014), (505.0, 580.0, 0.010))
RAMP = 18.0

STOP_LINE_S = 192.0  # where the rear axle comes to rest
SWERVE_CART_S = 320.5


@dataclass(frozen=True, slots=True)
class Point:
    """A position in the world frame, metres, with the direction of the road there, radians."""

    east: float
    north: float
    heading: float


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box on or beside the road; sizes in metres, `speed` along the road in m/s (negative: oncoming)."""

    s: float
    d: float
    length: float
    width: float
    height: float
    colour: tuple[int, int, int]
    speed: float = 0.0
    crossing: tuple[float, float, float] | None = None  # (from second, to second, final d): rolls across the road

    def position(self, seconds: float) -> tuple[float, float]:
        """Where the middle of the box is, as (s, d), `seconds` after the start of the drive."""
        d = self.d
        if self.crossing is not None:
            begin, end, final_d = self.crossing
            progress = min(1.0, max(0.0, (seconds - begin) / (end - begin)))
            d += (final_d - self.d) * progress
        return self.s + self.speed * seconds, d


def curvature(s: float) -> float:
    """Curvature of the centre line at `s`, 1/m; positive turns left."""
    total = 0.0
    for begin, end, value in BENDS:
        if begin < s < end:
            total += value * min(1.0, (s - begin) / RAMP, (end - s) / RAMP)
    return total


def _centre_line() -> tuple[Point, ...]:
    east = north = 0.0
    heading = INITIAL_HEADING
    points = [Point(east, north, heading)]
    for index in range(int(LENGTH / STEP)):
        middle = heading + curvature((index + 0.25) * STEP) * STEP / 2
        east += STEP * math.cos(middle)
        north += STEP * math.sin(middle)
        heading += curvature((index + 0.5) * STEP) * STEP
        points.append(Point(east, north, heading))
    return tuple(points)


CENTRE_LINE = _centre_line()


def centre(s: float) -> Point:
    """The centre line at `s`; straight on beyond both ends."""
    index = min(max(int(s / STEP), 0), len(CENTRE_LINE) - 1)
    base = CENTRE_LINE[index]
    rest = s - index * STEP
    turn = curvature(index * STEP + rest / 2) * rest
    chord = base.heading + turn / 2
    return Point(base.east + rest * math.cos(chord), base.north + rest * math.sin(chord), base.heading + turn)


def to_world(s: float, d: float) -> Point:
    """The world position of a road position."""
    point = centre(s)
    return Point(point.east - d * math.sin(point.heading), point.north + d * math.cos(point.heading), point.heading)


def _scenery() -> tuple[Box, ...]:
    random = Random(20260314)
    boxes: list[Box] = []
    s = 8.0
    while s < LENGTH:
        side = random.choice((-1, 1))
        shade = random.randrange(120, 190)
        if random.random() < 0.3:  # a house
            house = (shade, shade - 15, shade - 35)
            boxes.append(Box(s + 6, side * random.uniform(12, 18), 11.0, 8.0, random.uniform(5, 8), house))
        else:  # a tree or hedge
            green = (40, random.randrange(85, 125), 45)
            boxes.append(Box(s, side * random.uniform(6.5, 10), 1.4, 1.4, random.uniform(2.5, 5), green))
        s += random.uniform(5, 11)
    for index in range(int(LENGTH / 30)):  # a delineator post every 30 m on both sides
        boxes.extend(Box(index * 30.0, side * 4.6, 0.12, 0.12, 1.0, (235, 235, 235)) for side in (-1, 1))
    return tuple(boxes)


CART = Box(SWERVE_CART_S, -6.0, 1.6, 1.0, 1.5, (225, 95, 25), crossing=(35.0, 36.2, -2.1))
BOXES: tuple[Box, ...] = (
    *_scenery(),
    Box(SWERVE_CART_S - 6.0, -6.6, 5.2, 2.0, 2.4, (205, 205, 215)),  # the parked van that hides the cart
    Box(STOP_LINE_S + 6.0, -5.0, 0.15, 0.7, 2.6, (200, 30, 35)),  # the stop sign
    Box(240.0, 1.75, 4.3, 1.8, 1.5, (35, 70, 140), speed=-9.0),
    Box(560.0, 1.75, 4.3, 1.8, 1.5, (150, 35, 40), speed=-10.0),
    CART,
)
"""Everything that stands or moves near the road; CART is what the car swerves around."""
