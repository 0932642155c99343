"""Broken recordings are salvaged or refused with a reason; a refused one leaves nothing behind."""

import struct
from pathlib import Path

import pytest
from mcap.reader import make_reader
from mcap.writer import CompressionType

from lakehouse.catalog.errors import LakehouseError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.recording_losses import losses_of
from lakehouse.orchestration.recordings.containers import open_recording
from lakehouse.orchestration.recordings.errors import (
    RecordingError,
    UnreadableRecordingError,
    UnsupportedRecordingError,
)
from lakehouse.orchestration.recordings.ingest import ingest_recording
from tests.orchestration.recordings.recording_files import (
    SHARED,
    stored_rows,
    string_channel,
    texts,
    write_mcap,
    write_rosbag1,
    write_rosbag2,
)

HOSTILE = SHARED / "hostile" / "recordings"
needs_hostile = pytest.mark.skipif(not HOSTILE.is_dir(), reason="the folder of broken recordings is not there")


def assert_refused(lake: Lakehouse, path: Path, error: type[RecordingError], reason: str) -> None:
    with pytest.raises(error, match=reason) as raised:
        ingest_recording(lake, path)
    assert len(raised.value.message) < 1000
    assert str(path.parent) not in raised.value.message
    assert lake.sequences.names() == []
    assert not [file for file in (lake.settings.home / "warehouse").rglob("*.parquet") if "mosaico" not in str(file)]


@needs_hostile
@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("invalid.bag", UnreadableRecordingError, "beginning is damaged"),
        ("rosrecord_v1_2.bag", UnsupportedRecordingError, r"format 1\.2"),
        ("wrong_rmw_test", UnsupportedRecordingError, "'wrong_format'"),
    ],
)
def test_broken_recordings_are_refused(name: str, error: type[RecordingError], reason: str, lake: Lakehouse) -> None:
    assert_refused(lake, HOSTILE / name, error, reason)


@needs_hostile
def test_odd_but_readable_recordings_are_ingested(lake: Lakehouse) -> None:
    unsorted = ingest_recording(lake, HOSTILE / "example-unsorted-chunks.bag")
    rows = stored_rows(lake, unsorted.sequence, "foo")
    assert len(rows) == 3
    assert [row["timestamp_ns"] for row in rows] == sorted(row["timestamp_ns"] for row in rows)
    assert ingest_recording(lake, HOSTILE / "no-messages.bag").session is None
    undefined = ingest_recording(lake, HOSTILE / "bag-with-empty-message-definition.bag")
    (topic,) = undefined.topics
    assert (topic.ontology_tag, topic.stored, topic.failed) == ("Raw", 14, 0)
    assert topic.notes


@pytest.mark.parametrize("name", ["empty.mcap", "empty.bag", "empty.db3", "noise.mcap", "noise.db3", "notes.txt"])
def test_files_that_are_no_recordings_are_refused(name: str, tmp_path: Path, lake: Lakehouse) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"\x00\x01noise" * 100)
    assert_refused(lake, path, RecordingError, ".")


def test_missing_files_and_foreign_folders_are_refused(tmp_path: Path, lake: Lakehouse) -> None:
    assert_refused(lake, tmp_path / "nowhere.mcap", UnreadableRecordingError, "no such file")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert_refused(lake, folder, UnsupportedRecordingError, "not one rosbag2")
    (folder / "metadata.yaml").write_text("nothing: here")
    assert_refused(lake, folder, UnreadableRecordingError, r"metadata\.yaml")
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: {relative_file_paths: [../../etc/passwd]}")
    assert_refused(lake, folder, UnreadableRecordingError, "missing")


@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_truncated_mcap_is_read_to_its_last_intact_chunk(
    compression: CompressionType, tmp_path: Path, lake: Lakehouse
) -> None:
    whole = write_mcap(
        tmp_path / "whole.mcap", [string_channel("/text", texts(2000))], compression=compression, chunk_size=2048
    )
    data = whole.read_bytes()
    for part in (0.3, 0.55, 0.8):
        cut = tmp_path / f"cut_{part * 100:.0f}.mcap"
        cut.write_bytes(data[: int(len(data) * part)])
        report = ingest_recording(lake, cut)
        rows = stored_rows(lake, report.sequence, "text")
        assert 100 < len(rows) < 2000
        assert [row["data"] for row in rows] == [f"text {index}" for index in range(len(rows))]
        assert "breaks off" in report.damages[0]
        assert not report.is_complete
        assert "damaged" in lake.notifications.list(report.sequence)[0].message
        description = lake.sequences.describe(report.sequence)
        block = description.sequence.user_metadata["recording"]
        assert block["damages"] == list(report.damages)
        losses = losses_of(description.sequence.user_metadata, description.topics)
        assert losses is not None
        assert str(losses).startswith("damaged: ")
        assert ingest_recording(lake, cut).damages == report.damages, "told again when it is dropped again"


def test_a_chunk_with_flipped_bits_is_left_out_and_its_messages_are_reported_missing(
    tmp_path: Path, lake: Lakehouse
) -> None:
    path = write_mcap(
        tmp_path / "flipped.mcap",
        [string_channel("/text", texts(2000))],
        compression=CompressionType.NONE,
        chunk_size=2048,
    )
    data = bytearray(path.read_bytes())
    place = data.index(b"text 1000")
    data[place] ^= 0xFF
    path.write_bytes(data)
    report = ingest_recording(lake, path)
    (topic,) = report.topics
    assert topic.expected == 2000
    assert 1900 < topic.stored < 2000
    assert topic.stored + topic.failed == 2000
    assert report.damages == ("the checksum of a chunk does not match its content",)
    assert lake.sequences.get(report.sequence).user_metadata["recording"]["missing_messages"] == topic.failed
    assert [each.name for each in lake.sequences.with_metadata("recording.damages[0]", report.damages[0])] == [
        "flipped"
    ]
    (note,) = lake.notifications.list(lake.sequences.describe(report.sequence).topics[0].locator)
    assert f"{topic.failed} of 2,000 messages" in note.message


def test_behind_a_damaged_chunk_the_index_leads_on(tmp_path: Path, lake: Lakehouse) -> None:
    path = write_mcap(tmp_path / "gap.mcap", [string_channel("/text", texts(2000))], chunk_size=2048)
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    victim = summary.chunk_indexes[len(summary.chunk_indexes) // 2]
    data = bytearray(path.read_bytes())
    data[victim.chunk_start_offset + 1 : victim.chunk_start_offset + 9] = struct.pack("<Q", 2**40)
    path.write_bytes(data)
    report = ingest_recording(lake, path)
    rows = [row["data"] for row in stored_rows(lake, report.sequence, "text")]
    assert rows[0] == "text 0"
    assert rows[-1] == "text 1999"
    assert 1900 < len(rows) < 2000
    assert report.damages == ("the file is damaged between two chunks",)
    assert report.failed == 2000 - len(rows)


def test_lengths_beyond_the_end_of_the_file_are_not_believed(tmp_path: Path, lake: Lakehouse) -> None:
    magic = b"\x89MCAP0\r\n"
    for number, opcode in enumerate((1, 3, 4, 5, 6, 9)):
        path = tmp_path / f"long{number}.mcap"
        path.write_bytes(magic + struct.pack("<BQ", opcode, 2**62) + b"x" * 100)
        assert_refused(lake, path, RecordingError, "breaks off")


def test_compression_bombs_are_left_out(tmp_path: Path, lake: Lakehouse) -> None:
    import zstandard

    bomb = zstandard.compress(b"\0" * (200 << 20))
    chunk = struct.pack("<QQQI", 0, 0, 200 << 20, 0) + struct.pack("<I", 4) + b"zstd"
    chunk += struct.pack("<Q", len(bomb)) + bomb
    path = tmp_path / "bomb.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(chunk)) + chunk)
    assert_refused(lake, path, UnreadableRecordingError, "implausible size")


def test_a_bag_without_index_is_read_as_far_as_it_goes(tmp_path: Path, lake: Lakehouse) -> None:
    whole = write_rosbag1(tmp_path / "whole.bag", [("/text", "std_msgs/msg/String", texts(40_000, ros1=True))])
    data = bytearray(whole.read_bytes())
    place = data.index(b"index_pos=") + len(b"index_pos=")
    data[place : place + 8] = bytes(8)
    cut = tmp_path / "cut.bag"
    cut.write_bytes(data[: int(len(data) * 0.7)])
    report = ingest_recording(lake, cut)
    (topic,) = report.topics
    assert topic.expected is None
    assert 5_000 < topic.stored < 40_000
    assert "index" in report.damages[0]


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_escapes_as_anything_but_a_lakehouse_error(seed: int, tmp_path: Path) -> None:
    import random

    chance = random.Random(seed)
    kind = ("mcap", "bag", "db3")[seed % 3]
    if kind == "mcap":
        path = write_mcap(tmp_path / "r.mcap", [string_channel("/text", texts(300))], chunk_size=1024)
    elif kind == "bag":
        path = write_rosbag1(tmp_path / "r.bag", [("/text", "std_msgs/msg/String", texts(300, ros1=True))])
    else:
        folder = write_rosbag2(tmp_path / "r", [("/text", "std_msgs/msg/String", texts(300))])
        path = folder / "r.db3"
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    path.write_bytes(data)
    try:
        with open_recording(path) as recording:
            read = sum(len(block.payloads) for block in recording.read_messages())
    except LakehouseError:
        return
    assert 0 <= read <= 600
