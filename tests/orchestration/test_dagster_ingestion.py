"""Ingestion as an operator sees it: the drop folder, the partitioned asset, and the job for explicit files."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.resources import LakehouseResource

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"
ROWS = 20_740


@pytest.fixture
def home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake of its own, found through the environment as in production."""
    monkeypatch.setenv("LAKEHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("MOSAICOD_DB_URL", database_url)
    monkeypatch.setenv("LAKEHOUSE_DROP_SETTLE_TIME", "0")
    (tmp_path / "drop").mkdir()
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def tick(instance: dg.DagsterInstance) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, resources={"lakehouse": LakehouseResource()})
    result = drop_folder_sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def launch(instance: dg.DagsterInstance, tick_result: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
    """Do what the daemon does with a tick: add the partitions, launch the runs."""
    for request in tick_result.dynamic_partitions_requests or []:
        instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    job = defs.get_job_def("ingest_recording")
    return [
        job.execute_in_process(
            run_config=request.run_config,
            partition_key=request.partition_key,
            instance=instance,
            raise_on_error=False,
        )
        for request in tick_result.run_requests or []
    ]


def rows_in_lake(sequence: str) -> int:
    with Lakehouse.open(Settings.load()) as lake:
        description = lake.sequences.describe(sequence)
    assert all(topic.session_is_finalized for topic in description.topics)
    return sum(topic.row_count for topic in description.topics if not topic.locator.path.startswith("recording/"))


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("sequences")
    return {key: value.value for key, value in event.metadata.items()}


def test_a_dropped_recording_becomes_a_sequence_and_moves_aside(home: Path, instance: dg.DagsterInstance) -> None:
    shutil.copy(RECORDING, home / "drop")
    (result,) = launch(instance, tick(instance))
    assert result.success
    assert rows_in_lake("city_drive") == ROWS
    assert not (home / "drop" / RECORDING.name).exists()
    assert (home / "drop" / "ingested" / RECORDING.name).exists()
    assert instance.get_dynamic_partitions("sequences") == ["city_drive"]
    metadata = metadata_of(result)
    assert metadata["dagster/row_count"] == ROWS
    assert metadata["undecoded_messages"] == 0
    assert tick(instance).run_requests == []


def test_a_broken_recording_is_rejected_with_a_reason_and_the_next_one_goes_in(
    home: Path, instance: dg.DagsterInstance
) -> None:
    (home / "drop" / "broken.mcap").write_bytes(RECORDING.read_bytes()[:100])
    shutil.copy(RECORDING, home / "drop")
    broken, good = launch(instance, tick(instance))
    assert not broken.success
    assert good.success
    assert (home / "drop" / "rejected" / "broken.mcap").exists()
    reason = (home / "drop" / "rejected" / "broken.mcap.reason.txt").read_text()
    assert "broken.mcap" in reason or "recording" in reason
    with Lakehouse.open(Settings.load()) as lake:
        assert lake.sequences.names() == ["city_drive"]


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
    job = defs.get_job_def("ingest_files")
    result = job.execute_in_process(
        run_config={"ops": {"ingest_each_file": {"config": {"files": [str(missing), str(RECORDING)]}}}},
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    assert rows_in_lake("city_drive") == ROWS
    assert RECORDING.exists(), "a recording outside the drop folder stays where it is"
    assert instance.get_dynamic_partitions("sequences") == ["city_drive"]


def test_the_code_location_loads_with_all_its_objects() -> None:
    repository = defs.get_repository_def()
    assert {job.name for job in repository.get_all_jobs()} >= {"ingest_recording", "ingest_files"}
    assert [sensor.name for sensor in repository.sensor_defs] == ["drop_folder_sensor"]
    assert [key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()] == ["sequences"]


def _write_other_recording(path: Path) -> None:
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema(name="Note", encoding="jsonschema", data=b'{"type":"object","properties":{}}')
        channel = writer.register_channel(topic="/note", message_encoding="json", schema_id=schema)
        writer.add_message(channel, log_time=1, data=b"{}", publish_time=1)
        writer.finish()
