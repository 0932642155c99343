"""Dagster as operators start it, `dagster dev` with its daemon: what is clicked is worked off, what breaks is told."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from demo.dagster_client import DagsterInstance
from demo.services import HOST, PROJECT, Services
from lakehouse.orchestration.definitions import defs
from tests.orchestration.browser import Ui, chromium_page, watched
from tests.orchestration.conftest import lake_home
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap
from tests.orchestration.test_notifications import Receiver, serving
from tests.processes import free_port
from tests.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
WEBHOOK_TOKEN = "token-of-the-webhook"
RUNS = [f"run_{number}" for number in range(1, 6)]


@dataclass(frozen=True)
class Dev:
    """A running Dagster over a lake to which five recordings are uploaded, none of them committed.

    Attributes:
        crash_file: May name a point at which a process dies.
        receiver: Gets what the webhook is posted.
    """

    home: Path
    url: str
    crash_file: Path
    receiver: Receiver
    instance: dg.DagsterInstance

    def events(self, sequence: str) -> list[dg.AssetMaterialization]:
        """The materializations of `sequences` for one of them."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey("sequences"), asset_partitions=[sequence])
        records = self.instance.fetch_materializations(wanted, limit=10).records
        return [record.asset_materialization for record in records if record.asset_materialization]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with pytest.MonkeyPatch.context() as patch:
        home = lake_home(tmp_path_factory.mktemp("dev"), "", patch)
        (home / "dagster").mkdir()
        (home / "dagster" / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        with dg.DagsterInstance.get() as instance:
            upload(home, instance)
            for receiver in serving(Receiver(200)):
                patch.setenv("LAKEHOUSE_NOTIFY_WEBHOOK", f"{receiver.url}/{WEBHOOK_TOKEN}")
                patch.setenv("LAKEHOUSE_CRASH_FILE", str(home / "crash-at"))
                patch.setenv("LAKEHOUSE_FRESH_TABLES", "string.only_run_1")
                patch.setenv("LAKEHOUSE_FRESHNESS_WINDOW", "60")
                patch.setenv("FRESHNESS_DAEMON_INTERVAL_SECONDS", "5")
                port = free_port()
                with Services(home) as services:
                    services.start_dagster(port)
                    services.wait_until("dagster", DagsterInstance(port).is_ready)
                    yield Dev(home, f"http://{HOST}:{port}", home / "crash-at", receiver, instance)


def upload(home: Path, instance: dg.DagsterInstance) -> None:
    """Upload five recordings; each has a topic that no other has."""
    files = [
        write_mcap(
            home / "drop" / f"{name}.mcap",
            [string_channel("/text", texts(4)), string_channel(f"/only/{name}", texts(4, prefix=name))],
        )
        for name in RUNS
    ]
    config = {"ops": {"ingestion": {"config": {"recordings": [str(file) for file in files]}}}}
    job, only = defs.resolve_job_def("ingest_recordings"), [dg.AssetKey("uploaded_sessions")]
    assert job.execute_in_process(run_config=config, asset_selection=only, instance=instance).success


@pytest.fixture(scope="module")
def ui(dev: Dev) -> Iterator[Ui]:
    with chromium_page() as page, watched(page, dev.url) as watched_page:
        yield watched_page


def test_a_range_of_sequences_is_backfilled_with_a_few_clicks(dev: Dev, ui: Ui) -> None:
    ui.open("assets/sequences?view=partitions", *RUNS)
    ui.page.get_by_role("button", name="Materialize…").click()
    ui.page.get_by_text("Select a partition or create one").click()
    for name in RUNS[:3]:
        ui.page.locator("label", has_text=name).last.click()
    ui.page.keyboard.press("Escape")
    ui.page.get_by_text("3 partitions").first.wait_for()
    ui.keep_picture("dagster-backfill")
    ui.page.get_by_role("button", name="Launch backfill").click()
    assert eventually(lambda: all(map(dev.events, RUNS[:3])), seconds=PATIENCE_S, every=1), (
        "the sequences are committed"
    )
    assert [dev.events(name) for name in RUNS[3:]] == [[], []]
    (backfill,) = dev.instance.get_backfills()
    (run,) = dev.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
    assert run.asset_selection == {dg.AssetKey("sequences")}, "one run for all of them"


def test_a_run_that_is_killed_is_told_and_run_again_and_its_sequence_appears(dev: Dev) -> None:
    dev.crash_file.write_text("commit-event:before")
    write_mcap(dev.home / "drop" / "killed.mcap", [string_channel("/killed", texts(7))])
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    assert eventually(lambda: bool(dev.instance.get_runs(failed)), seconds=PATIENCE_S, every=1), "the run is killed"
    dev.crash_file.unlink()
    (run,) = dev.instance.get_runs(failed)
    assert eventually(lambda: bool(dev.receiver.received), seconds=PATIENCE_S, every=1), "the webhook is called"
    (told,) = dev.receiver.received
    assert (told["job"], told["run_id"]) == ("ingest_recordings", run.run_id)
    assert "SIGKILL" in told["text"]
    assert "It is run again by itself." in told["text"]
    assert told["url"] == f"{dev.url}/runs/{run.run_id}"
    again = dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id}, statuses=[dg.DagsterRunStatus.SUCCESS])
    assert eventually(lambda: bool(dev.instance.get_runs(again)), seconds=PATIENCE_S, every=1), (
        "the run is done by another"
    )
    events = dev.events("killed")
    assert events
    assert {event.metadata["dagster/row_count"].value for event in events} == {7}
    assert len({event.metadata["session"].value for event in events}) == 1, "committed once, whoever tells of it"
    assert "killed" in dev.instance.get_dynamic_partitions("sequences")


def test_a_run_that_failed_by_itself_is_not_run_again(dev: Dev) -> None:
    (dev.home / "drop" / "broken.mcap").write_bytes(b"this is no recording")
    told = len(dev.receiver.received)
    assert eventually(lambda: len(dev.receiver.received) > told, seconds=PATIENCE_S, every=1), "the webhook is called"
    notice = dev.receiver.received[-1]
    assert "broken.mcap" in notice["text"]
    assert "run again" not in notice["text"]
    run = dev.instance.get_run_by_id(notice["run_id"])
    assert run is not None
    assert run.tags["dagster/will_retry"] == "false"


def test_a_table_that_no_longer_moves_is_red(dev: Dev, ui: Ui) -> None:
    def is_red() -> bool:
        ui.open("assets/lake/string/only_run_1", "Freshness policy", "Fails if more than a minute")
        ui.page.wait_for_timeout(4000)
        return ui.page.get_by_text("Failed", exact=True).count() > 0

    assert eventually(is_red, seconds=PATIENCE_S, every=1), "the table is stale"
    ui.keep_picture("dagster-stale")


def test_the_backfill_is_shown_as_done(dev: Dev, ui: Ui) -> None:
    (backfill,) = dev.instance.get_backfills()
    ui.open(f"runs/b/{backfill.backfill_id}", "100% completed", "Succeeded", *RUNS[:3])


def test_nothing_that_dagster_keeps_or_logs_holds_the_address_of_the_webhook(dev: Dev) -> None:
    assert dev.receiver.received
    files = [path for folder in ("dagster", "logs") for path in (dev.home / folder).rglob("*") if path.is_file()]
    assert {"dagster.log", "dagster.yaml"} <= {path.name for path in files}
    assert [path for path in files if WEBHOOK_TOKEN.encode() in path.read_bytes()] == []
