"""From a recording to a finalized session: nothing lost, nothing left behind, everything traceable."""

import json
from pathlib import Path

import pytest
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin

from lakehouse.catalog.errors import AlreadyExistsError, InvalidNameError, StateError, Transient
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionState
from lakehouse.orchestration.recordings.commit import commit_upload
from lakehouse.orchestration.recordings.containers import open_recording
from lakehouse.orchestration.recordings.errors import ChangedRecordingError, EmptyRecordingError, IngestionRunningError
from lakehouse.orchestration.recordings.ingest import ingest_recording
from lakehouse.orchestration.recordings.naming import ontology_tag_of, sequence_name_of, topic_path_of
from lakehouse.orchestration.recordings.present import sole_ingestion
from lakehouse.orchestration.recordings.upload import upload_recording
from tests.orchestration.recordings.recording_files import (
    ROS2,
    START_NS,
    Message,
    stored_rows,
    string_channel,
    texts,
    write_mcap,
    write_rosbag1,
    write_rosbag2,
)
from tests.orchestration.recordings.test_protobuf_decoding import descriptor_set, drive_file, full_message

IMU = "sensor_msgs/msg/Imu"


def json_messages(*messages: object) -> list[Message]:
    return [(START_NS + index, json.dumps(message).encode()) for index, message in enumerate(messages)]


def test_a_sequence_remembers_where_it_comes_from(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_rosbag2(
        tmp_path / "drive.2024-01-05",
        [("/text", "std_msgs/msg/String", texts(3)), ("/silent", "std_msgs/msg/Bool", [])],
        StoragePlugin.MCAP,
    )
    report = ingest_recording(lake, path, user_metadata={"vehicle": "v7"})
    assert report.sequence == "drive_2024-01-05"
    assert [(topic.topic, topic.stored, topic.ontology_tag) for topic in report.topics] == [
        ("text", 3, "String"),
        ("silent", 0, ""),
    ]
    assert report.is_complete
    description = lake.sequences.describe(report.sequence)
    metadata = description.sequence.user_metadata
    assert metadata["vehicle"] == "v7"
    recording = metadata["recording"]
    assert (recording["name"], recording["format"]) == ("drive.2024-01-05", "rosbag2-mcap")
    assert {file["name"] for file in recording["files"]} == {"metadata.yaml", "drive.2024-01-05.mcap"}
    assert recording["topics"] == [
        {"topic": "/text", "message_type": "std_msgs/msg/String", "message_count": 3},
        {"topic": "/silent", "message_type": "std_msgs/msg/Bool", "message_count": 0},
    ]
    (topic,) = description.topics
    assert topic.user_metadata["_ros_"]["msgtype"] == "std_msgs/msg/String"
    assert "string data" in topic.user_metadata["_ros_"]["msgdef"]
    assert topic.user_metadata["recording"]["topic"] == "/text"
    assert topic.user_metadata["recording"]["message_count"] == 3


def test_constants_of_the_message_type_are_kept_as_the_sdk_keeps_them(tmp_path: Path, lake: Lakehouse) -> None:
    definition = b"uint8 FIX=2\nstring NAME=abc\nuint8 status"
    path = write_mcap(
        tmp_path / "a.mcap",
        [("/a", "cdr", "x_msgs/msg/Status", "ros2msg", definition, [(START_NS, b"\x00\x01\x00\x00\x02")])],
    )
    report = ingest_recording(lake, path)
    record = lake.topics.get(TopicLocator(report.sequence, "a"))
    assert record.ontology_tag == "Status"
    assert record.user_metadata["_ros_"] == {
        "msgtype": "x_msgs/msg/Status",
        "enums": {"FIX": 2, "NAME": "abc"},
        "msgdef": definition.decode(),
        "source_file": "a.mcap",
    }
    assert stored_rows(lake, report.sequence, "a") == [{"timestamp_ns": START_NS, "status": 2}]


def test_modeled_types_become_their_ontology_model(tmp_path: Path, lake: Lakehouse) -> None:
    types = ROS2.types
    vector, quaternion = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](5, 6), "imu")
    import numpy as np

    zeros = np.zeros(9)
    message = types[IMU](
        header, quaternion(0.0, 0.0, 0.0, 1.0), zeros, vector(1.0, 2.0, 3.0), zeros, vector(4.0, 5.0, 6.0), zeros
    )
    payload = bytes(ROS2.serialize_cdr(message, IMU))
    report = ingest_recording(lake, write_rosbag2(tmp_path / "bag", [("/imu", IMU, [(START_NS, payload)])]))
    assert [topic.ontology_tag for topic in report.topics] == ["IMU"]
    (row,) = stored_rows(lake, report.sequence, "imu")
    assert row["timestamp_ns"] == START_NS
    assert row["acceleration"]["x"] == 4.0


def test_send_times_of_ros_messages_go_to_a_topic_of_their_own(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))], publish_offset_ns=-7)
    report = ingest_recording(lake, path)
    assert [topic.topic for topic in report.topics] == ["text"]
    assert [(topic.topic, topic.stored) for topic in report.extra_topics] == [("recording/message_times", 4)]
    assert stored_rows(lake, report.sequence, "recording/message_times") == [
        {
            "timestamp_ns": time_ns,
            "topic": "text",
            "publish_time_ns": time_ns - 7,
            "sequence_number": number,
        }
        for number, (time_ns, _) in enumerate(texts(4))
    ]


def test_equal_send_times_need_no_topic(tmp_path: Path, lake: Lakehouse) -> None:
    report = ingest_recording(lake, write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))]))
    assert report.extra_topics == []


def test_send_times_of_other_messages_are_a_column(tmp_path: Path, lake: Lakehouse) -> None:
    messages = json_messages({"a": 1, "timestamp_ns": 5, "publish_time_ns": 6})
    path = write_mcap(
        tmp_path / "a.mcap", [("/j", "json", "demo.Thing", "jsonschema", b"{}", messages)], publish_offset_ns=3
    )
    report = ingest_recording(lake, path)
    (topic,) = report.topics
    assert topic.ontology_tag == "Thing"
    assert stored_rows(lake, report.sequence, "j") == [
        {
            "timestamp_ns": START_NS,
            "a": 1,
            "message_timestamp_ns": 5,
            "message_publish_time_ns": 6,
            "publish_time_ns": START_NS + 3,
        }
    ]
    block = lake.topics.get(TopicLocator(report.sequence, "j")).user_metadata["_mcap_"]
    assert block["schema_name"] == "demo.Thing"
    assert block["channel_encoding"] == "json"


def test_protobuf_messages_are_stored_with_all_their_fields(tmp_path: Path, lake: Lakehouse) -> None:
    payload = full_message().SerializeToString()
    path = write_mcap(
        tmp_path / "a.mcap",
        [("/drive", "protobuf", "demo.Drive", "protobuf", descriptor_set(drive_file()), [(START_NS, payload)] * 3)],
    )
    report = ingest_recording(lake, path)
    assert [(topic.ontology_tag, topic.stored) for topic in report.topics] == [("Drive", 3)]
    rows = stored_rows(lake, report.sequence, "drive")
    assert rows[2]["one_fixed64"] == 2**64 - 1
    assert rows[2]["places"] == [("b", {"x": 4.0})]


def test_schemaless_json_is_inferred_from_all_messages(tmp_path: Path, lake: Lakehouse) -> None:
    messages = [*json_messages(*[{"a": index} for index in range(2000)]), *json_messages({"a": 0.5, "late": "x"})]
    path = write_mcap(tmp_path / "a.mcap", [("/j", "json", "", "", b"", messages)], chunk_size=512)
    report = ingest_recording(lake, path)
    rows = stored_rows(lake, report.sequence, "j")
    assert len(rows) == 2001
    assert {row["late"] for row in rows} == {None, "x"}
    assert 0.5 in {row["a"] for row in rows}


def test_messages_that_cannot_be_decoded_are_counted_reported_and_noted(tmp_path: Path, lake: Lakehouse) -> None:
    messages = texts(10)
    messages[3] = (messages[3][0], messages[3][1][:-2])
    messages[7] = (messages[7][0], b"")
    report = ingest_recording(lake, write_mcap(tmp_path / "a.mcap", [string_channel("/text", messages)]))
    (topic,) = report.topics
    assert (topic.expected, topic.found, topic.stored, topic.failed) == (10, 10, 8, 2)
    assert sum(topic.reasons.values()) == 2
    assert not report.is_complete
    (note,) = lake.notifications.list(TopicLocator(report.sequence, "text"))
    assert "2 of 10 messages" in note.message


def test_a_topic_of_which_nothing_can_be_decoded_is_kept_as_it_is(tmp_path: Path, lake: Lakehouse) -> None:
    messages = [(START_NS + index, b"\x00\x01\x00\x00garbage%d" % index) for index in range(5)]
    report = ingest_recording(lake, write_mcap(tmp_path / "a.mcap", [string_channel("/text", messages)]))
    (topic,) = report.topics
    assert (topic.ontology_tag, topic.stored, topic.failed) == ("Raw", 5, 0)
    assert topic.notes
    assert [row["data"] for row in stored_rows(lake, report.sequence, "text")] == [item for _, item in messages]


def test_attachments_are_kept(tmp_path: Path, lake: Lakehouse) -> None:
    def attach(writer: McapWriter) -> None:
        writer.add_attachment(5, 6, "calibration.yaml", "text/yaml", b"focal: 3")
        writer.add_metadata("drive", {"road type": "wet", "weather.now": "rain\x00"})

    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(1))], finish=attach)
    report = ingest_recording(lake, path)
    assert stored_rows(lake, report.sequence, "recording/attachments") == [
        {
            "timestamp_ns": 6,
            "name": "calibration.yaml",
            "media_type": "text/yaml",
            "create_time_ns": 5,
            "data": b"focal: 3",
        }
    ]
    details = lake.sequences.get(report.sequence).user_metadata["recording"]["details"]
    assert details["metadata_records"] == [{"name": "drive", "values": {"road type": "wet", "weather_now": "rain"}}]


def test_the_same_recording_again_changes_nothing(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))], publish_offset_ns=1)
    first = ingest_recording(lake, path)
    again = ingest_recording(lake, path)
    assert (first.already_ingested, again.already_ingested) == (False, True)
    assert (again.session, again.rows) == (first.session, first.rows)
    assert [topic.topic for topic in again.extra_topics] == ["recording/message_times"]
    assert len(lake.sequences.describe(first.sequence).sessions) == 1


def test_other_topics_of_a_recording_that_is_in_are_not_dropped_quietly(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4)), string_channel("/more", texts(3))])
    ingest_recording(lake, path, topics=["/text"])
    with pytest.raises(StateError, match="holds the topics /text of this recording"):
        ingest_recording(lake, path, topics=["/more"])
    with pytest.raises(StateError, match="holds the topics /text of this recording"):
        ingest_recording(lake, path)
    assert ingest_recording(lake, path, topics=["/text"]).already_ingested


def test_another_recording_of_the_same_name_is_refused(tmp_path: Path, lake: Lakehouse) -> None:
    ingest_recording(lake, write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))]))
    other = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(5))])
    with pytest.raises(AlreadyExistsError):
        ingest_recording(lake, other)
    assert ingest_recording(lake, other, sequence_name="b").rows == 5
    with pytest.raises(InvalidNameError):
        ingest_recording(lake, other, sequence_name="no/slash")


def test_what_a_killed_ingestion_left_is_replaced_by_the_next_one(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))])
    ingest_recording(lake, path)
    metadata = lake.sequences.get("a").user_metadata
    lake.sequences.delete("a")
    lake.sequences.create("a", metadata)
    session = lake.sessions.create("a")
    lake.topics.create(session.uuid, TopicLocator("a", "half"), "default", "String")
    with pytest.raises(StateError, match="broke off"):
        commit_upload(lake, "a")
    report = ingest_recording(lake, path)
    assert (report.already_ingested, report.rows) == (False, 4)
    assert [topic.locator.path for topic in lake.sequences.describe("a").topics] == ["text"]


def test_the_same_content_under_another_name_is_not_ingested_twice(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4)), string_channel("/more", texts(3))])
    first = ingest_recording(lake, path)
    again = ingest_recording(lake, path.rename(tmp_path / "b.mcap"))
    assert (again.already_ingested, again.sequence, again.session) == (True, "a", first.session)
    assert lake.sequences.names() == ["a"]
    part = ingest_recording(lake, tmp_path / "b.mcap", topics=["/more"])
    assert (part.already_ingested, part.rows) == (False, 3)


def test_a_file_that_changed_since_it_was_ingested_is_reported_as_such(tmp_path: Path, lake: Lakehouse) -> None:
    ingest_recording(lake, write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))]))
    write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(5))])
    with pytest.raises(ChangedRecordingError, match="has changed since") as caught:
        ingest_recording(lake, tmp_path / "a.mcap")
    assert caught.value.same_file


def test_upload_and_commit_are_two_steps_and_each_may_be_repeated(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))])
    uploaded = upload_recording(lake, path)
    (session,) = lake.sequences.describe("a").sessions
    assert (session.state, str(session.locator)) == (SessionState.OPEN, uploaded.session)
    assert upload_recording(lake, path).already_ingested
    first, second = commit_upload(lake, "a"), commit_upload(lake, "a")
    assert (first.already_committed, second.already_committed) == (False, True)
    assert first.session == second.session == uploaded.session
    assert lake.sequences.describe("a").sessions[0].state is SessionState.FINALIZED


def test_a_recording_that_another_process_ingests_is_left_to_it(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "a.mcap", [string_channel("/text", texts(4))])
    with open_recording(path) as recording, sole_ingestion(lake, recording):
        with pytest.raises(IngestionRunningError) as caught:
            ingest_recording(lake, path)
        assert isinstance(caught.value, Transient)
        assert lake.sequences.names() == []
    assert ingest_recording(lake, path).rows == 4


def test_only_what_was_made_from_a_recording_is_committed_as_one(lake: Lakehouse) -> None:
    lake.sequences.create("by_sdk")
    lake.sessions.create("by_sdk")
    with pytest.raises(StateError, match="belongs to the client"):
        commit_upload(lake, "by_sdk")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_interrupts_an_ingestion_nothing_is_left(
    error: type[BaseException], tmp_path: Path, lake: Lakehouse
) -> None:
    big = [(START_NS + index, json.dumps({"text": "x" * 100_000}).encode()) for index in range(400)]
    path = write_mcap(tmp_path / "a.mcap", [("/j", "json", "", "", b"", big), string_channel("/text", texts(9))])
    calls = 0

    def interrupt(done: int, total: int | None) -> None:
        nonlocal calls
        calls += 1
        assert 0 < done <= (total or 0) == 409
        if calls == 2:
            raise error

    with pytest.raises(error):
        ingest_recording(lake, path, progress=interrupt)
    assert lake.sequences.names() == []
    assert not list((lake.settings.home / "warehouse").rglob("*.parquet"))
    assert ingest_recording(lake, path).rows == 409


def test_only_chosen_topics(tmp_path: Path, lake: Lakehouse) -> None:
    channels = [string_channel(topic, texts(2)) for topic in ("/front/a", "/front/b", "/rear/a")]
    path = write_mcap(tmp_path / "a.mcap", channels)
    report = ingest_recording(lake, path, topics=["/front/*"])
    assert [topic.topic for topic in report.topics] == ["front/a", "front/b"]
    with pytest.raises(EmptyRecordingError):
        ingest_recording(lake, path, sequence_name="none", topics=["/left/*"])
    assert lake.sequences.names() == ["a"]


def test_topics_that_the_lake_would_call_the_same_stay_apart(tmp_path: Path, lake: Lakehouse) -> None:
    names = ["/a b", "/a$b", "a.b", "/a/b", "//a//b/", "/größe", "", "/recording/message_times"]
    channels = [string_channel(name, texts(number + 1, prefix=str(number))) for number, name in enumerate(names)]
    report = ingest_recording(lake, write_mcap(tmp_path / "a.mcap", channels, publish_offset_ns=9))
    assert [topic.topic for topic in report.topics] == [
        "a_b", "a_b_2", "a/b", "a/b_2", "a/b_3", "gr_e", "unnamed", "recording/message_times",
    ]  # fmt: skip
    assert [topic.original_topic for topic in report.topics] == names
    assert [topic.stored for topic in report.topics] == list(range(1, 9))
    assert [topic.topic for topic in report.extra_topics] == ["recording/message_times_2"]


def test_types_of_one_topic_become_topics_of_their_own(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(
        tmp_path / "a.mcap",
        [
            string_channel("/a", texts(2)),
            ("/a", "cdr", "std_msgs/msg/Bool", "ros2msg", b"bool data", [(START_NS, b"\x00\x01\x00\x00\x01")]),
        ],
    )
    report = ingest_recording(lake, path)
    assert [(topic.topic, topic.ontology_tag, topic.stored) for topic in report.topics] == [
        ("a", "String", 2),
        ("a_2", "Boolean", 1),
    ]
    assert report.topics[1].notes == ("the recording has messages of several types under '/a'",)


def test_publishers_that_took_turns_are_one_topic_in_time_order(tmp_path: Path, lake: Lakehouse) -> None:
    messages = texts(3000, ros1=True)
    path = write_rosbag1(
        tmp_path / "a.bag",
        [("/a", "std_msgs/msg/String", messages[::2]), ("/a", "std_msgs/msg/String", messages[1::2])],
    )
    report = ingest_recording(lake, path)
    rows = stored_rows(lake, report.sequence, "a")
    assert [row["timestamp_ns"] for row in rows] == [time_ns for time_ns, _ in messages]


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("drive_01.mcap", "drive_01"),
        ("2024-01-05 12:30.bag", "2024-01-05_12_30"),
        ("rosbag2_test_0.db3.zstd", "rosbag2_test_0"),
        ("naïve$.mcap", "na_ve"),
        ("....mcap", "recording"),
        ("x" * 3000 + ".mcap", "x" * 512),
    ],
)
def test_sequence_names(name: str, sequence: str) -> None:
    assert sequence_name_of(Path("/somewhere") / name) == sequence


def test_names_of_topics_and_types() -> None:
    assert topic_path_of("/camera/front.left", set()) == "camera/front/left"
    assert ontology_tag_of("nav2_msgs/msg/Costmap") == "Costmap"
    assert ontology_tag_of("foxglove.LocationFix") == "LocationFix"
    assert ontology_tag_of("foxglove.Pose") == "foxglove_Pose"
    assert ontology_tag_of("Pose") == "Pose_message"
    assert ontology_tag_of("") == "Raw"
