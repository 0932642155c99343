"""Contracts as an operator sees them in Dagster: reports, checks, the nightly run, and the gate before a commit."""

import hashlib
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.orchestration.building import build_definitions
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.contracts.assets import validation
from lakehouse.orchestration.defs.contracts.schedules import nightly_validation
from lakehouse.orchestration.defs.contracts.sensors import failing_sequences_sensor, validation_sensor
from lakehouse.orchestration.defs.ingestion.assets import sequences
from lakehouse.orchestration.defs.quarantine.assets import quarantined_sessions
from lakehouse.orchestration.defs.quarantine.checks import quarantined_sessions_sensor
from lakehouse.orchestration.defs.sessions.checks import waiting_recordings_sensor
from lakehouse.orchestration.defs.sessions.sensors import finalized_sessions_sensor
from lakehouse.orchestration.defs.tables.assets import table_key, tables_in_the_lake
from lakehouse.orchestration.defs.tables.sensors import tables_sensor
from lakehouse.orchestration.resources import LakehouseResource
from tests.contracts.contract_files import contract_text, rule
from tests.contracts.recordings import imu_rows, imu_table, record_sequence
from tests.orchestration.dagster_driver import metadata_of, tick
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"
REPORTS = dg.AssetKey("contract_reports")
pytestmark = pytest.mark.slow


@pytest.fixture
def home(embedded_home: Path) -> Path:
    (embedded_home / "contracts").mkdir()
    return embedded_home


def validate(instance: dg.DagsterInstance, **run: Any) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("validate_recordings")
    return job.execute_in_process(instance=instance, raise_on_error=False, **run)


def evaluations(result: dg.ExecuteInProcessResult) -> dict[tuple[str | None, str], dg.AssetCheckEvaluation]:
    return {(each.partition, each.check_name): each for each in result.get_asset_check_evaluations()}


def broken_imu() -> Any:
    rows = imu_rows(500)
    rows["ax"][100:103] = 900.0
    rows["w"][::2] = 0.2
    return imu_table(rows)


def verdict_rows(run_id: str) -> list[dict[str, Any]]:
    with Lakehouse.open(Settings.load()) as lake:
        catalog = open_sql_catalog(lake.database, lake.warehouse)
        table = catalog.load_table("mosaico.validation_results")
        rows: list[dict[str, Any]] = table.scan(row_filter=f"run_id = '{run_id}'").to_arrow().to_pylist()
        catalog.close()
    return rows


def test_many_sequences_are_validated_in_one_run_each_with_its_checks(home: Path, instance: dg.DagsterInstance) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        good = record_sequence(lake, "good", {"imu": ("IMU", imu_table(imu_rows(500)))})
        bad = record_sequence(lake, "bad", {"imu": ("IMU", broken_imu())})
        gone = record_sequence(lake, "gone", {"imu": ("IMU", imu_table(imu_rows(5)))})
        lake.sequences.delete("gone")
    (home / "contracts" / "broken.yaml").write_text("kind: [")
    ticked = tick(instance, validation_sensor)
    (request,) = ticked.run_requests or []
    asked = request.run_config["ops"]["validation_of_what_is_named"]["config"]["sessions"]
    assert asked == [str(session.locator) for session in (good, bad, gone)]
    assert tick(instance, validation_sensor, ticked.cursor).run_requests == []
    result = validate(instance, run_config=request.run_config)
    assert result.success, "a broken contract is no failed run"
    found = evaluations(result)
    assert {key: each.passed for key, each in found.items()} == {
        ("good", "schema_and_types"): True,
        ("good", "values"): True,
        ("good", "robot_physics"): True,
        ("good", "whole_sequence"): True,
        ("bad", "schema_and_types"): True,
        ("bad", "values"): False,
        ("bad", "robot_physics"): False,
        ("bad", "whole_sequence"): True,
        (None, "contract_files"): False,
        (None, "no_sequence_fails"): False,
    }
    values = found["bad", "values"]
    assert values.severity == dg.AssetCheckSeverity.ERROR
    first = values.metadata["findings"].value.records[0].data  # type: ignore[union-attr]
    times = imu_rows(500)["times"]
    assert (first["rule"], first["topic"], first["rows failed"]) == ("acceleration_magnitude", "imu", 3)
    assert first["first failing ns"] == times[100]
    assert first["when"].strip("·") == "█"
    assert f"start_timestamp_ns={times[100]}" in values.metadata["look"].value  # type: ignore[operator]
    assert "broken.yaml, line 1" in found[None, "contract_files"].metadata["files"].value  # type: ignore[operator]
    events = {e.partition: e for e in result.asset_materializations_for_node("validation_of_what_is_named")}
    assert events["bad"].metadata["verdict"].value == "failed"
    assert events["bad"].metadata["rules_failed"].value == 2
    assert events["good"].metadata["values_failed_percent"].value == 0.0
    assert sorted(instance.get_dynamic_partitions("sequences")) == ["bad", "good"]
    rows = verdict_rows(result.run_id)
    assert {row["sequence"] for row in rows} == {"good", "bad"}
    assert sum(row["verdict"] == "failed" for row in rows) == 2


def test_what_somebody_had_judged_since_its_commit_is_not_judged_again(
    home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        named, other = (record_sequence(lake, name, {"imu": ("IMU", imu_table(imu_rows(5)))}) for name in ("a_1", "b"))
        time.sleep(1.1)  # Dagster keeps the whole seconds in which runs were created
        config = {"ops": {"validation_of_what_is_named": {"config": {"sequences": "a_*"}}}}
        assert validate(instance, run_config=config).success
        later = record_sequence(lake, "a_2", {"imu": ("IMU", imu_table(imu_rows(5)))})
    asked = asked_for(tick(instance, validation_sensor))
    assert asked == [str(session.locator) for session in (other, later)], named.locator


def test_sessions_that_a_launched_run_covers_are_validated_after_all_if_it_does_not_succeed(
    home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        made = {
            name: str(record_sequence(lake, name, {"imu": ("IMU", imu_table(imu_rows(5)))}).locator)
            for name in ("cancelled", "failing", "succeeding")
        }
    time.sleep(1.1)  # Dagster keeps the whole seconds in which runs were created
    job = defs.resolve_job_def("validate_recordings")
    runs = {
        name: instance.create_run_for_job(
            job, run_config={"ops": {"validation_of_what_is_named": {"config": {"sessions": [session]}}}}
        )
        for name, session in made.items()
    }
    ticked = tick(instance, validation_sensor)
    assert ticked.run_requests == []
    instance.report_run_canceled(runs["cancelled"])
    ticked = tick(instance, validation_sensor, ticked.cursor)
    assert asked_for(ticked) == [made["cancelled"]]
    instance.report_run_failed(runs["failing"])
    ticked = tick(instance, validation_sensor, ticked.cursor)
    assert asked_for(ticked) == [made["failing"]], "the other one still has its run"
    assert execute_run(InMemoryJob(job), runs["succeeding"], instance).success
    ticked = tick(instance, validation_sensor, ticked.cursor)
    assert ticked.run_requests == []
    assert tick(instance, validation_sensor, ticked.cursor).run_requests == []


def asked_for(ticked: dg.SensorResult) -> list[str]:
    """The sessions that the one run which a tick asks for is to validate."""
    (request,) = ticked.run_requests or []
    sessions: list[str] = request.run_config["ops"]["validation_of_what_is_named"]["config"]["sessions"]
    return sessions


def test_partitions_chosen_in_the_ui_and_everything_at_night(home: Path, instance: dg.DagsterInstance) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        for name in ("a", "b"):
            record_sequence(lake, name, {"imu": ("IMU", imu_table(imu_rows(200)))})
    for name in ("a", "b"):
        instance.add_dynamic_partitions("sequences", [name])
        # As in production, where the sequences are there before their reports.
        instance.report_runless_asset_event(dg.AssetMaterialization(sequences.key, partition=name))
    resources = {"lakehouse": LakehouseResource()}
    chosen = dg.materialize([validation], partition_key="a", instance=instance, resources=resources)
    assert chosen.success
    assert {partition for partition, _ in evaluations(chosen)} == {"a", None}
    request = nightly_validation(dg.build_schedule_context(instance=instance))
    assert isinstance(request, dg.RunRequest)
    night = validate(instance, run_config=request.run_config)
    assert {partition for partition, _ in evaluations(night)} == {"a", "b", None}
    keys = [dg.AssetCheckKey(REPORTS, name) for name in ("values", "contract_files")]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert len(latest) == 2


def test_reports_come_after_the_tables_they_judge_however_they_are_run(
    home: Path, instance: dg.DagsterInstance
) -> None:
    settings = Settings.load()
    with Lakehouse.open(settings) as lake:
        for name in ("a", "b", "c"):
            record_sequence(lake, name, {"imu": ("IMU", imu_table(imu_rows(200)))})
            instance.add_dynamic_partitions("sequences", [name])
            instance.report_runless_asset_event(dg.AssetMaterialization(sequences.key, partition=name))
    tick(instance, tables_sensor(()))
    location = build_definitions(settings, tables_in_the_lake(settings))
    assert location.get_repository_def().asset_graph.get(REPORTS).parent_keys == {
        sequences.key,
        table_key("imu.imu"),
    }
    button = location.resolve_implicit_global_asset_job_def()
    button.execute_in_process(asset_selection=[REPORTS], partition_key="a", instance=instance)
    assert instance.get_materialized_partitions(REPORTS) == {"a"}
    tags = {"dagster/asset_partition_range_start": "b", "dagster/asset_partition_range_end": "c"}
    button.execute_in_process(asset_selection=[REPORTS], tags=tags, instance=instance)
    assert instance.get_materialized_partitions(REPORTS) == {"a", "b", "c"}
    request = nightly_validation(dg.build_schedule_context(instance=instance))
    assert isinstance(request, dg.RunRequest)
    night = location.resolve_job_def("validate_recordings")
    assert night.execute_in_process(instance=instance, run_config=request.run_config).success
    graph = build_definitions(settings, tables_in_the_lake(settings)).get_repository_def().asset_graph
    assert graph.get(table_key("mosaico.validation_results")).parent_keys == {REPORTS}


def test_one_check_tells_of_all_sequences_that_fail_whichever_was_judged_last(
    home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        for name in ("bad_1", "bad_2", "good"):
            rows = imu_table(imu_rows(200)) if name == "good" else broken_imu()
            record_sequence(lake, name, {"imu": ("IMU", rows)})
    key = dg.AssetCheckKey(REPORTS, "no_sequence_fails")

    def shown() -> dg.AssetCheckEvaluation:
        """As the page of the asset shows it: nothing, if it is not about the latest event."""
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        found = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
        assert isinstance(found, dg.AssetCheckEvaluation)
        about = instance.fetch_materializations(REPORTS, limit=1).records[0].storage_id
        assert found.target_materialization_data is not None
        assert found.target_materialization_data.storage_id == about
        return found

    def judge(pattern: str) -> None:
        config = {"ops": {"validation_of_what_is_named": {"config": {"sequences": pattern}}}}
        assert validate(instance, run_config=config).success

    judge("bad_*")
    judge("good")
    assert not shown().passed, "evaluated in the run"
    cursor = tick(instance, failing_sequences_sensor).cursor
    assert not shown().passed
    assert shown().metadata["sequences_failing"].value == 2
    rows = [record.data for record in shown().metadata["failing"].value.records]  # type: ignore[union-attr]
    assert {(row["sequence"], row["topic"], row["rule"], row["committed"]) for row in rows} == {
        (name, "imu", name_of_rule, True)
        for name in ("bad_1", "bad_2")
        for name_of_rule in ("acceleration_magnitude", "orientation_norm")
    }
    alike = [record.data for record in shown().metadata["by_rule"].value.records]  # type: ignore[union-attr]
    assert {(row["rule"], row["sequences"]) for row in alike} == {
        ("acceleration_magnitude", 2),
        ("orientation_norm", 2),
    }
    look = str(shown().metadata["look"].value)
    assert "[bad\\_1](/assets/contract_reports?view=partitions&partition=bad_1)" in look
    assert "client.topic_handler('bad_2', 'imu').get_data_streamer(start_timestamp_ns=" in look
    assert tick(instance, failing_sequences_sensor, cursor).asset_events == []
    with Lakehouse.open(Settings.load()) as lake:
        lake.sequences.delete("bad_1")
    cursor = tick(instance, failing_sequences_sensor, cursor).cursor
    assert (shown().passed, shown().metadata["sequences_failing"].value) == (False, 1)
    lenient = [rule(name, "row_count", min=1) for name in ("acceleration_magnitude", "orientation_norm")]
    (home / "contracts" / "lenient.yaml").write_text(contract_text("lenient", topics="imu", rules=lenient))
    # Materialized as with the button: the check is evaluated in the same run.
    location = build_definitions(Settings.load(), [])
    instance.add_dynamic_partitions("sequences", ["bad_2"])
    instance.report_runless_asset_event(dg.AssetMaterialization(sequences.key, partition="bad_2"))
    button = location.resolve_implicit_global_asset_job_def()
    again = button.execute_in_process(asset_selection=[REPORTS], partition_key="bad_2", instance=instance)
    assert again.success
    assert evaluations(again)[None, "no_sequence_fails"].passed
    tick(instance, failing_sequences_sensor, cursor)
    assert shown().passed


def test_a_check_that_failed_is_green_again_when_its_rule_is_gone(home: Path, instance: dg.DagsterInstance) -> None:
    contract = home / "contracts" / "speed.yaml"
    contract.write_text(contract_text("speed", topics="speed", rules=[rule("gaps", "gaps", maxSeconds=1)]))
    with Lakehouse.open(Settings.load()) as lake:
        rows = pa.table({"timestamp_ns": pa.array([0, 9_000_000_000], pa.int64()), "speed": [0.5, 2.0]})
        record_sequence(lake, "drive", {"speed": ("Speed", rows)})
    request = nightly_validation(dg.build_schedule_context(instance=instance))
    assert isinstance(request, dg.RunRequest)
    failed = evaluations(validate(instance, run_config=request.run_config))["drive", "robot_physics"]
    assert not failed.passed
    contract.unlink()
    found = evaluations(validate(instance, run_config=request.run_config))["drive", "robot_physics"]
    assert (found.passed, found.description) == (True, "No rule of this kind applies to this sequence.")
    assert found.metadata["rules"].value == 0


def test_a_sequence_that_cannot_be_read_does_not_keep_others_from_being_judged(
    home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        for name in ("damaged", "later", "whole"):
            record_sequence(lake, name, {"imu": ("IMU", imu_table(imu_rows(200)))})
        (topic,) = lake.sequences.describe("damaged").topics
        damaged = [file for file in home.rglob("*.parquet") if topic.uuid in file.name]
        assert damaged
        for file in damaged:
            file.unlink()
    request = nightly_validation(dg.build_schedule_context(instance=instance))
    assert isinstance(request, dg.RunRequest)
    night = validate(instance, run_config=request.run_config)
    assert not night.success, "what cannot be read is worth a look"
    data = night.failure_data_for_node("validation_of_what_is_named")
    assert data is not None
    assert data.user_failure_data is not None
    assert "1 topics could not be read: 'damaged/imu'" in (data.user_failure_data.description or "")
    assert instance.get_materialized_partitions(REPORTS) == {"damaged", "later", "whole"}
    logged = instance.all_logs(night.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.dagster_event.event_specific_data for entry in logged if entry.dagster_event]
    schema = {each.partition: each for each in found if each.check_name == "schema_and_types"}  # type: ignore[union-attr]
    assert {name: each.passed for name, each in schema.items()} == {"damaged": False, "later": True, "whole": True}  # type: ignore[union-attr]
    assert "could not be read" in str(schema["damaged"].metadata["findings"].value)  # type: ignore[union-attr]
    failed = [row for row in verdict_rows(night.run_id) if row["verdict"] == "failed"]
    assert [(row["topic"], row["rule"]) for row in failed] == [("damaged/imu", "readable")]


def test_a_recording_that_breaks_its_contracts_is_not_committed_if_so_wished(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "refuse")
    properties = [{"name": "acceleration", "quality": [rule("gentle", "magnitude", max=1)]}]
    contract = home / "contracts" / "strict.yaml"
    contract.write_text(contract_text("strict", topics="imu/front", properties=properties))
    job = defs.resolve_job_def("ingest_recordings")
    dropped = home / "drop" / RECORDING.name
    dropped.write_bytes(RECORDING.read_bytes())
    config = {"ops": {"ingestion": {"config": {"recordings": [str(dropped)]}}}}
    refused = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    assert not refused.success
    with Lakehouse.open(Settings.load()) as lake:
        (session,) = lake.sequences.describe("city_drive").sessions
        assert session.state == "open"
    (row,) = [row for row in verdict_rows(refused.run_id) if row["verdict"] == "failed"]
    assert (row["rule"], row["session"]) == ("gentle", str(session.locator))
    entry = metadata_of(instance, "quarantined_recordings")
    reason = entry["reason"]
    assert Path(entry["now at"]).read_bytes() == RECORDING.read_bytes()
    breach = (
        "breaks its contracts: city_drive/imu/front, rule gentle (length of the vector at most 1): 10,399 of 10,399"
    )
    assert breach in reason
    waits = tick(instance, waiting_recordings_sensor)
    (check,) = waits.asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert (check.passed, check.metadata["refused"].value) == (False, 1)
    (row,) = (record.data for record in check.metadata["recordings"].records)
    assert row["sequence"] == "city_drive"
    assert str(row["reason"]).startswith(breach)
    contract.write_text(contract_text("strict", topics="imu/front", version="1.1.0"))
    again = job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    assert again.success
    with Lakehouse.open(Settings.load()) as lake:
        (session,) = lake.sequences.describe("city_drive").sessions
        assert session.state == "finalized"
    (check,) = tick(instance, waiting_recordings_sensor, waits.cursor).asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert check.passed


def check_lineage(content: bytes, run_id: str) -> None:
    """The documented questions tell of the file, of the run that ingested it, and of what its contracts said."""
    text = (Path(__file__).parents[2] / "docs" / "maintenance.md").read_text()
    came_from, judged = [each for each in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "$.recording" in each]
    with Lakehouse.open(Settings.load()) as lake:

        def answer(question: str) -> list[dict[str, Any]]:
            with LakeSql(lake).opened(question) as statement:
                return [row for batch in statement.batches() for row in batch.to_pylist()]

        (source,), (verdict,) = answer(came_from), answer(judged)
    assert source == {
        "sequence": "text",
        "source": "text.mcap",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "decoder": version("mosaico-lakehouse"),
        "ingested_by": f"dagster run {run_id}",
    }
    assert verdict == {
        "sequence": "text",
        "source": "text.mcap",
        "ingested_by": f"dagster run {run_id}",
        "rule": "present",
        "verdict": "failed",
        "observed": "missing: odometry",
        "judged_by": run_id,
    }


def test_a_recording_in_quarantine_is_listed_and_released_by_an_operator(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "quarantine")
    rules = [rule("present", "topics_present", topics=["odometry"])]
    (home / "contracts" / "strict.yaml").write_text(contract_text("strict", scope="sequence", rules=rules))
    path = home / "drop" / "text.mcap"
    write_mcap(path, [string_channel("/text", texts(4))])
    config = {"ops": {"ingestion": {"config": {"recordings": [str(path)]}}}}
    job = defs.resolve_job_def("ingest_recordings")
    content = path.read_bytes()
    ingested = job.execute_in_process(run_config=config, instance=instance)
    assert ingested.success, "uploaded and judged, as it should be"
    assert instance.get_materialized_partitions(dg.AssetKey("uploaded_sessions")) == {"text"}
    assert instance.get_materialized_partitions(sequences.key) == set()
    ticked = tick(instance, quarantined_sessions_sensor)
    entry = metadata_of(instance, "quarantined_sessions")
    assert entry["reason"] == "breaks its contracts: text, rule present (topics odometry): missing: odometry"
    key = dg.AssetCheckKey(quarantined_sessions.key, "no_session_in_quarantine")

    def latest() -> dg.AssetCheckEvaluation:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert record.event is not None
        found = record.event.dagster_event.event_specific_data  # type: ignore[union-attr]
        assert isinstance(found, dg.AssetCheckEvaluation)
        return found

    assert not latest().passed
    ticked = tick(instance, quarantined_sessions_sensor, ticked.cursor)
    assert len(ticked.asset_events) == 1, "a check is about the event that the tick before has reported"
    assert tick(instance, quarantined_sessions_sensor, ticked.cursor).asset_events == []
    release = {"ops": {"commit_in_spite_of_contracts": {"config": {"sessions": [entry["session"]]}}}}
    released = defs.resolve_job_def("release_sessions").execute_in_process(run_config=release, instance=instance)
    assert released.success
    tick(instance, quarantined_sessions_sensor, ticked.cursor)
    assert latest().passed
    tick(instance, finalized_sessions_sensor)
    assert instance.get_materialized_partitions(sequences.key) == {"text"}
    check_lineage(content, ingested.run_id)
    again = defs.resolve_job_def("discard_sessions").execute_in_process(
        run_config={"ops": {"delete_from_quarantine": {"config": {"sessions": [entry["session"], "text:nothing"]}}}},
        instance=instance,
        raise_on_error=False,
    )
    assert not again.success, "what is published is not discarded"
