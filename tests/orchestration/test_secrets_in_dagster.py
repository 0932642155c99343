"""What Dagster keeps of runs and ticks, failed ones above all, holds no password, key or token."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import make_url

from demo.services import PROJECT
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.notifications.sensors import run_failure_notifications
from lakehouse.orchestration.resources import LakehouseResource
from tests.orchestration.conftest import lake_home
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap
from tests.processes import free_port
from tests.s3_server import s3_server
from tests.warehouses import environment

PASSWORD = "hunter2-of-the-database"
STORE_KEYS = ("access-key-of-the-store", "secret-key-of-the-store")
WEBHOOK_TOKEN = "token-of-the-webhook"
SECRETS = (PASSWORD, *STORE_KEYS, WEBHOOK_TOKEN)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A Dagster that keeps what it is told below DAGSTER_HOME, event log and the output of runs included."""
    directory = tmp_path / "dagster"
    directory.mkdir()
    (directory / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(directory))
    with dg.DagsterInstance.get() as instance:
        yield instance


def ingest(instance: dg.DagsterInstance, recording: Path) -> dg.ExecuteInProcessResult:
    config = {"ops": {"ingestion": {"config": {"recordings": [str(recording)]}}}}
    job = defs.resolve_job_def("ingest_recordings")
    return job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def test_runs_that_fail_for_want_of_their_store_keep_no_secret(
    tmp_path: Path,
    postgres_url: str,
    kept: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)
    home = lake_home(tmp_path, url, monkeypatch)
    monkeypatch.setenv("LAKEHOUSE_NOTIFY_WEBHOOK", f"http://127.0.0.1:{free_port()}/{WEBHOOK_TOKEN}")
    recordings = [
        write_mcap(home / "drop" / f"{name}.mcap", [string_channel("/text", texts(4, prefix=name))])
        for name in ("works", "fails")
    ]
    with ExitStack() as store:
        server = store.enter_context(s3_server(tmp_path / "store", keys=STORE_KEYS))
        for name, value in environment(server.settings(server.new_bucket())).items():
            monkeypatch.setenv(name, value)
        assert ingest(kept, recordings[0]).success
        store.close()
        failed = ingest(kept, recordings[1])
    assert not failed.success
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_notifications",
        dagster_event=failed.get_run_failure_event(),
        dagster_instance=kept,
        dagster_run=failed.dagster_run,
        resources={"lakehouse": LakehouseResource()},
    ).for_run_failure()
    monkeypatch.setattr("lakehouse.orchestration.defs.notifications.notifiers.time.sleep", lambda seconds: None)
    run_failure_notifications(context)

    written = {path: path.read_bytes() for path in (tmp_path / "dagster").rglob("*") if path.is_file()}
    everything = b"\n".join(written.values()) + caplog.text.encode() + "".join(capfd.readouterr()).encode()
    assert b"the object store does not answer" in everything
    assert b"the webhook cannot be reached" in everything
    assert any("compute_logs" in str(path) for path in written)
    for secret in SECRETS:
        assert secret.encode() not in everything
    # The settings that the run opened the lake with held them all.
    settings = Settings.load()
    assert PASSWORD in settings.database_url
    assert settings.store_secret_key.get_secret_value() in STORE_KEYS
