"""Every container format gives the same messages, and its own account of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from mcap.writer import CompressionType, IndexType
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from ruamel.yaml import YAML

from lakehouse.orchestration.recordings.containers import is_rosbag2_directory, open_recording
from lakehouse.orchestration.recordings.recording import Recording
from tests.orchestration.recordings.recording_files import (
    START_NS,
    Message,
    string_channel,
    texts,
    write_mcap,
    write_rosbag1,
    write_rosbag2,
)

MESSAGES = texts(500)
ROS1_MESSAGES = texts(500, ros1=True)


def messages_of(recording: Recording, topic: str, block_bytes: int = 20_000) -> list[Message]:
    (channel,) = [channel for channel in recording.channels if channel.topic == topic]
    found: list[Message] = []
    for block in recording.read_messages([channel], block_bytes):
        assert block.channel == channel
        found += zip(block.log_time_ns.tolist(), block.payloads, strict=True)
    return found


@pytest.mark.parametrize("compression", list(CompressionType))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_chunking": False},
        {"use_statistics": False, "use_summary_offsets": False},
        {"repeat_channels": False, "repeat_schemas": False},
        {"index_types": IndexType.NONE},
        {"enable_crcs": False},
    ],
    ids=["default", "unchunked", "no statistics", "nothing repeated", "no index", "no checksums"],
)
def test_mcap_of_any_layout(compression: CompressionType, options: dict[str, object], tmp_path: Path) -> None:
    path = write_mcap(
        tmp_path / "a.mcap",
        [string_channel("/a", MESSAGES), string_channel("/b", MESSAGES[:3])],
        compression=compression,
        publish_offset_ns=-5,
        **options,
    )
    with open_recording(path) as recording:
        assert recording.format == "mcap"
        assert messages_of(recording, "/a") == MESSAGES
        assert messages_of(recording, "/b") == MESSAGES[:3]
        counts = [channel.message_count for channel in recording.channels]
        assert counts == ([None, None] if options.get("use_statistics") is False else [500, 3])
        for block in recording.read_messages():
            assert (block.log_time_ns - block.publish_time_ns == 5).all()
        assert recording.damages == []
        assert [(file.name, file.size, len(file.sha256)) for file in recording.source] == [
            ("a.mcap", path.stat().st_size, 64)
        ]


def test_channels_of_one_topic_and_type_are_one_channel(tmp_path: Path) -> None:
    path = write_mcap(
        tmp_path / "a.mcap",
        [
            string_channel("/a", MESSAGES[:2]),
            string_channel("/a", MESSAGES[2:5]),
            ("/a", "cdr", "std_msgs/msg/Bool", "ros2msg", b"bool data", [(START_NS, b"\x00\x01\x00\x00\x01")]),
        ],
    )
    with open_recording(path) as recording:
        assert [(channel.message_type, channel.message_count) for channel in recording.channels] == [
            ("std_msgs/msg/String", 5),
            ("std_msgs/msg/Bool", 1),
        ]
        assert [len(block.payloads) for block in recording.read_messages()] == [5, 1]


def test_memory_is_bounded_by_the_block_size(tmp_path: Path) -> None:
    big = [(START_NS + index, b"\x00\x01\x00\x00" + bytes(100_000)) for index in range(100)]
    path = write_mcap(tmp_path / "a.mcap", [("/a", "bytes", "", "", b"", big), ("/b", "bytes", "", "", b"", big)])
    with open_recording(path) as recording:
        blocks = list(recording.read_messages(block_bytes=1_000_000))
    assert sum(len(block.payloads) for block in blocks) == 200
    assert max(sum(map(len, block.payloads)) for block in blocks) < 1_200_000


@pytest.mark.parametrize("compression", [None, *Rosbag1Writer.CompressionFormat])
def test_rosbag1_with_every_compression(compression: Rosbag1Writer.CompressionFormat | None, tmp_path: Path) -> None:
    path = write_rosbag1(
        tmp_path / "a.bag",
        [("/a", "std_msgs/msg/String", ROS1_MESSAGES), ("/b", "std_msgs/msg/String", ROS1_MESSAGES[:3])],
        compression,
    )
    with open_recording(path) as recording:
        assert recording.format == "rosbag1"
        assert messages_of(recording, "/a") == ROS1_MESSAGES
        assert messages_of(recording, "/b") == ROS1_MESSAGES[:3]
        assert [channel.message_count for channel in recording.channels] == [500, 3]
        channel = recording.channels[0]
        assert (channel.message_type, channel.encoding) == ("std_msgs/String", "ros1")
        assert channel.metadata["callerid"] == "/node0"


def test_publishers_of_one_topic_in_a_rosbag1_are_one_channel(tmp_path: Path) -> None:
    path = write_rosbag1(
        tmp_path / "a.bag",
        [("/a", "std_msgs/msg/String", ROS1_MESSAGES[::2]), ("/a", "std_msgs/msg/String", ROS1_MESSAGES[1::2])],
    )
    with open_recording(path) as recording:
        assert sorted(messages_of(recording, "/a")) == ROS1_MESSAGES
        (channel,) = recording.channels
        assert channel.message_count == 500
        assert [item["callerid"] for item in channel.metadata["publishers"]] == ["/node0", "/node1"]


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_rosbag2_directory_and_its_lone_file(storage: StoragePlugin, tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "bag", [("/a", "std_msgs/msg/String", MESSAGES)], storage)
    (storage_file,) = [file for file in path.iterdir() if file.suffix != ".yaml"]
    for candidate in (path, storage_file):
        with open_recording(candidate) as recording:
            assert messages_of(recording, "/a") == MESSAGES
            (channel,) = recording.channels
            assert (channel.message_count, channel.encoding, channel.schema_encoding) == (500, "cdr", "ros2msg")
            assert b"string data" in channel.schema
    assert is_rosbag2_directory(path)
    (path / "metadata.yaml").unlink()
    assert is_rosbag2_directory(path)
    with open_recording(path) as recording:
        assert messages_of(recording, "/a") == MESSAGES


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_split_rosbag2(storage: StoragePlugin, tmp_path: Path) -> None:
    parts = [MESSAGES[:200], MESSAGES[200:]]
    suffix = ".db3" if storage == StoragePlugin.SQLITE3 else ".mcap"
    split = tmp_path / "split"
    split.mkdir()
    for number, messages in enumerate(parts):
        part = write_rosbag2(tmp_path / f"part{number}", [("/a", "std_msgs/msg/String", messages)], storage)
        shutil.move(part / f"part{number}{suffix}", split / f"split_{number}{suffix}")
    document = YAML(typ="safe").load((part / "metadata.yaml").read_text())
    information = document["rosbag2_bagfile_information"]
    information["relative_file_paths"] = [f"split_{number}{suffix}" for number in range(2)]
    information["topics_with_message_count"][0]["message_count"] = 500
    YAML(typ="safe").dump(document, split / "metadata.yaml")
    with open_recording(split) as recording:
        assert messages_of(recording, "/a") == MESSAGES
        assert [channel.message_count for channel in recording.channels] == [500]
        assert sorted(file.name for file in recording.source) == sorted(file.name for file in split.iterdir())
    (split / f"split_0{suffix}").unlink()
    with open_recording(split) as recording:
        assert messages_of(recording, "/a") == MESSAGES[200:]
        assert recording.channels[0].message_count == 500
        assert recording.damages == [f"the file 'split_0{suffix}' is missing"]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.FILE])
def test_compressed_rosbag2(storage: StoragePlugin, mode: CompressionMode, tmp_path: Path) -> None:
    def configure(writer: Rosbag2Writer) -> None:
        writer.set_compression(mode, CompressionFormat.ZSTD)

    path = write_rosbag2(tmp_path / "bag", [("/a", "std_msgs/msg/String", MESSAGES)], storage, configure)
    with open_recording(path) as recording:
        assert messages_of(recording, "/a") == MESSAGES


def test_a_compressed_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    def configure(writer: Rosbag2Writer) -> None:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)

    path = write_rosbag2(tmp_path / "bag", [("/a", "std_msgs/msg/String", MESSAGES)], StoragePlugin.SQLITE3, configure)
    file = path / "bag.db3"
    data = file.read_bytes()
    place = data.index(zstandard.FRAME_HEADER)
    file.write_bytes(data[:place] + b"\0" + data[place + 1 :])
    with open_recording(path) as recording:
        assert len(messages_of(recording, "/a")) == 499
        assert recording.unusable[recording.channels[0].id] == {"compressed data is damaged": 1}


def mcap_with_late_times(path: Path) -> Path:
    return write_mcap(path, [string_channel("/a", [(2**63, MESSAGES[0][1]), MESSAGES[1]])])


@pytest.mark.parametrize("write", [mcap_with_late_times])
def test_times_the_lake_cannot_hold_are_counted(write: Callable[[Path], Path], tmp_path: Path) -> None:
    with open_recording(write(tmp_path / "a.mcap")) as recording:
        assert messages_of(recording, "/a") == [MESSAGES[1]]
        assert recording.unusable[recording.channels[0].id] == {"its time is beyond the year 2262": 1}
