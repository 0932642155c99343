"""Ingestion as in production: Dagster and the lake keep their records in PostgreSQL, a run is a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from mcap.writer import Writer

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.defs.contracts.sensors import validation_sensor
from lakehouse.orchestration.defs.ingestion.checks import CHECK, quarantine_sensor
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.defs.sessions.sensors import finalized_sessions_sensor
from tests.orchestration.conftest import lake_home
from tests.orchestration.dagster_driver import metadata_of, tick

PROJECT = Path(__file__).parents[2]
DAGSTER = Path(sys.executable).with_name("dagster")
pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a lake in the very database that Dagster keeps its records in, with the deployed settings."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url.replace("+psycopg:", "+psycopg2:"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    (tmp_path / "dagster").mkdir()
    shutil.copy(PROJECT / "deploy" / "dagster.yaml", tmp_path / "dagster")
    return lake_home(tmp_path, postgres_url, monkeypatch)


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home / "dagster")) as permanent:
        yield permanent


def test_recordings_are_ingested_judged_and_refused_with_all_records_in_postgresql(
    home: Path, instance: dg.DagsterInstance
) -> None:
    for number in range(3):
        _write_recording(home / "drop" / f"drive_{number}.mcap", messages=number + 1)
    (home / "drop" / "broken.mcap").write_bytes(b"no recording")
    landed = tick(instance, drop_folder_sensor)
    _run(home, "ingest_recordings", landed)
    assert tick(instance, drop_folder_sensor, landed.cursor).run_requests == []
    ingested = {"drive_0", "drive_1", "drive_2"}
    assert set(instance.get_dynamic_partitions("sequences")) == ingested
    for asset in ("uploaded_sessions", "sequences"):
        assert instance.get_materialized_partitions(dg.AssetKey(asset)) == ingested
    assert metadata_of(instance, "uploaded_sessions", "drive_2")["dagster/row_count"] == 3
    with Lakehouse.open(Settings.load()) as lake:
        assert set(lake.sequences.names()) == ingested
        assert all(topic.session_is_finalized for topic in lake.sequences.describe("drive_2").topics)

    tick(instance, quarantine_sensor)
    assert _latest(instance, "quarantined_recordings", CHECK) is AssetCheckExecutionRecordStatus.FAILED
    (home / "drop" / "rejected" / "broken.mcap.reason.txt").unlink()
    tick(instance, quarantine_sensor)
    assert _latest(instance, "quarantined_recordings", CHECK) is AssetCheckExecutionRecordStatus.SUCCEEDED

    _run(home, "validate_recordings", tick(instance, validation_sensor))
    assert instance.get_materialized_partitions(dg.AssetKey("contract_reports")) == ingested
    assert _latest(instance, "contract_reports", "schema_and_types") is AssetCheckExecutionRecordStatus.SUCCEEDED
    assert tick(instance, finalized_sessions_sensor).asset_events == [], "runs have told of all sequences themselves"
    assert {run.job_name for run in instance.get_runs()} == {"ingest_recordings", "validate_recordings"}
    assert all(run.status is dg.DagsterRunStatus.SUCCESS for run in instance.get_runs())


def _run(home: Path, job: str, ticked: dg.SensorResult) -> None:
    """Carry out what a tick asks for, each run in a process of its own."""
    for number, request in enumerate(ticked.run_requests or []):
        config = home / f"run-{number}.json"
        config.write_text(json.dumps(dict(request.run_config)))
        command = [DAGSTER, "job", "execute", "-m", "lakehouse.orchestration.definitions", "-j", job, "-c", config]
        done = subprocess.run(command, env=os.environ, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


def _latest(instance: dg.DagsterInstance, asset: str, check: str) -> AssetCheckExecutionRecordStatus:
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    # The check of whichever partition was evaluated last.
    return instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0].status


def _write_recording(path: Path, messages: int) -> None:
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("std_msgs/msg/Float64", "ros2msg", b"float64 data")
        channel = writer.register_channel("/speed", "cdr", schema)
        for number in range(messages):
            writer.add_message(channel, number * 10**9, bytes(4 + 8), number * 10**9)
        writer.finish()
