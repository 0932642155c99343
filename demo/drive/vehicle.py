"""The car: a kinematic bicycle model, driven along the road by a small controller.

The model is the usual one for cars at moderate slip (Rajamani, Vehicle Dynamics and Control, section 2.2) with the
reference point on the rear axle: yaw rate = speed * tan(steering angle) / wheelbase. Steering and acceleration follow
their commands with a first-order lag, which is what makes the signals smooth as in a real car.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

from demo.drive import road

DURATION: Final = 52.0  # seconds
STEP: Final = 0.001  # seconds between simulated states
WHEELBASE: Final = 2.7  # metres
TRACK: Final = 1.55  # metres between left and right wheels
WHEEL_RADIUS: Final = 0.32  # metres
STEERING_LAG: Final = 0.06  # seconds
DRIVETRAIN_LAG: Final = 0.25  # seconds
MAX_STEERING: Final = 0.55  # radians at the front wheels

# The event worth finding: a cart rolls into our lane and the driver swerves around it.
SWERVE_START: Final = 36.0  # seconds after the start of the drive
SWERVE_SECONDS: Final = 1.6
SWERVE_PEAK: Final = 6.4  # m/s^2 of lateral acceleration asked for, to the left first and then to the right
RECOVERY_START: Final = 38.2
RECOVERY_SECONDS: Final = 3.2

# (until second, target acceleration in m/s^2); BRAKE_TO_STOP brakes so that the car rests at the stop line.
BRAKE_TO_STOP: Final = -math.inf
ACCELERATION_PLAN: Final = (
    (2.0, 0.0),
    (8.0, 2.1),
    (18.6, 0.0),
    (25.6, BRAKE_TO_STOP),
    (33.2, 2.3),
    (36.1, 0.0),
    (38.0, -1.2),
    (45.5, 0.0),
    (DURATION, -3.0),
)


@dataclass(frozen=True, slots=True)
class State:
    """The car at one moment. SI units, radians, world frame East-North-Up; x forward, y left in the car's own frame."""

    seconds: float
    s: float  # metres along the road
    d: float  # metres left of the centre line
    east: float
    north: float
    heading: float
    speed: float
    acceleration: float
    steering: float
    yaw_rate: float
    yaw_acceleration: float
    distance: float  # metres driven
    target_acceleration: float
    target_steering: float
    lateral_error: float  # metres right of where the driver wants to be

    def acceleration_at(self, forward: float) -> tuple[float, float]:
        """Acceleration (x, y) in m/s^2 of a point `forward` metres ahead of the rear axle, without gravity."""
        return (
            self.acceleration - self.yaw_rate * self.yaw_rate * forward,
            self.speed * self.yaw_rate + self.yaw_acceleration * forward,
        )


@cache
def drive() -> tuple[State, ...]:
    """The whole drive, one state per millisecond, index = milliseconds since its start."""
    s, d = 0.0, road.OUR_LANE
    start = road.to_world(s, d)
    east, north, heading = start.east, start.north, start.heading
    speed = acceleration = steering = yaw_rate = distance = 0.0
    states: list[State] = []
    for tick in range(round(DURATION / STEP) + 1):
        seconds = tick * STEP
        target_acceleration = _target_acceleration(seconds, speed, s)
        target_steering, lateral_error = _target_steering(seconds, s, d, heading, speed)

        acceleration += (target_acceleration - acceleration) * STEP / DRIVETRAIN_LAG
        if speed <= 0.0 and acceleration <= 0.0:
            speed = acceleration = 0.0
        steering += (target_steering - steering) * STEP / STEERING_LAG
        steering = min(MAX_STEERING, max(-MAX_STEERING, steering))
        new_yaw_rate = speed * math.tan(steering) / WHEELBASE
        yaw_acceleration = (new_yaw_rate - yaw_rate) / STEP
        yaw_rate = new_yaw_rate

        # Rounding keeps the last bits, in which mathematical libraries of different machines differ, out of the file.
        states.append(
            State(
                seconds=round(seconds, 9),
                s=round(s, 9),
                d=round(d, 9),
                east=round(east, 9),
                north=round(north, 9),
                heading=round(heading, 9),
                speed=round(speed, 9),
                acceleration=round(acceleration, 9),
                steering=round(steering, 9),
                yaw_rate=round(yaw_rate, 9),
                yaw_acceleration=round(yaw_acceleration, 7),
                distance=round(distance, 9),
                target_acceleration=round(target_acceleration, 7),
                target_steering=round(target_steering, 7),
                lateral_error=round(lateral_error, 7),
            )
        )

        heading_on_road = heading - road.centre(s).heading
        s += STEP * speed * math.cos(heading_on_road) / (1.0 - d * road.curvature(s))
        d += STEP * speed * math.sin(heading_on_road)
        east += STEP * speed * math.cos(heading)
        north += STEP * speed * math.sin(heading)
        heading += STEP * yaw_rate
        distance += STEP * speed
        speed = max(0.0, speed + STEP * acceleration)
    return tuple(states)


def state_at(seconds: float) -> State:
    """The state nearest to `seconds` after the start of the drive, to the millisecond."""
    states = drive()
    return states[min(max(round(seconds / STEP), 0), len(states) - 1)]


def planned_offset(seconds: float) -> tuple[float, float, float]:
    """Where in the lane the driver wants to be: metres left of the lane's middle, and the first two derivatives."""
    offset, rate, second = 0.0, 0.0, 0.0
    shift = SWERVE_PEAK * SWERVE_SECONDS**2 / (2 * math.pi)
    recovery_peak = shift * 2 * math.pi / RECOVERY_SECONDS**2
    for begin, length, peak in (
        (SWERVE_START, SWERVE_SECONDS, SWERVE_PEAK),
        (RECOVERY_START, RECOVERY_SECONDS, -recovery_peak),
    ):
        # One period of a sine in acceleration: starts and ends at rest, sideways by peak * length^2 / 2 pi.
        t = min(max(seconds - begin, 0.0), length)
        omega = 2 * math.pi / length
        offset += peak / omega * (t - math.sin(omega * t) / omega)
        rate += peak / omega * (1 - math.cos(omega * t))
        second += peak * math.sin(omega * t)
    return offset, rate, second


def _target_acceleration(seconds: float, speed: float, s: float) -> float:
    wanted = next((value for until, value in ACCELERATION_PLAN if seconds < until), 0.0)
    if wanted == BRAKE_TO_STOP:
        # What is driven until the lag has passed no longer counts; 1 m/s^2 at least, so as to come to rest at all.
        remaining = max(road.STOP_LINE_S - s - speed * DRIVETRAIN_LAG, 0.3)
        wanted = -min(max(speed * speed / (2 * remaining), 1.0), 6.0)
    return wanted


def _target_steering(seconds: float, s: float, d: float, heading: float, speed: float) -> tuple[float, float]:
    # What is asked for a lag ahead is what the wheels do now.
    ahead = seconds + STEERING_LAG
    offset, rate, _ = planned_offset(seconds)
    _, _, second = planned_offset(ahead)
    moving = max(speed, 1.0)
    error = (road.OUR_LANE + offset) - d
    heading_error = road.centre(s).heading + math.atan2(rate, moving) - heading
    path_curvature = road.curvature(s + speed * STEERING_LAG) + second / (moving * moving)
    return math.atan(WHEELBASE * path_curvature) + 0.35 * heading_error + 0.5 * error / (moving + 2.0), error
