"""Ingestion as an operator sees it: the drop folder, the partitioned asset, and the job for explicit files."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.ingestion import assets
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from tests.orchestration import dagster_driver as driver
from tests.orchestration.dagster_driver import launch, metadata_of
from tests.orchestration.recordings.recording_files import SHARED

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"
ROWS = 20_740
HOSTILE = SHARED / "hostile" / "recordings"


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    return driver.tick(instance, drop_folder_sensor, cursor)


def recordings_of(tick_result: dg.SensorResult) -> list[str]:
    """Names of the recordings that a tick asks for."""
    configs = [request.run_config["ops"]["ingestion"]["config"] for request in tick_result.run_requests or []]
    return [Path(location).name for config in configs for location in config["recordings"]]


def rows_in_lake(sequence: str) -> int:
    with Lakehouse.open(Settings.load()) as lake:
        description = lake.sequences.describe(sequence)
    assert all(topic.session_is_finalized for topic in description.topics)
    return sum(topic.row_count for topic in description.topics if not topic.locator.path.startswith("recording/"))


def test_a_dropped_recording_becomes_a_sequence_and_moves_aside(home: Path, instance: dg.DagsterInstance) -> None:
    shutil.copy(RECORDING, home / "drop")
    (result,) = launch(instance, tick(instance))
    assert result.success
    assert rows_in_lake("city_drive") == ROWS
    assert not (home / "drop" / RECORDING.name).exists()
    assert (home / "drop" / "ingested" / RECORDING.name).exists()
    assert instance.get_dynamic_partitions("sequences") == ["city_drive"]
    metadata = metadata_of(instance, "uploaded_sessions", "city_drive")
    assert metadata["dagster/row_count"] == ROWS
    assert metadata["undecoded_messages"] == 0
    assert metadata["recorded_from"] < metadata["recorded_to"]
    assert "city_drive.mcap" in metadata["source_files"].replace("\\", "")
    assert not {"missing", "remarks"} & set(metadata)
    topics = {record.data["topic"]: record.data for record in metadata["topics"].records}
    assert topics["imu/front"]["rows"] == topics["imu/front"]["recorded"] == 10_399
    assert topics["imu/front"]["type"] == "IMU"
    assert "recording/message_times" in topics
    assert tick(instance).run_requests == []


def test_a_broken_recording_is_rejected_with_a_reason_and_the_next_one_goes_in(
    home: Path, instance: dg.DagsterInstance
) -> None:
    (home / "drop" / "broken.mcap").write_bytes(RECORDING.read_bytes()[:100])
    shutil.copy(RECORDING, home / "drop")
    (result,) = launch(instance, tick(instance))
    assert result.success, "one bad recording is no failure of its batch"
    assert "broken.mcap" in metadata_of(instance, "quarantined_recordings")["recording"]
    assert (home / "drop" / "rejected" / "broken.mcap").exists()
    reason = (home / "drop" / "rejected" / "broken.mcap.reason.txt").read_text()
    assert "broken.mcap" in reason or "recording" in reason
    with Lakehouse.open(Settings.load()) as lake:
        assert lake.sequences.names() == ["city_drive"]


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="the folder of broken recordings is not there")
def test_broken_recordings_are_moved_aside_with_a_reason_and_the_sensor_goes_on(
    home: Path, instance: dg.DagsterInstance
) -> None:
    for path in HOSTILE.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, home / "drop" / path.name)
    shutil.copy(RECORDING, home / "drop")
    (result,) = launch(instance, tick(instance))
    assert result.success
    reasons = {path.name: path.read_text() for path in (home / "drop" / "rejected").glob("*.reason.txt")}
    assert set(reasons) == {f"{name}.reason.txt" for name in ("invalid.bag", "rosrecord_v1_2.bag", "wrong_rmw_test")}
    assert all(len(reason) < 1000 and str(home) not in reason for reason in reasons.values())
    assert {path.name for path in (home / "drop").iterdir()} == {"ingested", "rejected"}
    with Lakehouse.open(Settings.load()) as lake:
        assert lake.sequences.names() == [
            "bag-with-empty-message-definition",
            "city_drive",
            "example-unsorted-chunks",
            "no-messages",
        ]
    assert tick(instance).run_requests == []


def test_a_damaged_recording_goes_in_as_far_as_it_can_be_read_and_says_so(
    home: Path, instance: dg.DagsterInstance
) -> None:
    whole = RECORDING.read_bytes()
    (home / "drop" / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    (result,) = launch(instance, tick(instance))
    assert result.success
    assert "breaks off" in metadata_of(instance, "uploaded_sessions", "cut")["missing"]


def test_recordings_whose_runs_do_not_end_do_not_block_the_ones_behind_them(
    home: Path, instance: dg.DagsterInstance
) -> None:
    for number in range(20):
        (home / "drop" / f"a{number:02}.mcap").write_bytes(b"never mind")
    first = tick(instance)
    assert len(recordings_of(first)) == 20
    _write_other_recording(home / "drop" / "b.mcap")
    assert recordings_of(tick(instance, first.cursor)) == ["b.mcap"]


def test_a_recording_is_not_rejected_for_a_fault_of_the_database(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(RECORDING, home / "drop")
    request = tick(instance)
    monkeypatch.setattr(assets, "RETRY_AFTER_S", 0)
    monkeypatch.setenv("MOSAICOD_DB_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    (result,) = launch(instance, request)
    assert not result.success
    assert (home / "drop" / RECORDING.name).exists()


def test_files_that_are_no_recordings_stay_in_the_drop_folder(home: Path, instance: dg.DagsterInstance) -> None:
    (home / "drop" / "notes.txt").write_text("hello")
    (home / "drop" / "folder").mkdir()
    assert tick(instance).run_requests == []
    assert (home / "drop" / "notes.txt").exists()


def test_a_recording_that_still_grows_is_left_alone(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_DROP_SETTLE_TIME", "3600")
    shutil.copy(RECORDING, home / "drop")
    assert tick(instance).run_requests == []


def test_dropping_the_same_recording_again_changes_nothing(home: Path, instance: dg.DagsterInstance) -> None:
    for _ in range(2):
        shutil.copy(RECORDING, home / "drop")
        (result,) = launch(instance, tick(instance))
        assert result.success
    assert rows_in_lake("city_drive") == ROWS
    assert len(list((home / "drop" / "ingested").iterdir())) == 2


def test_a_different_recording_of_a_taken_name_is_rejected(home: Path, instance: dg.DagsterInstance) -> None:
    shutil.copy(RECORDING, home / "drop")
    launch(instance, tick(instance))
    _write_other_recording(home / "drop" / RECORDING.name)
    (result,) = launch(instance, tick(instance))
    assert not result.success
    assert "already exists" in (home / "drop" / "rejected" / f"{RECORDING.name}.reason.txt").read_text()
    assert rows_in_lake("city_drive") == ROWS


def test_the_job_for_explicit_files_ingests_all_it_can(home: Path, instance: dg.DagsterInstance) -> None:
    missing = home / "missing.mcap"
    job = defs.resolve_job_def("ingest_files")
    result = job.execute_in_process(
        run_config={"ops": {"ingest_each_file": {"config": {"files": [str(missing), str(RECORDING)]}}}},
        instance=instance,
        raise_on_error=False,
    )
    assert result.success
    assert "missing.mcap" in metadata_of(instance, "quarantined_recordings")["recording"]
    assert rows_in_lake("city_drive") == ROWS
    assert RECORDING.exists(), "a recording outside the drop folder stays where it is"
    assert instance.get_dynamic_partitions("sequences") == ["city_drive"]


def _write_other_recording(path: Path) -> None:
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema(name="Note", encoding="jsonschema", data=b'{"type":"object","properties":{}}')
        channel = writer.register_channel(topic="/note", message_encoding="json", schema_id=schema)
        writer.add_message(channel, log_time=1, data=b"{}", publish_time=1)
        writer.finish()
