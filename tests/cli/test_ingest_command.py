"""`lakehouse ingest`: real recordings arrive complete, broken ones leave nothing behind."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from mcap.records import Channel, Message, Statistics
from mcap.stream_reader import StreamReader
from pyiceberg.catalog.sql import SqlCatalog
from rosbags.rosbag1 import Reader as Rosbag1Reader

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.recordings.containers import open_recording
from tests.cli.conftest import Run
from tests.orchestration.recordings.recording_files import SHARED, string_channel, texts, write_mcap

RECORDINGS, HOSTILE = SHARED / "recordings", SHARED / "hostile" / "recordings"
CONFORMANCE = RECORDINGS / "mcap_conformance"
ODD_BUT_INTACT = {"bag-with-empty-message-definition.bag": 14, "example-unsorted-chunks.bag": 3, "no-messages.bag": 0}
DEMO = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"


def everything_in(home: Path) -> tuple[list[str], set[tuple[str, ...]], set[Path]]:
    """Sequences, Iceberg tables and files of a lake."""
    with Lakehouse.open(Settings(home=home)) as lake:
        names = lake.sequences.names()
        catalog = SqlCatalog("lake", uri=lake.settings.database_url)
    tables = {table for namespace in catalog.list_namespaces() for table in catalog.list_tables(namespace)}
    return names, tables, {path for path in home.rglob("*") if path.is_file() and "lakehouse.db" not in path.name}


def rows_in_lake(lakehouse: Run) -> dict[str, dict[str, int]]:
    """Sequence -> recorded topic -> rows, as `lakehouse sequences --json` tells."""
    listing = json.loads(lakehouse("sequences", "--json").stdout)
    return {
        sequence["sequence"]: {topic["locator"].split("/", 1)[1]: topic["rows"] for topic in sequence["topics"]}
        for sequence in listing
    }


def counted_by_the_container(path: Path) -> Mapping[str, int]:
    """Topic -> messages, from the index of the container itself."""
    if path.is_dir():
        information = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        topics = information["topics_with_message_count"]
        counts = {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics}
    elif path.suffix == ".bag":
        with Rosbag1Reader(path) as reader:
            counts = {name: topic.msgcount for name, topic in reader.topics.items()}
    elif path.suffix == ".db3":
        with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as database:
            counts = dict(
                database.execute("SELECT name, COUNT(*) FROM messages m JOIN topics t ON t.id = topic_id GROUP BY name")
            )
    else:
        with path.open("rb") as file:
            records = list(StreamReader(file).records)
        channels = {record.id: record.topic for record in records if isinstance(record, Channel)}
        (statistics,) = [record for record in records if isinstance(record, Statistics)] or [None]
        if statistics is not None:
            counts = {channels[number]: count for number, count in statistics.channel_message_counts.items()}
        else:
            counts = Counter(channels[record.channel_id] for record in records if isinstance(record, Message))
    return {topic.strip("/").replace(".", "/"): count for topic, count in counts.items() if count}


def recordings() -> list[Path]:
    """Every recording in the shared folder but the conformance files; rosbag2 directories and their lone files."""
    files = [path for path in RECORDINGS.rglob("*") if path.suffix in (".mcap", ".bag", ".db3")]
    folders = [path.parent for path in RECORDINGS.rglob("metadata.yaml")]
    return sorted(path for path in files + folders if CONFORMANCE not in path.parents)


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.name)
def test_real_recordings_arrive_with_every_message_the_container_counts(path: Path, lakehouse: Run) -> None:
    result = lakehouse("ingest", path)
    assert (result.returncode, result.stderr) == (0, "")
    (topics,) = rows_in_lake(lakehouse).values()
    recorded = {topic: rows for topic, rows in topics.items() if not topic.startswith("recording/")}
    assert recorded == counted_by_the_container(path)


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason="the folder of real recordings is not there")
def test_all_conformance_files_are_read_whole() -> None:
    for path in sorted(CONFORMANCE.rglob("*.mcap")):
        counts = Counter[str]()
        with open_recording(path) as recording:
            for block in recording.read_messages():
                counts[block.channel.topic.strip("/").replace(".", "/")] += len(block.payloads)
            assert counts == counted_by_the_container(path), path.name
            assert len(list(recording.attachments())) == (path.parent.name == "OneAttachment"), path.name


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason="the folder of real recordings is not there")
def test_conformance_files_arrive(lakehouse: Run) -> None:
    # Every seventh, which leaves some with each option of the format; all 416 differ in their containers only.
    files = sorted(CONFORMANCE.rglob("*.mcap"))[::7]
    result = lakehouse("ingest", *files)
    assert (result.returncode, result.stderr) == (0, "")
    lake = rows_in_lake(lakehouse)
    assert {path.stem for path in files} == set(lake)
    for path in files:
        recorded = {topic: rows for topic, rows in lake[path.stem].items() if not topic.startswith("recording/")}
        assert recorded == counted_by_the_container(path), path.name
        attachments = lake[path.stem].get("recording/attachments", 0)
        assert attachments == (1 if path.parent.name == "OneAttachment" else 0)


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the folder of broken recordings is not there")
def test_broken_recordings_are_refused_one_by_one_and_leave_nothing(lakehouse: Run, tmp_path: Path) -> None:
    broken = [path for path in sorted(HOSTILE.iterdir()) if path.name not in ODD_BUT_INTACT]
    broken += [tmp_path / "missing.mcap", tmp_path / "noise.bag", tmp_path / "empty.db3"]
    (tmp_path / "noise.bag").write_bytes(b"noise" * 1000)
    (tmp_path / "empty.db3").write_bytes(b"")
    before = everything_in(tmp_path / "lake")
    for path in broken:
        result = lakehouse("ingest", path)
        assert result.returncode == 1, path.name
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"{path.name}: ")
        assert len(line) < 1000
        assert "Traceback" not in line
        assert everything_in(tmp_path / "lake") == before, path.name


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the folder of broken recordings is not there")
def test_broken_recordings_do_not_stop_the_others(lakehouse: Run) -> None:
    result = lakehouse("ingest", *sorted(HOSTILE.iterdir()))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == len(list(HOSTILE.iterdir())) - len(ODD_BUT_INTACT)
    lake = rows_in_lake(lakehouse)
    assert {name: sum(topics.values()) for name, topics in lake.items()} == {
        name.removesuffix(".bag"): rows for name, rows in ODD_BUT_INTACT.items()
    }


def test_the_same_recording_again_is_recognised_and_another_of_its_name_refused(lakehouse: Run, tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", [string_channel("/text", texts(5))])
    empty = write_mcap(tmp_path / "empty.mcap", [])
    for expected in ("5 rows", "already; nothing done"):
        result = lakehouse("ingest", path, empty)
        assert result.returncode == 0, result.stderr
        assert expected in result.stdout
    assert "holds no messages" not in result.stdout
    write_mcap(path, [string_channel("/text", texts(6))])
    result = lakehouse("ingest", path)
    assert result.returncode == 1
    assert "sequence 'drive' already exists" in result.stderr
    assert rows_in_lake(lakehouse) == {"drive": {"text": 5}, "empty": {}}


def test_options_name_the_sequence_choose_topics_and_add_metadata(lakehouse: Run, tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", [string_channel("/text", texts(5)), string_channel("/other", texts(3))])
    options = ["--sequence", "monday", "--topic", "/te*", "--metadata", '{"vehicle": "v7"}']
    assert lakehouse("ingest", path, *options).returncode == 0
    assert rows_in_lake(lakehouse) == {"monday": {"text": 5}}
    (sequence,) = json.loads(lakehouse("sequences", "monday", "--json").stdout)
    assert sequence["user_metadata"]["vehicle"] == "v7"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--metadata", "{"], "--metadata is not JSON"),
        (["--metadata", "[]"], "must be a JSON object"),
        (["--metadata", '{"a.b": 1}'], "invalid json key"),
        (["--sequence", "a b"], "not a valid sequence"),
        (["--topic", "/nothing"], "none of the topics"),
    ],
)
def test_wrong_options_are_errors_and_leave_nothing(
    lakehouse: Run, tmp_path: Path, options: list[str], reason: str
) -> None:
    path = write_mcap(tmp_path / "drive.mcap", [string_channel("/text", texts(5))])
    before = everything_in(tmp_path / "lake")
    result = lakehouse("ingest", path, *options)
    assert result.returncode == 1
    assert reason in result.stderr
    assert everything_in(tmp_path / "lake") == before
