"""What happens to sessions elsewhere, as an operator sees it in Dagster: finalized, deleted, interrupted, forgotten."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest

from lakehouse.catalog import audit
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionRecord, SessionState
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.building import build_definitions
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.defs.sessions import sensors
from lakehouse.orchestration.defs.sessions.checks import waiting_recordings_sensor
from lakehouse.orchestration.defs.sessions.commits_of_runs import PATIENCE_S
from lakehouse.orchestration.defs.sessions.sensors import finalized_sessions_sensor, unfinished_sessions_sensor
from lakehouse.orchestration.defs.tables.assets import table_key, tables_in_the_lake
from lakehouse.orchestration.defs.tables.sensors import tables_sensor
from tests.catalog.scattered_lake import ScatteredLake, disordered
from tests.orchestration.dagster_driver import ingest, launch, metadata_of, tick
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap

ROWS = pa.record_batch({"timestamp_ns": pa.array([10, 20, 30], pa.int64()), "value": [1.0, 2.0, 3.0]})


class Webserver(HTTPServer):
    """Answers as Dagster's webserver does when it is asked to load a code location again.

    Attributes:
        answer: What loading ends with; None: an error of the server.
        requests: How often it was asked.
    """

    answer: str | None = None
    requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class WebserverRequest(BaseHTTPRequestHandler):
    server: Webserver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        loaded = {"__typename": self.server.answer, "message": "no such module", "isReloadSupported": True}
        entry = {"__typename": "WorkspaceLocationEntry", "name": "lakehouse", "locationOrLoadError": loaded}
        body = json.dumps({"data": {"reloadRepositoryLocation": entry}}).encode()
        self.send_response(200 if self.server.answer else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def webserver() -> Iterator[Webserver]:
    with Webserver(("127.0.0.1", 0), WebserverRequest) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def upload(
    lake: Lakehouse, sequence: str, *, finalize: bool = True, topic: str = "speed", actor: str = "gateway key 42"
) -> SessionRecord:
    """What a client does through the gateway."""
    with audit.acting_as(actor):
        lake.sequences.create(sequence)
        session = lake.sessions.create(sequence)
        locator = TopicLocator(sequence, topic)
        with lake.topics.begin_upload(
            locator, lake.topics.create(session.uuid, locator, "default", "Speed"), ROWS.schema
        ) as writer:
            writer.write(ROWS)
            writer.finish()
        if finalize:
            lake.sessions.finalize(session.uuid)
    return session


def test_a_session_finalized_by_a_client_appears_in_one_tick_without_a_run(
    home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        session = upload(lake, "by_sdk")
        upload(lake, "still_open", finalize=False)
    result = tick(instance, finalized_sessions_sensor)
    assert result.run_requests == []
    metadata = metadata_of(instance, "sequences", "by_sdk")
    assert (metadata["dagster/row_count"], metadata["session"]) == (3, str(session.locator))
    assert metadata["finalized by"] == "gateway key 42"
    (topic,) = (record.data for record in metadata["topics"].records)
    assert (topic["topic"], topic["rows"], topic["table"]) == ("speed", 3, "lake/speed/speed")
    assert instance.get_dynamic_partitions("sequences") == ["by_sdk"]
    assert tick(instance, finalized_sessions_sensor, result.cursor).asset_events == []


def test_many_sessions_are_reported_in_bounded_ticks_each_once(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "CHANGES_PER_TICK", 3)
    names = [f"s{number}" for number in range(7)]
    with Lakehouse.open(Settings.load()) as lake:
        for name in names:
            upload(lake, name)
    cursor, seen = None, []
    for expected in (3, 3, 1, 0):
        result = tick(instance, finalized_sessions_sensor, cursor)
        cursor = result.cursor
        seen += [event.partition for event in result.asset_events]
        assert len(result.asset_events) == expected
    assert seen == names


def test_what_a_run_has_told_is_not_told_again(home: Path, instance: dg.DagsterInstance) -> None:
    write_mcap(home / "drop" / "told.mcap", [string_channel("/text", texts(4))])
    (run,) = launch(instance, tick(instance, drop_folder_sensor))
    assert run.success
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "by_sdk")
    result = tick(instance, finalized_sessions_sensor)
    assert [event.partition for event in result.asset_events] == ["by_sdk"]
    assert json.loads(result.cursor or "")["awaited"] == []


def test_a_commit_that_its_run_did_not_live_to_tell_is_told_once_when_the_run_has_ended(
    home: Path, instance: dg.DagsterInstance
) -> None:
    run = run_in_progress(instance)
    with Lakehouse.open(Settings.load()) as lake:
        session = upload(lake, "untold", actor=f"dagster run {run.run_id}")
        upload(lake, "by_sdk")
    result = tick(instance, finalized_sessions_sensor)
    assert [event.partition for event in result.asset_events] == ["by_sdk"], "the run may be about to tell"
    result = tick(instance, finalized_sessions_sensor, result.cursor)
    assert result.asset_events == []
    instance.report_run_failed(run)
    result = tick(instance, finalized_sessions_sensor, result.cursor)
    assert [event.partition for event in result.asset_events] == ["untold"]
    metadata = metadata_of(instance, "sequences", "untold")
    assert (metadata["session"], metadata["dagster/row_count"]) == (str(session.locator), 3)
    assert metadata["finalized by"] == f"dagster run {run.run_id}"
    assert instance.get_dynamic_partitions("sequences") == ["by_sdk", "untold"]
    assert tick(instance, finalized_sessions_sensor, result.cursor).asset_events == []


def test_a_commit_is_told_if_its_run_never_ends_or_is_not_known(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = run_in_progress(instance)
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "hangs", actor=f"dagster run {hanging.run_id}")
        upload(lake, "elsewhere", actor="dagster run 11111111-2222-3333-4444-555555555555")
        upload(lake, "deleted", actor=f"dagster run {hanging.run_id}")
        first = tick(instance, finalized_sessions_sensor)
        lake.sequences.delete("deleted")
    assert [event.partition for event in first.asset_events] == ["elsewhere"]
    later = time.time() + PATIENCE_S
    monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: later))
    second = tick(instance, finalized_sessions_sensor, first.cursor)
    assert [event.partition for event in second.asset_events] == ["hangs"]
    assert tick(instance, finalized_sessions_sensor, second.cursor).asset_events == []


def test_a_cursor_from_before_commits_were_awaited_goes_on_where_it_was(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "known")
        cursor = json.loads(tick(instance, finalized_sessions_sensor).cursor or "")
        del cursor["awaited"]
        upload(lake, "fresh")
    result = tick(instance, finalized_sessions_sensor, json.dumps(cursor))
    assert [event.partition for event in result.asset_events] == ["fresh"]


def test_a_deleted_sequence_loses_its_partition(embedded_home: Path, instance: dg.DagsterInstance) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "kept")
        upload(lake, "gone")
        cursor = tick(instance, finalized_sessions_sensor).cursor
        lake.sequences.delete("gone")
        tick(instance, finalized_sessions_sensor, cursor)
    assert instance.get_dynamic_partitions("sequences") == ["kept"]


def test_every_commit_to_a_table_is_reported_with_its_snapshot(home: Path, instance: dg.DagsterInstance) -> None:
    sensor = tables_sensor(())
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "one")
        first = tick(instance, sensor)
        assert metadata_of(instance, table_key("speed.speed"))["dagster/row_count"] == 3
        assert tick(instance, sensor, first.cursor).asset_events == []
        upload(lake, "two")
        second = tick(instance, sensor, first.cursor)
    changed = {event.asset_key.to_user_string() for event in second.asset_events}
    assert changed == {
        f"lake/{name}" for name in ("speed/speed", "mosaico/sequences", "mosaico/sessions", "mosaico/topics")
    }
    metadata = metadata_of(instance, table_key("speed.speed"))
    assert (metadata["dagster/row_count"], metadata["files"]) == (6, 2)
    assert metadata["dagster/table_name"] == "lake.speed.speed"
    assert int(metadata["snapshot_id"]) > 0


def test_only_rows_that_come_keep_a_table_fresh(embedded_home: Path, instance: dg.DagsterInstance) -> None:
    key, sensor = table_key("scattered.front"), tables_sensor(())

    def event(result: dg.SensorResult) -> object:
        (found,) = [each for each in result.asset_events if each.asset_key == key]
        return found

    with ScatteredLake(embedded_home) as scattered:
        scattered.store("one", disordered())
        first = tick(instance, sensor)
        assert isinstance(event(first), dg.AssetMaterialization)
        files = metadata_of(instance, key)["files"]
        assert scattered.compact().total.files_replaced > 0
        compacted = tick(instance, sensor, first.cursor)
        observed = event(compacted)
        assert isinstance(observed, dg.AssetObservation), "the same rows in other files"
        assert observed.metadata["files"].value < files
        scattered.store("two", disordered())
        scattered.lakehouse.sequences.delete("one")
        grown = tick(instance, sensor, compacted.cursor)
        assert isinstance(event(grown), dg.AssetMaterialization), "rows came before others went"
        scattered.lakehouse.sequences.delete("two")
        emptied = event(tick(instance, sensor, grown.cursor))
    assert isinstance(emptied, dg.AssetObservation)
    assert emptied.metadata["dagster/row_count"].value == 0


def test_a_reload_that_failed_is_asked_for_again_without_another_commit(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, webserver: Webserver
) -> None:
    monkeypatch.setenv("LAKEHOUSE_DAGSTER_URL", webserver.url)
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "one")
    cursor, asked, events = None, [], []
    for answer in (None, "PythonError", "RepositoryLocation", "RepositoryLocation"):
        webserver.answer = answer
        result = tick(instance, tables_sensor(()), cursor)
        cursor = result.cursor
        asked.append(webserver.requests)
        events.append(len(result.asset_events))
    assert asked == [1, 2, 3, 3], "until it has worked, and not once more"
    assert events[0] > 0
    assert events[1:] == [0, 0, 0], "a commit is reported once, whatever becomes of the reload"


def test_new_tables_get_their_place_in_the_graph_when_the_location_is_loaded_again(embedded_home: Path) -> None:
    settings = Settings.load()
    assert tables_in_the_lake(settings) == []
    with Lakehouse.open(settings) as lake:
        upload(lake, "one")
    graph = build_definitions(settings, tables_in_the_lake(settings)).get_repository_def().asset_graph
    node = graph.get(table_key("speed.speed"))
    assert node.group_name == "speed"
    assert node.parent_keys == {dg.AssetKey("sequences")}
    columns = {column.name: column for column in node.metadata["dagster/column_schema"].columns}
    assert list(columns) == ["sequence", "session", "timestamp_ns", "recorded_at", "value"]
    assert "ns since 1970" in columns["timestamp_ns"].description


def test_a_lake_that_cannot_be_reached_still_gives_a_page(embedded_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOSAICOD_DB_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    assert tables_in_the_lake(Settings.load()) == []


def test_an_interrupted_session_is_finished_by_the_recovery_job(home: Path, instance: dg.DagsterInstance) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        session = upload(lake, "halfway", finalize=False)
        assert tick(instance, unfinished_sessions_sensor).run_requests == []
        interrupt(lake, session)
        request = tick(instance, unfinished_sessions_sensor)
        (result,) = launch_recovery(instance, request)
        assert result.success
        assert lake.sequences.describe("halfway").sessions[0].state is SessionState.FINALIZED
    (row,) = (record.data for record in metadata_of(instance, "unfinished_sessions")["sessions"].records)
    assert (row["session"], row["outcome"]) == (str(session.locator), "finalized")


def test_a_session_that_can_never_be_finished_is_tried_ever_more_rarely_up_to_once_an_hour(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_800_000_000]
    monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: clock[0]))
    with Lakehouse.open(Settings.load()) as lake:
        interrupt(lake, upload(lake, "lost", finalize=False))
        result = tick(instance, unfinished_sessions_sensor)
        assert len(result.run_requests or []) == 1
        for pause_s in (60, 120, 240, 480, 960, 1920, 3600, 3600):
            clock[0] += pause_s - 1
            result = tick(instance, unfinished_sessions_sensor, result.cursor)
            assert result.run_requests == [], f"before {pause_s} s are over"
            clock[0] += 1
            result = tick(instance, unfinished_sessions_sensor, result.cursor)
            assert len(result.run_requests or []) == 1, f"after {pause_s} s"
        other = upload(lake, "fresh", finalize=False)
        interrupt(lake, other)
    fresh = tick(instance, unfinished_sessions_sensor, result.cursor)
    assert named_in(fresh) == [[str(other.locator)]], "another one does not wait for it"
    assert tick(instance, unfinished_sessions_sensor, fresh.cursor).run_requests == []


def test_a_recovery_run_tries_only_what_is_due_and_lists_the_rest(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        first = upload(lake, "first", finalize=False)
        interrupt(lake, first)
        cursor = tick(instance, unfinished_sessions_sensor).cursor
        second = upload(lake, "second", finalize=False)
        interrupt(lake, second)
        request = tick(instance, unfinished_sessions_sensor, cursor)
        assert named_in(request) == [[str(second.locator)]]
        (result,) = launch_recovery(instance, request)
        assert result.success, "what waits is no failure"
        states = [lake.sequences.describe(name).sessions[0].state for name in ("first", "second")]
        assert states == [SessionState.COMMITTING, SessionState.FINALIZED]
        rows = [record.data for record in metadata_of(instance, "unfinished_sessions")["sessions"].records]
        assert {row["session"]: row["outcome"] for row in rows} == {
            str(first.locator): "could not be finalized before; tried again after a pause",
            str(second.locator): "finalized",
        }
        by_hand = defs.resolve_job_def("recover_sessions").execute_in_process(instance=instance)
        assert by_hand.success
        assert lake.sequences.describe("first").sessions[0].state is SessionState.FINALIZED


def test_what_is_uploaded_and_left_is_a_failed_check_until_it_is_committed(
    home: Path, instance: dg.DagsterInstance
) -> None:
    write_mcap(home / "drop" / "left.mcap", [string_channel("/text", texts(4))])
    config = {"ops": {"ingestion": {"config": {"recordings": [str(home / "drop" / "left.mcap")]}}}}
    uploaded = defs.resolve_job_def("ingest_recordings").execute_in_process(
        run_config=config, asset_selection=[dg.AssetKey("uploaded_sessions")], instance=instance
    )
    assert uploaded.success
    with Lakehouse.open(Settings.load()) as lake:
        upload(lake, "of_a_client", finalize=False)
        (session,) = lake.sequences.describe("left").sessions
        first = tick(instance, waiting_recordings_sensor)
        assert [event.passed for event in evaluations(first)] == [True], "a run may be about to commit it"
        for each in (session, lake.sequences.describe("of_a_client").sessions[0]):
            age(lake, each)
    second = tick(instance, waiting_recordings_sensor, first.cursor)
    (event,) = evaluations(second)
    assert not event.passed
    (row,) = (record.data for record in event.metadata["recordings"].records)
    assert (row["sequence"], row["reason"]) == (
        "left",
        "nobody has committed it: materialize `sequences` for this partition",
    )
    assert tick(instance, waiting_recordings_sensor, second.cursor).asset_events == []
    assert ingest(instance, ["sequences"], ["left"]).success
    third = tick(instance, waiting_recordings_sensor, second.cursor)
    assert [event.passed for event in evaluations(third)] == [True]


def evaluations(result: dg.SensorResult) -> list[dg.AssetCheckEvaluation]:
    return [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]


@pytest.mark.parametrize("cursor", [None, "[]", '["lost:1"]', "{", '{"interrupted": 3}'])
def test_a_cursor_of_another_version_begins_anew(
    embedded_home: Path, instance: dg.DagsterInstance, cursor: str | None
) -> None:
    with Lakehouse.open(Settings.load()) as lake:
        interrupt(lake, upload(lake, "halfway", finalize=False))
    assert len(tick(instance, unfinished_sessions_sensor, cursor).run_requests or []) == 1


@pytest.mark.parametrize(("policy", "is_left"), [("report", True), ("discard", False)])
def test_a_stale_session_is_reported_once_or_discarded(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, policy: str, is_left: bool
) -> None:
    monkeypatch.setenv("LAKEHOUSE_STALE_SESSION_POLICY", policy)
    with Lakehouse.open(Settings.load()) as lake:
        session = upload(lake, "forgotten", finalize=False)
        assert tick(instance, unfinished_sessions_sensor).run_requests == []
        age(lake, session)
        request = tick(instance, unfinished_sessions_sensor)
        (result,) = launch_recovery(instance, request)
        assert result.success
        assert bool(lake.sequences.describe("forgotten").sessions) == is_left
    assert metadata_of(instance, "unfinished_sessions")["count"] == 1
    assert tick(instance, unfinished_sessions_sensor, request.cursor).run_requests == []


def launch_recovery(instance: dg.DagsterInstance, request: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
    job = defs.resolve_job_def("recover_sessions")
    return [
        job.execute_in_process(instance=instance, run_config=each.run_config) for each in request.run_requests or []
    ]


def named_in(request: dg.SensorResult) -> list[list[str]]:
    """The interrupted sessions that each run is to try."""
    return [
        each.run_config["ops"]["end_unfinished_sessions"]["config"]["interrupted"]
        for each in request.run_requests or []
    ]


def run_in_progress(instance: dg.DagsterInstance) -> dg.DagsterRun:
    job = defs.resolve_job_def("ingest_recordings")
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)


def interrupt(lake: Lakehouse, session: SessionRecord) -> None:
    """What a process leaves that is killed between announcing a commit and making it."""
    from sqlalchemy import update

    from lakehouse.catalog.control_plane.schema import sessions

    with lake.database.transaction() as connection:
        connection.execute(
            update(sessions)
            .where(sessions.c.id == session.id)
            .values(state=SessionState.COMMITTING, completed_at_ns=time.time_ns())
        )


def age(lake: Lakehouse, session: SessionRecord) -> None:
    """Make everything about a session two days old."""
    from sqlalchemy import update

    from lakehouse.catalog.control_plane.schema import sessions, topics

    past_ns = time.time_ns() - 2 * 86_400 * 1_000_000_000
    with lake.database.transaction() as connection:
        connection.execute(update(sessions).where(sessions.c.id == session.id).values(created_at_ns=past_ns))
        connection.execute(
            update(topics)
            .where(topics.c.session_id == session.id)
            .values(created_at_ns=past_ns, completed_at_ns=past_ns)
        )
