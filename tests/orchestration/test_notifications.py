"""Failure is loud: a failed run is told to a real web server, once, with the reason."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.notifications import notifiers
from lakehouse.orchestration.defs.notifications.notifiers import Notice, WebhookNotifier
from lakehouse.orchestration.defs.notifications.sensors import run_failure_notifications
from lakehouse.orchestration.defs.quarantine.checks import quarantined_sessions_sensor
from lakehouse.orchestration.resources import LakehouseResource
from tests.orchestration.dagster_driver import tick
from tests.orchestration.test_sessions_in_dagster import upload

NOTICE = Notice("title", "text", "job", "run", "http://ui/runs/run")


class Receiver(HTTPServer):
    """Answers with the given codes, the last one for ever, and keeps what it is sent."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.received: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        receiver.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(receiver.codes.pop(0) if len(receiver.codes) > 1 else receiver.codes[0])
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from serving(Receiver(200))


def serving(receiver: Receiver) -> Iterator[Receiver]:
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def test_a_failed_run_is_told_with_its_reason_and_a_link(
    embedded_home: Path,
    instance: dg.DagsterInstance,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("LAKEHOUSE_NOTIFY_WEBHOOK", receiver.url)
    monkeypatch.setenv("LAKEHOUSE_DAGSTER_URL", "http://ui:3000")
    caplog.set_level(logging.ERROR, notifiers.__name__)
    (embedded_home / "drop" / "bad.mcap").write_bytes(b"this is no recording")
    config = {"ops": {"ingestion": {"config": {"recordings": [str(embedded_home / "drop" / "bad.mcap")]}}}}
    result = defs.resolve_job_def("ingest_recordings").execute_in_process(
        run_config=config, instance=instance, raise_on_error=False
    )
    assert not result.success
    context = dg.build_run_status_sensor_context(
        sensor_name="run_failure_notifications",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"lakehouse": LakehouseResource()},
    ).for_run_failure()
    run_failure_notifications(context)
    (told,) = receiver.received
    assert told["job"] == "ingest_recordings"
    assert "bad.mcap" in told["text"]
    # The log has it whether or not there is a webhook.
    (line,) = [record for record in caplog.records if record.name == notifiers.__name__]
    assert line.levelno == logging.ERROR
    assert all(text in line.getMessage() for text in ("ingest_recordings", "bad.mcap"))
    assert told["url"] == f"http://ui:3000/runs/{result.run_id}"


def test_sessions_that_come_into_quarantine_are_told_once_those_of_one_look_together(
    embedded_home: Path, instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEHOUSE_NOTIFY_WEBHOOK", receiver.url)
    monkeypatch.setenv("LAKEHOUSE_DAGSTER_URL", "http://ui:3000")
    with Lakehouse.open(Settings.load()) as lake:
        kept = [upload(lake, name, finalize=False).locator for name in ("one", "two")]
        for locator in kept:
            lake.quarantine.put(locator, "too loud")
        ticked = tick(instance, quarantined_sessions_sensor)
        (told,) = receiver.received
        assert told["title"] == "2 sessions were put in quarantine"
        for locator in kept:
            assert f"{locator}: too loud" in told["text"]
        assert told["url"] == "http://ui:3000/assets/quarantined_sessions?view=checks"
        lake.quarantine.release(kept[0])
        ticked = tick(instance, quarantined_sessions_sensor, ticked.cursor)
        tick(instance, quarantined_sessions_sensor, ticked.cursor)
        assert len(receiver.received) == 1, "nothing has come since"


@pytest.mark.parametrize(
    ("codes", "calls", "problem"),
    [((503, 503, 200), 3, None), ((404,), 1, "the webhook answered 404"), ((500,), 3, "the webhook answered 500")],
)
def test_a_webhook_is_tried_again_only_where_that_may_help(
    codes: tuple[int, ...], calls: int, problem: str | None
) -> None:
    for receiver in serving(Receiver(*codes)):
        assert WebhookNotifier(receiver.url, pause_s=0).tell(NOTICE) == problem
        assert len(receiver.received) == calls


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/secret-token", "http://127.0.0.1:x/secret-token", "http://127.0.0.1/secret token"]
)
def test_a_webhook_that_is_not_there_is_reported_without_its_address(url: str) -> None:
    problem = WebhookNotifier(url, pause_s=0).tell(NOTICE)
    assert problem is not None
    assert "secret" not in problem
