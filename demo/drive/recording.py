"""The drive as one MCAP file, as a recorder on the car would have written it."""

from pathlib import Path
from typing import Final

from mcap.writer import CompressionType, Writer

from demo.drive import camera, lidar, motion_sensors, vehicle
from demo.drive.messages import START_NS, Sample, message_definition, typestore

DEFAULT_PATH: Final = Path("demo/recordings/city_drive.mcap")

DRIVE_METADATA: Final = {
    "vehicle": "demo car",
    "place": "simulated",
    "description": f"A drive of {vehicle.DURATION:.0f} s with bends, a stop, and a swerve around a cart",
    "swerve_start_ns": str(START_NS + round(vehicle.SWERVE_START * 1e9)),
    "swerve_end_ns": str(START_NS + round((vehicle.SWERVE_START + vehicle.SWERVE_SECONDS) * 1e9)),
}

QOS: Final = """\
- history: 1
  depth: {depth}
  reliability: 1
  durability: {durability}
  deadline: {{sec: 0, nsec: 0}}
  lifespan: {{sec: 0, nsec: 0}}
  liveliness: 1
  liveliness_lease_duration: {{sec: 0, nsec: 0}}
  avoid_ros_namespace_conventions: false
"""


def samples() -> list[Sample]:
    """Every message of the drive in the order in which the recorder received it."""
    streams = (
        motion_sensors.mounts(),
        motion_sensors.imu(),
        motion_sensors.gps(),
        motion_sensors.odometry(),
        motion_sensors.joints(),
        motion_sensors.battery(),
        motion_sensors.controller(),
        lidar.scans(),
        camera.frames(),
    )
    return sorted((sample for stream in streams for sample in stream), key=lambda sample: sample.log_ns)


def write(path: Path) -> None:
    """Write the recording to `path`. The same version of the code and its libraries writes the same bytes."""
    store = typestore()
    schemas: dict[str, int] = {}
    channels: dict[str, int] = {}
    sequences: dict[str, int] = {}
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=512 * 1024, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="mosaico-lakehouse demo")
        for sample in samples():
            topic, message_type = sample.topic, sample.message_type
            if message_type not in schemas:
                definition = message_definition(message_type).encode()
                schemas[message_type] = writer.register_schema(message_type, "ros2msg", definition)
            if topic not in channels:
                latched = topic == "/tf_static"
                profile = QOS.format(depth=1 if latched else 10, durability=1 if latched else 2)
                channels[topic] = writer.register_channel(
                    topic, "cdr", schemas[message_type], {"offered_qos_profiles": profile}
                )
            sequences[topic] = sequences.get(topic, 0) + 1
            writer.add_message(
                channel_id=channels[topic],
                log_time=sample.log_ns,
                data=bytes(store.serialize_cdr(sample.message, message_type)),
                publish_time=sample.publish_ns,
                sequence=sequences[topic],
            )
        writer.add_metadata("drive", DRIVE_METADATA)
        writer.finish()
