"""The front camera: a pinhole picture of the road, painted twice as large and reduced so that edges are smooth.

The camera looks straight ahead, so that one row of the picture below the horizon is one distance on the ground. For
every row the course of the road is looked up once; what a pixel shows then depends only on its (s, d) on the road.
"""

import io
import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from demo.drive import road, vehicle
from demo.drive.messages import Sample, SensorClock, build, header

FORWARD: Final = 1.6  # metres ahead of the rear axle
HEIGHT: Final = 1.25  # metres above the road
WIDTH_PX: Final = 320
HEIGHT_PX: Final = 180
SCALE: Final = 2  # painted larger by this factor
FOCAL: Final = 250.0 * SCALE  # pixels
HORIZON: Final = 76 * SCALE  # row
SIGHT: Final = 160.0  # metres
JPEG_QUALITY: Final = 72

SKY_TOP, SKY_LOW = np.array((96, 142, 198)), np.array((206, 220, 232))
GRASS, GRASS_DARK = np.array((98, 124, 66)), np.array((88, 114, 60))
ASPHALT, ASPHALT_DARK = np.array((92, 92, 96)), np.array((87, 87, 91))
PAINT = np.array((232, 232, 226))
HILL = (134, 156, 160)

Polygon = list[tuple[float, float, float]]  # corners as (forward, left, up) from the camera, metres


def frames() -> Iterator[Sample]:
    """8 Hz of JPEG pictures, 320 x 180 pixels."""
    for tick in SensorClock(8.0, 0.0585, 0.0015, 0.045, seed=8).ticks(vehicle.DURATION):
        picture = io.BytesIO()
        render(tick.seconds).save(picture, "JPEG", quality=JPEG_QUALITY)
        message = build(
            "sensor_msgs/msg/CompressedImage",
            header=header(tick.stamp_ns, "camera_front_optical"),
            format="jpeg",
            data=np.frombuffer(picture.getvalue(), dtype=np.uint8),
        )
        yield Sample(
            "/camera/front/compressed", "sensor_msgs/msg/CompressedImage", message, tick.publish_ns, tick.log_ns
        )


def render(seconds: float) -> Image.Image:
    """What the camera sees `seconds` after the start of the drive."""
    state = vehicle.state_at(seconds)
    pixels = np.empty((HEIGHT_PX * SCALE, WIDTH_PX * SCALE, 3), dtype=np.float64)
    blend = np.linspace(0.0, 1.0, HORIZON)[:, None, None]
    pixels[:HORIZON] = SKY_TOP * (1 - blend) + SKY_LOW * blend
    pixels[HORIZON:] = _ground(state)
    image = Image.fromarray(np.round(pixels).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(image)
    _hills(draw, state.heading)
    _boxes(draw, state, seconds)
    return image.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BOX)


def _camera_frame(state: vehicle.State, east: float, north: float) -> tuple[float, float]:
    """A world position as (forward, left) of the camera, metres."""
    cosine, sine = math.cos(state.heading), math.sin(state.heading)
    x, y = east - state.east, north - state.north
    return round(x * cosine + y * sine - FORWARD, 6), round(y * cosine - x * sine, 6)


def _ground(state: vehicle.State) -> np.ndarray:
    along = [state.s + distance for distance in range(-5, int(SIGHT) + 40)]
    course = np.array([_camera_frame(state, point.east, point.north) for point in map(road.centre, along)])
    rows = np.arange(HORIZON, HEIGHT_PX * SCALE) + 0.5
    forward = np.minimum(FOCAL * HEIGHT / (rows - HORIZON), 4 * SIGHT)
    s = np.interp(forward, course[:, 0], along)[:, None]
    middle = np.interp(forward, course[:, 0], course[:, 1])[:, None]
    slope = np.interp(forward, course[1:, 0], np.diff(course[:, 1]) / np.diff(course[:, 0]))[:, None]
    columns = np.arange(WIDTH_PX * SCALE) + 0.5 - WIDTH_PX * SCALE / 2
    left = -columns[None, :] * forward[:, None] / FOCAL
    d = (left - middle) / np.sqrt(1 + slope * slope)

    on_road = np.abs(d) < road.LANE_WIDTH + 0.25
    dark_stripe = (s % 9.0) < 4.5
    painted = (np.abs(np.abs(d) - road.LANE_WIDTH) < 0.07) | ((np.abs(d) < 0.07) & ((s % 9.0) < 3.0))
    stop_line = road.STOP_LINE_S + 4.6
    painted |= (np.abs(s - stop_line) < 0.25) & (d < -0.1) & (d > -road.LANE_WIDTH)
    colour = np.where(
        on_road[..., None],
        np.where(dark_stripe[..., None], ASPHALT_DARK, ASPHALT),
        np.where(dark_stripe[..., None], GRASS_DARK, GRASS),
    )
    colour = np.where((painted & on_road)[..., None], PAINT, colour)
    haze = np.minimum(forward / SIGHT, 1.0)[:, None, None] ** 2
    return colour * (1 - haze) + SKY_LOW * haze


def _hills(draw: ImageDraw.ImageDraw, heading: float) -> None:
    outline: list[tuple[int, int]] = []
    for column in range(0, WIDTH_PX * SCALE + 1, 8):
        azimuth = heading - math.atan((column - WIDTH_PX * SCALE / 2) / FOCAL)
        height = 10 + 7 * math.sin(3 * azimuth) + 5 * math.sin(7 * azimuth + 1) + 3 * math.sin(17 * azimuth)
        outline.append((column, HORIZON - round(max(height, 1.0) * SCALE)))
    draw.polygon([*outline, (WIDTH_PX * SCALE, HORIZON), (0, HORIZON)], fill=HILL)


def _boxes(draw: ImageDraw.ImageDraw, state: vehicle.State, seconds: float) -> None:
    faces: list[tuple[float, Polygon, tuple[int, int, int]]] = []
    for box in road.BOXES:
        s, d = box.position(seconds)
        if not -8 < s - state.s < SIGHT:
            continue
        footprint = []
        for along, across in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            point = road.to_world(s + along * box.length / 2, d + across * box.width / 2)
            footprint.append(_camera_frame(state, point.east, point.north))
        for index, brightness in enumerate((0.82, 0.7, 0.82, 1.0)):
            (ax, ay), (bx, by) = footprint[index], footprint[(index + 1) % 4]
            if ax * by - ay * bx < 0:  # this side looks towards the camera
                corners = [(ax, ay, -HEIGHT), (bx, by, -HEIGHT)]
                corners += [(bx, by, box.height - HEIGHT), (ax, ay, box.height - HEIGHT)]
                faces.append((math.hypot(ax + bx, ay + by), corners, _shade(box.colour, brightness, s - state.s)))
        if box.height < HEIGHT:
            top = [(x, y, box.height - HEIGHT) for x, y in footprint]
            faces.append((sum(x for x, _ in footprint) / 2, top, _shade(box.colour, 1.15, s - state.s)))
    for _, corners, colour in sorted(faces, key=lambda face: -face[0]):
        outline = _project(_clip(corners))
        if len(outline) > 2:
            draw.polygon(outline, fill=colour)


def _shade(colour: tuple[int, int, int], brightness: float, distance: float) -> tuple[int, int, int]:
    haze = min(max(distance, 0.0) / SIGHT, 1.0) ** 2
    red, green, blue = (
        round(min(255.0, part * brightness) * (1 - haze) + float(sky) * haze)
        for part, sky in zip(colour, SKY_LOW, strict=True)
    )
    return red, green, blue


def _clip(corners: Polygon, near: float = 0.4) -> Polygon:
    """The part of a polygon that is more than `near` metres ahead of the camera (Sutherland and Hodgman, 1974)."""
    kept: Polygon = []
    for (ax, ay, az), (bx, by, bz) in zip(corners, corners[1:] + corners[:1], strict=True):
        if ax >= near:
            kept.append((ax, ay, az))
        if (ax >= near) != (bx >= near):
            share = (near - ax) / (bx - ax)
            kept.append((near, ay + share * (by - ay), az + share * (bz - az)))
    return kept


def _project(corners: Polygon) -> list[tuple[int, int]]:
    return [
        (round(WIDTH_PX * SCALE / 2 - FOCAL * left / forward), round(HORIZON - FOCAL * up / forward))
        for forward, left, up in corners
    ]
