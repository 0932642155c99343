"""Real recordings: every message of every topic arrives, with the values an independent decoder gives."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.recordings.containers import open_recording
from lakehouse.orchestration.recordings.conversion import choose_conversion
from lakehouse.orchestration.recordings.decoding.channels import decoders_for
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.ingest import ingest_recording
from tests.orchestration.recordings.recording_files import (
    SHARED,
    as_plain,
    stored_rows,
    with_bytes_as_lists,
)

RECORDINGS = SHARED / "recordings"
ROS_RECORDINGS = [
    "husky_outdoor_gps_imu_odom.bag",
    "tilt_laser.bag",
    "laser_scan_matcher_demo.bag",
    "example-lz4.bag",
    "example-bz2.bag",
    "nav2_turtlebot.mcap",
    "rosbag2_imu_pose_battery/rosbag2_test_0.db3",
    "rosbag2/mcap_cdr_test",
    "rosbag2/sqlite3_cdr_test",
]
OTHER_RECORDINGS = [
    "rosbag2_imu_pose_battery",
    "rosbag2/mcap_bag_with_topics_and_service_events",
    "rosbag2/sqlite3_bag_with_topics_and_service_events",
]

pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the folder of real recordings is not there")


def rosbags_reader(path: Path) -> AnyReader:
    return AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))


def with_unsigned_bytes(message: Any) -> Any:
    """The `byte` fields of test_msgs, which rosbags takes for signed, as the unsigned numbers they are in ROS 2."""
    for name in message:
        if name.startswith("byte_value"):
            value = message[name]
            message[name] = [item % 256 for item in value] if isinstance(value, list) else value % 256
    return message


@pytest.mark.parametrize("name", ROS_RECORDINGS)
def test_all_messages_are_stored_under_the_time_they_were_recorded(name: str, lake: Lakehouse) -> None:
    path = RECORDINGS / name
    times: dict[str, list[int]] = defaultdict(list)
    with rosbags_reader(path) as reader:
        for connection, time_ns, _ in reader.messages():
            times[connection.topic].append(time_ns)
    report = ingest_recording(lake, path)
    assert {topic.original_topic: topic.stored for topic in report.topics if topic.found} == {
        topic: len(values) for topic, values in times.items()
    }
    assert report.is_complete
    for topic in report.topics:
        assert topic.expected == topic.stored
        if topic.stored:
            rows = stored_rows(lake, report.sequence, topic.topic)
            assert [row["timestamp_ns"] for row in rows] == sorted(times[topic.original_topic])


@pytest.mark.parametrize("name", ROS_RECORDINGS)
def test_decoded_columns_equal_those_of_rosbags(name: str) -> None:
    path = RECORDINGS / name
    expected: dict[str, list[object]] = defaultdict(list)
    with rosbags_reader(path) as reader:
        for connection, _, payload in reader.messages():
            message = as_plain(reader.deserialize(payload, connection.msgtype))
            expected[connection.topic].append(with_unsigned_bytes(message))
    got: dict[str, list[object]] = defaultdict(list)
    with open_recording(path) as recording:
        decoders = {channel.id: next(decoders_for(channel)) for channel in recording.channels}
        blocks = [(block, decoders[block.channel.id].decode(block.payloads)) for block in recording.read_messages()]
    timed: dict[str, list[tuple[int, object]]] = defaultdict(list)
    for block, decoded in blocks:
        assert not decoded.failures
        rows = [with_bytes_as_lists(as_plain(row)) for row in decoded.batch.to_pylist()]
        timed[block.channel.topic] += zip(block.log_time_ns.tolist(), rows, strict=True)
    for topic, values in timed.items():
        got[topic] = [row for _, row in sorted(values, key=lambda item: item[0])]
    assert got == expected


@pytest.mark.parametrize("name", OTHER_RECORDINGS)
def test_recordings_that_rosbags_cannot_open_are_complete_too(name: str, lake: Lakehouse) -> None:
    report = ingest_recording(lake, RECORDINGS / name)
    assert report.is_complete
    assert report.rows == sum(topic.expected or 0 for topic in report.topics) > 0
    assert "Raw" not in {topic.ontology_tag for topic in report.topics}


def test_both_storages_of_one_recording_give_the_same_rows(lake: Lakehouse) -> None:
    first, second = (
        ingest_recording(lake, RECORDINGS / "rosbag2" / f"{storage}_bag_with_topics_and_service_events")
        for storage in ("mcap", "sqlite3")
    )
    for topic in ("test_topic1", "test_service1/_service_event"):
        rows = []
        for report in (first, second):
            stored = stored_rows(lake, report.sequence, topic)
            for row in stored:
                row.pop("timestamp_ns")
                for event in row.get("info", {}), *row.get("request", []), *row.get("response", []):
                    for volatile in ("stamp", "client_gid", "sequence_number"):
                        event.pop(volatile, None)
            rows.append(stored)
        assert rows[0] == rows[1] != []


def test_json_messages_keep_all_values_even_those_that_contradict_the_schema(lake: Lakehouse) -> None:
    path = RECORDINGS / "eip_bridge_json.mcap"
    expected: dict[str, list[tuple[int, int, object]]] = defaultdict(list)
    with path.open("rb") as file:
        for _, channel, message in make_reader(file).iter_messages():
            expected[channel.topic].append((message.log_time, message.publish_time, json.loads(message.data)))
    report = ingest_recording(lake, path)
    assert report.is_complete
    assert report.rows == 66_202
    assert "Raw" not in {topic.ontology_tag for topic in report.topics}
    for topic in report.topics:
        rows = stored_rows(lake, report.sequence, topic.topic)
        got = [(row.pop("timestamp_ns"), row.pop("publish_time_ns"), row) for row in rows]
        assert got == expected[topic.original_topic]


def conformance_files() -> list[Path]:
    return sorted((RECORDINGS / "mcap_conformance").rglob("*.mcap"))


def expected_records(path: Path, kind: str) -> list[dict[str, object]]:
    document = json.loads(path.with_suffix(".json").read_text())
    return [dict(record["fields"]) for record in document["records"] if record["type"] == kind]


def test_all_conformance_files_are_read_as_they_are_meant() -> None:
    files = conformance_files()
    assert len(files) == 416
    for path in files:
        messages = expected_records(path, "Message")
        with open_recording(path) as recording:
            got = [
                {
                    "log_time": str(log_time),
                    "publish_time": str(publish_time),
                    "sequence": str(sequence),
                    "data": [str(byte) for byte in payload],
                }
                for block in recording.read_messages()
                for log_time, publish_time, sequence, payload in zip(
                    block.log_time_ns, block.publish_time_ns, block.sequence, block.payloads, strict=True
                )
            ]
            for message in messages:
                del message["channel_id"]
            assert got == messages, path.name
            attachments = [(item.name, [str(byte) for byte in item.data]) for item in recording.attachments()]
            assert attachments == [(item["name"], item["data"]) for item in expected_records(path, "Attachment")]
            metadata = [record["name"] for record in recording.details["metadata_records"]]
            assert metadata == [item["name"] for item in expected_records(path, "Metadata")]
            assert not recording.damages, path.name


@pytest.mark.parametrize("kind", ["NoData", "OneMetadata"])
def test_recordings_without_messages_become_sequences_without_topics(kind: str, lake: Lakehouse) -> None:
    for path in conformance_files():
        if path.parent.name == kind:
            report = ingest_recording(lake, path)
            assert (report.session, report.topics, report.rows) == (None, [], 0)
            sequence = lake.sequences.describe(report.sequence)
            assert (sequence.sessions, sequence.topics) == ([], [])
            kept = sequence.sequence.user_metadata["recording"]["details"]["metadata_records"]
            assert [record["name"] for record in kept] == [item["name"] for item in expected_records(path, "Metadata")]
            (note,) = lake.notifications.list(report.sequence)
            assert "no messages" in note.message
            assert ingest_recording(lake, path).already_ingested


@pytest.mark.parametrize("kind", ["OneMessage", "OneSchemalessMessage", "OneAttachment", "TenMessages"])
def test_recordings_of_unknown_encoding_are_kept_as_they_are(kind: str, lake: Lakehouse) -> None:
    path = RECORDINGS / "mcap_conformance" / kind / f"{kind}.mcap"
    report = ingest_recording(lake, path)
    messages = [message["data"] for message in expected_records(path, "Message")]
    attachments = [item["data"] for item in expected_records(path, "Attachment")]
    (topic,) = report.topics or report.extra_topics
    rows = stored_rows(lake, report.sequence, topic.topic)
    assert [[str(byte) for byte in row["data"]] for row in rows] == (messages or attachments)
    assert topic.ontology_tag == ("Raw" if messages else "Attachment")


def test_a_survey_is_not_needed_to_open_any_recording() -> None:
    with open_recording(RECORDINGS / "eip_bridge_json.mcap") as recording:
        block = next(iter(recording.read_messages()))
        survey = JsonSurvey()
        survey.observe(block.payloads)
        conversion = choose_conversion(block.channel, block.payloads, has_publish_times=True, survey=survey)
    assert conversion.schema.names[0] == "timestamp_ns"
    assert conversion.schema.names[-1] == "publish_time_ns"
