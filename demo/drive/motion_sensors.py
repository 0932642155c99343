"""What the car measures of itself: IMU, GPS, wheels, battery, and the state of its controller.

Every function yields the samples of one or two topics in time order. Values are rounded to the resolution a sensor of
the kind has; noise and bias come from seeded generators.
"""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from demo.drive import vehicle
from demo.drive.messages import (
    CONTROLLER_STATE,
    START_NS,
    Sample,
    SensorClock,
    build,
    diagonal,
    header,
    quaternion,
    transform,
    vector,
)

GRAVITY: Final = 9.80665  # m/s^2
IMU_FORWARD: Final = 1.4  # metres ahead of the rear axle
GPS_FORWARD: Final = 0.9
ORIGIN_LATITUDE: Final = 45.0703  # degrees; the start of the drive
ORIGIN_LONGITUDE: Final = 7.6869
ORIGIN_ALTITUDE: Final = 239.0  # metres above the WGS 84 ellipsoid
MASS: Final = 1450.0  # kg

MOUNTS: Final = (  # (frame, translation in metres, fixed-axis rotation in radians), all from base_link
    ("imu_link", (IMU_FORWARD, 0.0, 0.35), (0.0, 0.0, 0.0)),
    ("gps_antenna", (GPS_FORWARD, 0.0, 1.48), (0.0, 0.0, 0.0)),
    ("laser", (3.4, 0.0, 0.55), (0.0, 0.0, 0.0)),
    ("camera_front_optical", (1.6, 0.0, 1.25), (-math.pi / 2, 0.0, -math.pi / 2)),
)


def imu() -> Iterator[Sample]:
    """200 Hz; accelerations include gravity, as an accelerometer at rest feels it (+9.81 upwards)."""
    random = np.random.default_rng(101)
    orientation_covariance = diagonal((2.5e-5, 2.5e-5, 1e-4))
    gyroscope_covariance = diagonal((1.6e-5,) * 3)
    accelerometer_covariance = diagonal((3.6e-3,) * 3)
    for tick in SensorClock(200.0, 0.0013, 0.00005, 0.0012, seed=1).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        noise = random.normal(0.0, 1.0, 9).tolist()
        x, y = state.acceleration_at(IMU_FORWARD)
        vibration = 0.03 + 0.012 * state.speed  # the road shakes a moving car
        yield Sample(
            "/imu/front",
            "sensor_msgs/msg/Imu",
            build(
                "sensor_msgs/msg/Imu",
                header=header(tick.stamp_ns, "imu_link"),
                orientation=quaternion(0.002 * noise[0], 0.002 * noise[1], state.heading + 0.004 * noise[2]),
                orientation_covariance=orientation_covariance,
                angular_velocity=vector(
                    round(0.0011 + 0.004 * noise[3], 6),
                    round(-0.0007 + 0.004 * noise[4], 6),
                    round(state.yaw_rate + 0.0005 + 0.003 * noise[5], 6),
                ),
                angular_velocity_covariance=gyroscope_covariance,
                linear_acceleration=vector(
                    round(x + 0.02 + 0.04 * noise[6], 5),
                    round(y - 0.015 + 0.04 * noise[7], 5),
                    round(GRAVITY + 0.03 + vibration * noise[8], 5),
                ),
                linear_acceleration_covariance=accelerometer_covariance,
            ),
            tick.publish_ns,
            tick.log_ns,
        )


def to_geodetic(east: float, north: float) -> tuple[float, float]:
    """Latitude and longitude in degrees of a point on the plane that touches WGS 84 at the origin of the drive.

    Uses the ellipsoid's two radii of curvature at the origin; over one kilometre the error is below a millimetre.
    """
    semi_major, flattening = 6_378_137.0, 1 / 298.257223563
    eccentricity = flattening * (2 - flattening)
    latitude = math.radians(ORIGIN_LATITUDE)
    bend = 1 - eccentricity * math.sin(latitude) ** 2
    meridian = semi_major * (1 - eccentricity) / bend**1.5
    prime_vertical = semi_major / math.sqrt(bend)
    return (
        ORIGIN_LATITUDE + math.degrees(north / meridian),
        ORIGIN_LONGITUDE + math.degrees(east / (prime_vertical * math.cos(latitude))),
    )


def gps() -> Iterator[Sample]:
    """10 Hz; the error wanders over seconds, as satellite geometry and reflections make it."""
    random = np.random.default_rng(102)
    east_error, north_error, up_error = 0.2, -0.3, 0.5
    for tick in SensorClock(10.0, 0.043, 0.002, 0.035, seed=2).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        noise = random.normal(0.0, 1.0, 3).tolist()
        east_error = 0.98 * east_error + 0.07 * noise[0]
        north_error = 0.98 * north_error + 0.07 * noise[1]
        up_error = 0.98 * up_error + 0.14 * noise[2]
        latitude, longitude = to_geodetic(
            state.east + GPS_FORWARD * math.cos(state.heading) + east_error,
            state.north + GPS_FORWARD * math.sin(state.heading) + north_error,
        )
        yield Sample(
            "/gps/fix",
            "sensor_msgs/msg/NavSatFix",
            build(
                "sensor_msgs/msg/NavSatFix",
                header=header(tick.stamp_ns, "gps_antenna"),
                status=build("sensor_msgs/msg/NavSatStatus", status=1, service=9),  # SBAS; GPS and Galileo
                latitude=round(latitude, 8),
                longitude=round(longitude, 8),
                altitude=round(ORIGIN_ALTITUDE + 1.48 + up_error, 3),
                position_covariance=diagonal((0.125, 0.125, 0.5)),
                position_covariance_type=2,  # COVARIANCE_TYPE_DIAGONAL_KNOWN
            ),
            tick.publish_ns,
            tick.log_ns,
        )


def odometry() -> Iterator[Sample]:
    """50 Hz wheel odometry, and the same pose as a transform: it drifts, for wheels slip and have no exact size."""
    random = np.random.default_rng(103)
    x = y = yaw = 0.0
    before = 0.0
    for tick in SensorClock(50.0, 0.0071, 0.0004, 0.003, seed=3).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        noise = random.normal(0.0, 1.0, 2).tolist()
        speed = round(state.speed * 1.003 + (0.02 * noise[0] if state.speed > 0 else 0.0), 5)
        yaw_rate = round(state.yaw_rate * 0.995 + (0.002 * noise[1] if state.speed > 0 else 0.0), 6)
        elapsed, before = tick.seconds - before, tick.seconds
        x += elapsed * speed * math.cos(yaw + yaw_rate * elapsed / 2)
        y += elapsed * speed * math.sin(yaw + yaw_rate * elapsed / 2)
        yaw += elapsed * yaw_rate
        rotation = quaternion(0.0, 0.0, yaw)
        position = (round(x, 6), round(y, 6), 0.0)
        variance = round(0.01 + 2e-4 * state.distance, 6)
        yield Sample(
            "/odom",
            "nav_msgs/msg/Odometry",
            build(
                "nav_msgs/msg/Odometry",
                header=header(tick.stamp_ns, "odom"),
                child_frame_id="base_link",
                pose=build(
                    "geometry_msgs/msg/PoseWithCovariance",
                    pose=build(
                        "geometry_msgs/msg/Pose",
                        position=build("geometry_msgs/msg/Point", x=position[0], y=position[1], z=position[2]),
                        orientation=rotation,
                    ),
                    covariance=diagonal((variance, variance, 1e6, 1e6, 1e6, round(variance / 10, 7))),
                ),
                twist=build(
                    "geometry_msgs/msg/TwistWithCovariance",
                    twist=build(
                        "geometry_msgs/msg/Twist",
                        linear=vector(speed, 0.0, 0.0),
                        angular=vector(0.0, 0.0, yaw_rate),
                    ),
                    covariance=diagonal((4e-4, 1e-3, 1e6, 1e6, 1e6, 4e-6)),
                ),
            ),
            tick.publish_ns,
            tick.log_ns,
        )
        yield Sample(
            "/tf",
            "tf2_msgs/msg/TFMessage",
            build(
                "tf2_msgs/msg/TFMessage",
                transforms=[transform(tick.stamp_ns, "odom", "base_link", position, rotation)],
            ),
            tick.publish_ns,
            tick.log_ns + 60_000,
        )


def mounts() -> Iterator[Sample]:
    """Where the sensors sit on the car: one latched message at the start."""
    stamp = START_NS + 1_500_000
    transforms = [
        transform(stamp, "base_link", frame, translation, quaternion(*rotation))
        for frame, translation, rotation in MOUNTS
    ]
    message = build("tf2_msgs/msg/TFMessage", transforms=transforms)
    yield Sample("/tf_static", "tf2_msgs/msg/TFMessage", message, stamp + 200_000, stamp + 300_000)


def joints() -> Iterator[Sample]:
    """50 Hz: steering angles by Ackermann geometry, wheel speeds from yaw rate, driving torque at the front."""
    random = np.random.default_rng(104)
    names = [f"{place}_wheel" for place in ("front_left", "front_right", "rear_left", "rear_right")]
    names += ["front_left_steering", "front_right_steering"]
    base, half = vehicle.WHEELBASE, vehicle.TRACK / 2
    for tick in SensorClock(50.0, 0.0112, 0.0007, 0.0025, seed=4).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        noise = random.normal(0.0, 1.0, 6).tolist()
        tangent = math.tan(state.steering)
        left = math.atan2(base * tangent, base - half * tangent)
        right = math.atan2(base * tangent, base + half * tangent)
        rear = (state.speed - half * state.yaw_rate, state.speed + half * state.yaw_rate)
        wheels = (rear[0] / math.cos(left), rear[1] / math.cos(right), *rear)
        torque = MASS * state.acceleration * vehicle.WHEEL_RADIUS / 2
        rolled = state.distance / vehicle.WHEEL_RADIUS
        moving = 1.0 if state.speed > 0 else 0.0
        yield Sample(
            "/joint_states",
            "sensor_msgs/msg/JointState",
            build(
                "sensor_msgs/msg/JointState",
                header=header(tick.stamp_ns, "base_link"),
                name=names,
                position=np.round([rolled] * 4 + [left + 1e-4 * noise[4], right + 1e-4 * noise[5]], 5),
                velocity=np.round(
                    [
                        *(v / vehicle.WHEEL_RADIUS + 0.02 * moving * n for v, n in zip(wheels, noise[:4], strict=True)),
                        0.0,
                        0.0,
                    ],
                    5,
                ),
                effort=np.round([torque + 2 * noise[0], torque + 2 * noise[1], 0.0, 0.0, 0.0, 0.0], 3),
            ),
            tick.publish_ns,
            tick.log_ns,
        )


def battery() -> Iterator[Sample]:
    """1 Hz; what is not measured is NaN, as sensor_msgs/BatteryState asks for."""
    random = np.random.default_rng(105)
    capacity = 150.0  # ampere hours
    charge = 0.78 * capacity
    for tick in SensorClock(1.0, 0.31, 0.004, 0.02, seed=5).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        power = 900.0 + max(-30e3, (MASS * state.acceleration + 180.0 + 0.4 * state.speed**2) * state.speed)
        current = -round(power / 355.0 + random.normal(0.0, 0.3), 2)  # ROS: negative while discharging
        charge += current / 3600.0
        voltage = round(372.0 - 60.0 * (1 - charge / capacity) + 0.06 * current + random.normal(0.0, 0.05), 2)
        yield Sample(
            "/battery",
            "sensor_msgs/msg/BatteryState",
            build(
                "sensor_msgs/msg/BatteryState",
                header=header(tick.stamp_ns, "battery"),
                voltage=voltage,
                temperature=round(24.0 + 0.02 * tick.seconds, 1),
                current=current,
                charge=round(charge, 3),
                capacity=math.nan,
                design_capacity=capacity,
                percentage=round(charge / capacity, 4),
                power_supply_status=2,  # DISCHARGING
                power_supply_health=1,  # GOOD
                power_supply_technology=2,  # LION
                present=True,
                cell_voltage=np.array([], dtype=np.float32),
                cell_temperature=np.array([], dtype=np.float32),
                location="underfloor",
                serial_number="demo-0001",
            ),
            tick.publish_ns,
            tick.log_ns,
        )


def controller() -> Iterator[Sample]:
    """20 Hz of a message type that no ontology knows."""
    random = np.random.default_rng(106)
    evasive_end = vehicle.RECOVERY_START + vehicle.RECOVERY_SECONDS
    for tick in SensorClock(20.0, 0.0179, 0.001, 0.004, seed=6).ticks(vehicle.DURATION):
        state = vehicle.state_at(tick.seconds)
        evasive = vehicle.SWERVE_START <= tick.seconds < evasive_end
        mode = 2 if evasive else int(state.speed > 0)
        slip = abs(state.acceleration_at(0.0)[1]) * 0.006 + np.abs(random.normal(0.0, 0.002, 4))
        yield Sample(
            "/controller/state",
            CONTROLLER_STATE,
            build(
                CONTROLLER_STATE,
                header=header(tick.stamp_ns, "base_link"),
                mode=mode,
                mode_name=("standby", "lane keeping", "evasive")[mode],
                target_acceleration=round(state.target_acceleration, 4),
                target_steering=round(state.target_steering, 5),
                lateral_error=round(state.lateral_error, 4),
                wheel_slip=np.round(slip if state.speed > 0 else np.zeros(4), 4).astype(np.float32),
                warnings=["obstacle in lane"] if evasive and tick.seconds < vehicle.RECOVERY_START else [],
            ),
            tick.publish_ns,
            tick.log_ns,
        )
