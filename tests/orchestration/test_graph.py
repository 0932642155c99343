"""The whole graph as operators see it: who changes it, changes this picture of it on purpose."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.audit_trail import AUDIT_LOG
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.results import VALIDATION_RESULTS
from lakehouse.orchestration.building import build_definitions
from lakehouse.orchestration.defs.tables.assets import tables_in_the_lake
from lakehouse.orchestration.recordings.ingest import ingest_recording
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap

SNAPSHOT = Path(__file__).with_name("graph_snapshot.txt")


@pytest.fixture
def repository(embedded_home: Path) -> dg.RepositoryDefinition:
    """The code location of a lake that holds one recording, and the tables of verdicts and of the audit log."""
    settings = Settings.load()
    with Lakehouse.open(settings) as lake:
        ingest_recording(lake, write_mcap(embedded_home / "a.mcap", [string_channel("/text", texts(4))]))
        lake.system_tables.ensure(VALIDATION_RESULTS)
        lake.system_tables.ensure(AUDIT_LOG)
    return build_definitions(settings, tables_in_the_lake(settings)).get_repository_def()


def picture(repository: dg.RepositoryDefinition) -> str:
    """Assets with group, kind and parents, then checks, jobs, schedules and sensors, a line each."""
    graph = repository.asset_graph
    lines = []
    for node in sorted(graph.asset_nodes, key=lambda node: node.key):
        parents = ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)) or "-"
        shape = "per sequence" if node.partitions_def else "one"
        what = "runs" if node.is_executable else "reported"
        lines.append(f"asset {node.key.to_user_string()} [{node.group_name}] {shape}, {what} <- {parents}")
    lines += sorted(f"check {key.name} of {key.asset_key.to_user_string()}" for key in graph.asset_check_keys)
    lines += sorted(f"job {job.name}" for job in repository.get_all_jobs() if not job.name.startswith("__"))
    lines += sorted(f"schedule {schedule.name} {schedule.cron_schedule}" for schedule in repository.schedule_defs)
    lines += sorted(f"sensor {sensor.name}" for sensor in repository.sensor_defs)
    return "\n".join(lines) + "\n"


def test_the_graph_is_the_one_that_was_agreed_on(repository: dg.RepositoryDefinition, tmp_path: Path) -> None:
    found = picture(repository)
    (tmp_path / "graph.txt").write_text(found)
    assert found == SNAPSHOT.read_text(), f"if this is meant: cp {tmp_path / 'graph.txt'} {SNAPSHOT}"


def test_every_asset_teaches_who_looks_at_it(repository: dg.RepositoryDefinition) -> None:
    for node in repository.asset_graph.asset_nodes:
        assert len(node.description or "") > 60, node.key
        assert node.kinds, node.key
        assert node.owners, node.key


def test_every_job_schedule_and_sensor_says_what_it_does(repository: dg.RepositoryDefinition) -> None:
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for thing in [*jobs, *repository.schedule_defs, *repository.sensor_defs]:
        assert len(thing.description or "") > 40, thing.name


def test_verdicts_come_from_uploads_too_where_recordings_are_judged_before_their_commit(
    embedded_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "refuse")
    settings = Settings.load()
    with Lakehouse.open(settings) as lake:
        lake.system_tables.ensure(VALIDATION_RESULTS)
    graph = build_definitions(settings, tables_in_the_lake(settings)).get_repository_def().asset_graph
    parents = graph.get(dg.AssetKey(["lake", "mosaico", "validation_results"])).parent_keys
    assert parents == {dg.AssetKey("contract_reports"), dg.AssetKey("uploaded_sessions")}


@pytest.mark.parametrize(("window_s", "warns_after_s"), [(60, None), (119, None), (120, 60), (86_400, 43_200)])
def test_every_window_that_is_allowed_gives_a_freshness_policy(
    embedded_home: Path, monkeypatch: pytest.MonkeyPatch, window_s: int, warns_after_s: int | None
) -> None:
    monkeypatch.setenv("LAKEHOUSE_FRESHNESS_WINDOW", str(window_s))
    graph = build_definitions(Settings.load(), []).get_repository_def().asset_graph
    policy = graph.get(dg.AssetKey("sequences")).freshness_policy
    expected = timedelta(seconds=warns_after_s) if warns_after_s else None
    assert policy == dg.FreshnessPolicy.time_window(timedelta(seconds=window_s), expected)


def test_sequences_and_chosen_tables_have_to_keep_moving(embedded_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_FRESH_TABLES", "string.*")
    settings = Settings.load()
    with Lakehouse.open(settings) as lake:
        channels = [string_channel("/text", texts(4)), string_channel("/more", texts(4))]
        ingest_recording(lake, write_mcap(embedded_home / "a.mcap", channels))
    graph = build_definitions(settings, tables_in_the_lake(settings)).get_repository_def().asset_graph
    watched = {node.key.to_user_string() for node in graph.asset_nodes if node.freshness_policy is not None}
    assert watched == {"sequences", "lake/string/text", "lake/string/more"}
