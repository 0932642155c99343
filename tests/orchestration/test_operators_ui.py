"""The pages an operator looks at, in a real browser on a real Dagster webserver."""

import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Page

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.contracts.sensors import validation_sensor
from lakehouse.orchestration.defs.ingestion.checks import quarantine_sensor
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.defs.sessions.checks import waiting_recordings_sensor
from lakehouse.orchestration.defs.sessions.sensors import finalized_sessions_sensor
from lakehouse.orchestration.defs.tables.sensors import tables_sensor
from tests.contracts.contract_files import contract_text, rule
from tests.contracts.recordings import imu_rows, imu_table, record_sequence
from tests.orchestration.browser import TIMEOUT_MS, Ui, chromium_page, watched
from tests.orchestration.conftest import lake_home
from tests.orchestration.dagster_driver import launch, tick
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap
from tests.orchestration.test_sessions_in_dagster import age, interrupt, upload
from tests.processes import free_port

PROJECT = Path(__file__).parents[2]
RECORDING = PROJECT / "demo" / "recordings" / "city_drive.mcap"

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A webserver on a lake with one good recording and one that was refused, contracts judged, and retention done."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        home = lake_home(tmp_path_factory.mktemp("lake"), "", monkeypatch)
        dagster_home = home / "dagster"
        dagster_home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", dagster_home)
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
        shutil.copy(RECORDING, home / "drop")
        (home / "drop" / "broken.mcap").write_bytes(RECORDING.read_bytes()[:100])
        with dg.DagsterInstance.get() as instance:
            (result,) = launch(instance, tick(instance, drop_folder_sensor))
            assert result.success
            tick(instance, quarantine_sensor)
            _break_a_contract(instance)
            _retain(instance, home)
            _leave_sessions_open(instance, monkeypatch)
            _refuse(instance, home, monkeypatch)
            assert defs.resolve_job_def("audit_log_care").execute_in_process(instance=instance).success
            tick(instance, tables_sensor(()))
        port = free_port()
        with (home / "webserver.log").open("wb") as log:
            command = [str(Path(sys.executable).with_name("dagster-webserver")), "-h", "127.0.0.1", "-p", str(port)]
            process = subprocess.Popen(
                [*command, "-w", str(PROJECT / "workspace.yaml")], cwd=home, stdout=log, stderr=log
            )
        try:
            _wait_for(f"http://127.0.0.1:{port}/server_info", process, home / "webserver.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with chromium_page() as page:
        yield page


@pytest.fixture
def ui(server: str, browser_page: Page) -> Iterator[Ui]:
    with watched(browser_page, server) as page:
        yield page


def test_the_graph_leads_from_recordings_over_tables_and_contracts_to_what_is_published(ui: Ui) -> None:
    ui.open("asset-groups", "ingestion", "imu", "laser_scan", "contracts", "published", "maintenance")
    ui.keep_picture("dagster-lineage")
    # Larger, so that nodes are drawn with their details, and with their whole names.
    ui.page.set_viewport_size({"width": 1900, "height": 1300})
    ui.open("asset-groups", "ingestion", "published")
    ui.page.get_by_text("ingestion", exact=True).last.click()
    ui.page.get_by_text("uploaded_sessions").first.wait_for(timeout=TIMEOUT_MS)
    ui.page.mouse.move(1200, 700)
    ui.page.mouse.wheel(0, 500)
    for name in ("recordings", "uploaded_sessions", "quarantined_recordings", "unfinished_sessions"):
        ui.page.get_by_text(name).first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-graph")
    ui.page.set_viewport_size({"width": 1500, "height": 900})


def test_a_table_shows_its_columns_with_units_and_its_rows(ui: Ui) -> None:
    ui.open("assets/lake/imu/imu_front", "lake.imu.imu_front", "10,399", "acceleration", "fleet-operations")
    ui.page.get_by_text("[ns since 1970-01-01 UTC]").first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-table")


def test_an_ingested_partition_shows_what_came_of_the_recording(ui: Ui) -> None:
    ui.open(
        "assets/uploaded_sessions?view=partitions&partition=city_drive", "undecoded_messages", "source_files", "20740"
    )
    ui.keep_picture("dagster-partition")


def test_a_refused_recording_is_red_with_its_reason(ui: Ui) -> None:
    ui.open("assets/quarantined_recordings?view=checks", "quarantine_is_empty")
    ui.page.get_by_text("broken.mcap").first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-quarantine")


def test_a_broken_contract_is_a_failed_check_that_names_topic_rule_and_value(ui: Ui) -> None:
    ui.open(
        "assets/contract_reports?view=checks&checkDetail=values", "robot_physics", "whole_sequence", "values_failed"
    )
    ui.page.get_by_text("acceleration_magnitude").first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-contract")


def test_all_sequences_that_fail_are_listed_in_one_check(ui: Ui) -> None:
    ui.open(
        "assets/contract_reports?view=checks&checkDetail=no_sequence_fails",
        "sequences_failing",
        "rules_accepted",
        "for example",
        "trial_2",
    )
    ui.page.get_by_text("acceleration_magnitude").first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-failing")


def test_maintenance_shows_what_it_did_with_counts_before_and_after(ui: Ui) -> None:
    ui.open("assets/maintenance/retention?view=events", "deleted_bytes", "sequences", "trial_1")
    ui.keep_picture("dagster-maintenance")


def test_sessions_that_nobody_ended_are_listed_with_what_became_of_them(ui: Ui) -> None:
    ui.open("assets/unfinished_sessions?view=events", "forgotten_drive", "discarded with everything uploaded to it")
    ui.page.get_by_text(re.compile(r"\d:\d\d [AP]M")).nth(1).click()  # the event before
    for text in ("interrupted_drive", "finalized", "left open: see LAKEHOUSE_STALE_SESSION_POLICY"):
        ui.page.get_by_text(text).first.wait_for(timeout=TIMEOUT_MS)
    ui.keep_picture("dagster-unfinished")


def test_a_recording_refused_for_its_contracts_is_red_where_sessions_wait(ui: Ui) -> None:
    ui.open("assets/unfinished_sessions?view=checks", "no_recording_waits", "refused", "speech, rule long_enough")
    ui.keep_picture("dagster-waiting")


def test_the_sensors_and_jobs_are_listed(ui: Ui) -> None:
    ui.open(
        "locations/lakehouse/sensors", "drop_folder_sensor", "finalized_sessions_sensor", "run_failure_notifications"
    )
    ui.open("locations/lakehouse/jobs", "ingest_recordings", "recover_sessions")


def _break_a_contract(instance: dg.DagsterInstance) -> None:
    """Three samples of one sequence are beyond what an IMU can feel."""
    rows = imu_rows(500)
    rows["ax"][100:103] = 900.0
    with Lakehouse.open(Settings.load()) as lake:
        record_sequence(lake, "trial_2", {"imu/arm": ("IMU", imu_table(rows))})
    (request,) = tick(instance, validation_sensor).run_requests or []
    job = defs.resolve_job_def("validate_recordings")
    assert job.execute_in_process(run_config=request.run_config, instance=instance).success


def _retain(instance: dg.DagsterInstance, home: Path) -> None:
    """A policy that keeps none of the first trials."""
    with Lakehouse.open(Settings.load()) as lake:
        record_sequence(lake, "trial_1", {"imu/arm": ("IMU", imu_table(imu_rows(100)))})
    (home / "retention.yaml").write_text("policies:\n  - {name: first trials, sequences: '*_1', max_bytes: 0 B}\n")
    assert defs.resolve_job_def("retention").execute_in_process(instance=instance).success


def _leave_sessions_open(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """One interrupted in its commit, and a stale one that is first reported, then discarded."""
    with Lakehouse.open(Settings.load()) as lake:
        interrupt(lake, upload(lake, "interrupted_drive", finalize=False))
        age(lake, upload(lake, "forgotten_drive", finalize=False))
    for policy in ("report", "discard"):
        monkeypatch.setenv("LAKEHOUSE_STALE_SESSION_POLICY", policy)
        assert defs.resolve_job_def("recover_sessions").execute_in_process(instance=instance).success
    tick(instance, finalized_sessions_sensor)


def _refuse(instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that is too short for its contract is not committed."""
    rules = [rule("long_enough", "row_count", min=100)]
    (home / "contracts").mkdir(exist_ok=True)
    (home / "contracts" / "speech.yaml").write_text(contract_text("speech", topics="speech", rules=rules))
    write_mcap(home / "drop" / "interview.mcap", [string_channel("/speech", texts(4))])
    monkeypatch.setenv("LAKEHOUSE_CONTRACT_POLICY", "refuse")
    (result,) = launch(instance, tick(instance, drop_folder_sensor))
    assert not result.success
    monkeypatch.delenv("LAKEHOUSE_CONTRACT_POLICY")
    tick(instance, quarantine_sensor)
    tick(instance, waiting_recordings_sensor)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the webserver did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.5)
