"""The recording that the demo ingests: reproducible, complete, and with the event it promises."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from demo.drive import vehicle
from demo.drive.messages import START_NS
from demo.drive.recording import DEFAULT_PATH, write

COMMITTED = Path(__file__).parents[2] / DEFAULT_PATH

EXPECTED = {  # topic: (message type, messages per second)
    "/imu/front": ("sensor_msgs/msg/Imu", 200),
    "/gps/fix": ("sensor_msgs/msg/NavSatFix", 10),
    "/odom": ("nav_msgs/msg/Odometry", 50),
    "/tf": ("tf2_msgs/msg/TFMessage", 50),
    "/joint_states": ("sensor_msgs/msg/JointState", 50),
    "/scan": ("sensor_msgs/msg/LaserScan", 10),
    "/camera/front/compressed": ("sensor_msgs/msg/CompressedImage", 8),
    "/battery": ("sensor_msgs/msg/BatteryState", 1),
    "/controller/state": ("demo_msgs/msg/ControllerState", 20),
}


@pytest.fixture(scope="module")
def decoded() -> dict[str, list[tuple[int, Any]]]:
    """All messages per topic as (log time in ns, message), decoded by the definitions in the file alone."""
    store = get_typestore(Stores.EMPTY)
    messages: dict[str, list[tuple[int, Any]]] = {}
    with COMMITTED.open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            if schema.name not in store.types:
                types = get_types_from_msg(schema.data.decode(), schema.name)
                store.register({name: definition for name, definition in types.items() if name not in store.types})
            value = store.deserialize_cdr(message.data, schema.name)
            messages.setdefault(channel.topic, []).append((message.log_time, value))
    return messages


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.mark.slow
def test_the_script_writes_the_committed_file_byte_by_byte(tmp_path: Path) -> None:
    again = tmp_path / "again.mcap"
    write(again)
    assert again.read_bytes() == COMMITTED.read_bytes()


def test_the_file_is_small_and_has_a_complete_summary() -> None:
    assert COMMITTED.stat().st_size < 6_000_000
    with COMMITTED.open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_start_time - START_NS < 10_000_000
    assert {chunk.compression for chunk in summary.chunk_indexes} == {"zstd"}
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    counts = {
        channel.topic: summary.statistics.channel_message_counts[id_] for id_, channel in summary.channels.items()
    }
    types = {channel.topic: summary.schemas[channel.schema_id].name for channel in summary.channels.values()}
    assert counts.pop("/tf_static") == 1
    assert types.pop("/tf_static") == "tf2_msgs/msg/TFMessage"
    assert types == {topic: message_type for topic, (message_type, _) in EXPECTED.items()}
    for topic, (_, rate) in EXPECTED.items():
        assert counts[topic] == pytest.approx(rate * vehicle.DURATION, abs=1), topic


def test_stamps_rise_jitter_and_precede_the_time_of_receipt(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    stamps_of_all: list[int] = []
    for topic in EXPECTED.keys() - {"/tf"}:
        stamps = np.array([stamp_ns(message) for _, message in decoded[topic]])
        logged = np.array([log_ns for log_ns, _ in decoded[topic]])
        assert (np.diff(stamps) > 0).all(), topic
        assert (np.diff(logged) > 0).all(), topic
        assert (logged > stamps).all(), topic
        assert np.diff(stamps).std() > 1000, topic
        stamps_of_all.extend(stamps.tolist())
    assert len(set(stamps_of_all)) > 0.999 * len(stamps_of_all)  # no common trigger


def test_the_swerve_is_the_only_hard_lateral_acceleration(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    imu = [message for _, message in decoded["/imu/front"]]
    seconds = np.array([(stamp_ns(message) - START_NS) / 1e9 for message in imu])
    lateral = np.array([message.linear_acceleration.y for message in imu])
    upward = np.array([message.linear_acceleration.z for message in imu])
    hard = np.abs(lateral) > 4.0
    assert seconds[hard].min() > vehicle.SWERVE_START
    assert seconds[hard].max() < vehicle.SWERVE_START + vehicle.SWERVE_SECONDS
    assert 6.2 < lateral.max() < 6.9
    assert -6.7 < lateral.min() < -6.0
    assert lateral.argmax() < lateral.argmin()  # to the left first
    assert upward.mean() == pytest.approx(9.81 + 0.03, abs=0.02)


def test_the_sensors_agree_with_each_other(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    odometry = [message for _, message in decoded["/odom"]]
    speeds = np.array([message.twist.twist.linear.x for message in odometry])
    seconds = np.array([(stamp_ns(message) - START_NS) / 1e9 for message in odometry])
    assert 2.0 < np.count_nonzero((speeds == 0) & (seconds > 10) & (seconds < 40)) / 50 < 3.5  # the stop, seconds

    fixes = [message for _, message in decoded["/gps/fix"]]
    north = np.radians([fix.latitude for fix in fixes]) * 6.37e6
    east = np.radians([fix.longitude for fix in fixes]) * 6.37e6 * math.cos(math.radians(fixes[0].latitude))
    by_gps = math.hypot(north[-1] - north[0], east[-1] - east[0])
    end = odometry[-1].pose.pose.position
    assert by_gps == pytest.approx(math.hypot(end.x, end.y), rel=0.02)

    wheels = [message for _, message in decoded["/joint_states"]]
    rear_left = np.array([message.velocity[2] for message in wheels]) * vehicle.WHEEL_RADIUS
    assert rear_left.max() == pytest.approx(speeds.max(), rel=0.02)
    for _, message in decoded["/imu/front"][::100]:
        q = message.orientation
        assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1.0, abs=1e-9)


def test_scans_see_the_cart_that_is_swerved_around(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    nearest: dict[float, float] = {}
    for _, scan in decoded["/scan"]:
        assert len(scan.ranges) == len(scan.intensities) == 271
        ahead = scan.ranges[125:146]  # 10 degrees to both sides
        nearest[(stamp_ns(scan) - START_NS) / 1e9] = float(ahead.min())
    just_before = [distance for seconds, distance in nearest.items() if 35.9 < seconds < 36.4]
    assert just_before
    assert max(just_before) < 20
    assert min(nearest.values()) > 1.0  # nothing was hit


def test_every_frame_is_a_jpeg_of_the_announced_size(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    pictures = set()
    for _, message in decoded["/camera/front/compressed"]:
        assert message.format == "jpeg"
        image = Image.open(io.BytesIO(message.data.tobytes()))
        image.load()
        assert (image.format, image.size, image.mode) == ("JPEG", (320, 180), "RGB")
        pictures.add(message.data.tobytes())
    assert len(pictures) > 350  # the world moves, except while the car stands


def test_the_type_without_a_mapping_carries_its_own_definition(decoded: dict[str, list[tuple[int, Any]]]) -> None:
    modes = [message.mode for _, message in decoded["/controller/state"]]
    assert set(modes) == {0, 1, 2}
    evasive = [message for _, message in decoded["/controller/state"] if message.mode == 2]
    assert evasive[0].warnings == ["obstacle in lane"]
    assert evasive[-1].warnings == []
