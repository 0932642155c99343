"""Ingestion as an operator sees it: the drop folder, the partitioned asset, and the job for explicit files."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pyarrow.fs import FileSelector
from rosbags.rosbag2 import StoragePlugin

from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionState
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.definitions import defs
from lakehouse.orchestration.defs.ingestion import assets, batch, sensors
from lakehouse.orchestration.defs.ingestion.batch import Batch
from lakehouse.orchestration.defs.ingestion.outcome import Item, Outcome, items_of
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor, object_store_sensor
from lakehouse.orchestration.defs.ingestion.telling import BatchEvents
from lakehouse.orchestration.landing.place import LandedRecording
from lakehouse.orchestration.landing.places import LandingPlaces
from tests.orchestration import dagster_driver as driver
from tests.orchestration.dagster_driver import ingest, launch, metadata_of
from tests.orchestration.recordings.recording_files import SHARED, texts, write_rosbag2
from tests.s3_server import S3Server
from tests.warehouses import environment as as_environment

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


@pytest.mark.parametrize("year_s", [0, 4_000_000_000])
def test_the_clock_of_the_sender_does_not_matter(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, year_s: int
) -> None:
    monkeypatch.setenv("LAKEHOUSE_LANDING_PREFIX", f"file://{embedded_home}/bucket")
    (embedded_home / "bucket").mkdir()
    for place, sensor in (("drop", drop_folder_sensor), ("bucket", object_store_sensor)):
        (embedded_home / place / "first.mcap").write_bytes(b"never mind")
        first = driver.tick(instance, sensor)
        assert recordings_of(first) == ["first.mcap"]
        path = embedded_home / place / "late.mcap"
        path.write_bytes(b"never mind")
        os.utime(path, (year_s, year_s))
        assert recordings_of(driver.tick(instance, sensor, first.cursor)) == ["late.mcap"]


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
    changed = "the content of 'city_drive.mcap' has changed since"
    assert changed in (home / "drop" / "rejected" / f"{RECORDING.name}.reason.txt").read_text()
    # Where operators look: in what is in quarantine, and in the failure of the run.
    assert changed in metadata_of(instance, "quarantined_recordings")["reason"]
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert changed in str(failure.step_failure_data)
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


def _write_other_recording(path: Path, messages: int = 1) -> None:
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema(name="Note", encoding="jsonschema", data=b'{"type":"object","properties":{}}')
        channel = writer.register_channel(topic="/note", message_encoding="json", schema_id=schema)
        for number in range(1, messages + 1):
            writer.add_message(channel, log_time=number, data=b"{}", publish_time=number)
        writer.finish()


def test_two_thousand_recordings_are_requested_in_bounded_ticks_with_a_small_cursor(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    for number in range(2000):
        (embedded_home / "drop" / f"r{number:04}.mcap").write_bytes(b"tiny")
    cursor, requested, runs = None, [], 0
    for _ in range(4):
        result = tick(instance, cursor)
        cursor = result.cursor
        assert len(recordings_of(result)) == 500
        assert len(cursor or "") < 40_000
        requested += recordings_of(result)
        runs += len(result.run_requests or [])
    assert sorted(requested) == [f"r{number:04}.mcap" for number in range(2000)]
    assert runs == 40
    assert tick(instance, cursor).run_requests == []
    shutil.rmtree(embedded_home / "drop")
    assert len(tick(instance, cursor).cursor or "") < 100


def test_a_directory_moved_in_with_old_files_is_new(embedded_home: Path, instance: dg.DagsterInstance) -> None:
    bag = write_rosbag2(embedded_home / "bag", [("/text", "std_msgs/msg/String", texts(3))], StoragePlugin.MCAP)
    _write_other_recording(embedded_home / "drop" / "first.mcap")
    first = tick(instance)
    bag.rename(embedded_home / "drop" / "bag")
    assert recordings_of(tick(instance, first.cursor)) == ["bag"]


def test_large_recordings_get_runs_of_their_own() -> None:
    sizes = [1, 1, sensors.BYTES_PER_RUN, 1, *[1] * sensors.RECORDINGS_PER_RUN]
    landed = [LandedRecording(f"/drop/{n}.mcap", f"{n}.mcap", size, n) for n, size in enumerate(sizes)]
    assert [len(batch) for batch in sensors.batches(landed)] == [2, 1, sensors.RECORDINGS_PER_RUN, 1]


def test_the_upload_alone_leaves_an_open_session_and_the_commit_alone_finishes_it(
    home: Path, instance: dg.DagsterInstance
) -> None:
    _write_other_recording(home / "drop" / "note.mcap")
    instance.add_dynamic_partitions("sequences", ["note"])
    assert ingest(instance, ["uploaded_sessions"], ["note"]).success
    with Lakehouse.open(Settings.load()) as lake:
        (session,) = lake.sequences.describe("note").sessions
        assert session.state is SessionState.OPEN
        assert instance.get_materialized_partitions(dg.AssetKey("sequences")) == set()
        assert ingest(instance, ["sequences"], ["note"]).success
        assert lake.sequences.describe("note").sessions[0].state is SessionState.FINALIZED
    assert metadata_of(instance, "sequences", "note")["session"] == str(session.locator)
    assert metadata_of(instance, "uploaded_sessions", "note")["source"].endswith("drop/ingested/note.mcap")


def test_a_range_of_sequences_can_be_ingested_again_and_nothing_is_doubled(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    names = ["a", "b", "c"]
    for number, name in enumerate(names):
        _write_other_recording(embedded_home / "drop" / f"{name}.mcap", messages=number + 1)
    assert all(result.success for result in launch(instance, tick(instance)))
    both = ["uploaded_sessions", "sequences"]
    with Lakehouse.open(Settings.load()) as lake:
        before = [str(lake.sequences.describe(name).sessions[0].locator) for name in names]
        assert ingest(instance, both, names).success
        assert [str(lake.sequences.describe(name).sessions[0].locator) for name in names] == before
        assert ingest(instance, both, names, replaces=True).success
        after = [lake.sequences.describe(name) for name in names]
    assert not {str(description.sessions[0].locator) for description in after} & set(before)
    assert [sum(topic.row_count for topic in description.topics) for description in after] == [1, 2, 3]


def test_a_batch_writes_one_event_per_recording_and_asset_and_one_line_of_log(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    for number in range(3):
        _write_other_recording(embedded_home / "drop" / f"{number}.mcap", messages=number + 1)
    (result,) = launch(instance, tick(instance))
    entries = instance.all_logs(result.run_id)
    made = [entry for entry in entries if entry.dagster_event_type is dg.DagsterEventType.ASSET_MATERIALIZATION]
    assert len(made) == 3 * 2
    lines = [entry.user_message for entry in entries if not entry.is_dagster_event]
    assert lines == ["3 recordings: 3 in the lake, 0 refused, 0 to be tried again"]


def test_in_a_range_one_missing_recording_takes_nothing_from_the_others(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    names = ["a", "lost", "c"]
    for number, name in enumerate(["a", "c"]):
        _write_other_recording(embedded_home / "drop" / f"{name}.mcap", messages=number + 1)
    instance.add_dynamic_partitions("sequences", names)
    result = ingest(instance, ["uploaded_sessions", "sequences"], names)
    assert result.success
    assert instance.get_materialized_partitions(dg.AssetKey("sequences")) == {"a", "c"}
    refused = metadata_of(instance, "quarantined_recordings")
    assert (refused["recording"], "not found" in refused["reason"]) == ("lost", True)
    alone = ingest(instance, ["uploaded_sessions", "sequences"], ["lost"])
    assert not alone.success, "a run that achieves nothing is red"


def test_the_same_content_under_another_name_is_reported_and_gets_no_partition(
    embedded_home: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    _write_other_recording(embedded_home / "drop" / "first.mcap")
    cursor = tick(instance)
    launch(instance, cursor)
    _write_other_recording(embedded_home / "drop" / "copy.mcap")
    (result,) = launch(instance, tick(instance, cursor.cursor))
    assert result.success
    assert instance.get_dynamic_partitions("sequences") == ["first"]
    assert "copy.mcap: this very recording is in the lake already, as sequence first" in capfd.readouterr().err
    assert (embedded_home / "drop" / "ingested" / "copy.mcap").exists()


def test_copies_that_land_together_become_one_sequence_in_one_attempt(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    names = [f"{letter}.mcap" for letter in "abcdef"]
    for name in names:
        _write_other_recording(embedded_home / "drop" / name, messages=500)
    (result,) = launch(instance, tick(instance))
    assert result.success
    assert result.retry_attempts_for_node("ingestion") == 0
    with Lakehouse.open(Settings.load()) as lake:
        assert len(lake.sequences.names()) == 1
    assert sorted(path.name for path in (embedded_home / "drop" / "ingested").iterdir()) == names


def test_a_fault_of_one_recording_that_nobody_foresaw_ends_the_run_and_leaves_nothing_half(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        _write_other_recording(embedded_home / "drop" / f"{number}.mcap", messages=number + 1)
    upload = batch.upload_recording

    def fails(lake: Lakehouse, path: Path, **options: Any) -> Any:
        if path.name == "1.mcap":
            raise ArithmeticError("a mistake of the program")
        return upload(lake, path, **options)

    monkeypatch.setattr(batch, "upload_recording", fails)
    (result,) = launch(instance, tick(instance))
    assert not result.success
    committed = instance.get_materialized_partitions(dg.AssetKey("sequences"))
    with Lakehouse.open(Settings.load()) as lake:
        assert set(lake.sequences.names()) == committed
    assert "1" not in committed
    assert (embedded_home / "drop" / "1.mcap").exists(), "it stays for the next run"


@pytest.mark.parametrize("first_is_damaged", [False, True])
def test_recordings_are_told_of_while_one_before_them_takes_long_and_partitions_keep_the_order_of_landing(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, first_is_damaged: bool
) -> None:
    for number in range(4):
        _write_other_recording(embedded_home / "drop" / f"{number}.mcap", messages=number + 1)
        os.utime(embedded_home / "drop" / f"{number}.mcap", (number, number))
    if first_is_damaged:
        (embedded_home / "drop" / "0.mcap").write_bytes(b"no recording")
    upload = batch.upload_recording
    told_before: list[str] = []

    def takes_long(lake: Lakehouse, path: Path, **options: Any) -> Any:
        deadline = time.monotonic() + 60
        while path.name == "0.mcap" and len(told_before) < 3 and time.monotonic() < deadline:
            told_before[:] = instance.get_materialized_partitions(dg.AssetKey("sequences"))
            time.sleep(0.05)
        return upload(lake, path, **options)

    monkeypatch.setattr(batch, "upload_recording", takes_long)
    locations = [str(embedded_home / "drop" / f"{number}.mcap") for number in range(4)]
    config = {"ops": {"ingestion": {"config": {"recordings": locations}}}}
    assert defs.resolve_job_def("ingest_recordings").execute_in_process(run_config=config, instance=instance).success
    assert sorted(told_before) == ["1", "2", "3"]
    there = ["1", "2", "3"] if first_is_damaged else ["0", "1", "2", "3"]
    assert instance.get_dynamic_partitions("sequences") == there
    assert instance.get_materialized_partitions(dg.AssetKey("sequences")) == set(there)


def test_a_batch_that_cannot_tell_what_happened_stops_before_its_lake_is_closed(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    def unheard(*_: Any) -> Any:
        raise ConnectionError("the database of Dagster is away")

    for number in range(8):
        _write_other_recording(embedded_home / "drop" / f"{number}.mcap", messages=2_000)
    with Lakehouse.open(Settings.load()) as lake:
        places = LandingPlaces(Settings.load())
        events = BatchEvents(unheard, unheard, unheard, unheard, unheard)
        items = items_of([str(embedded_home / "drop" / f"{number}.mcap") for number in range(8)], places)
        with pytest.raises(ConnectionError):
            Batch(lake, places, dg.build_op_context(instance=instance).log, events).run(items)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("recording")]
    assert (embedded_home / "drop" / "7.mcap").exists(), "the last ones are not begun"


def test_recordings_of_one_name_in_several_folders_are_counted_each(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = embedded_home / "bucket"
    monkeypatch.setenv("LAKEHOUSE_LANDING_PREFIX", f"file://{prefix}")
    for robot in ("robot1", "robot2"):
        (prefix / robot).mkdir(parents=True)
        (prefix / robot / "run.mcap").write_bytes(b"no recording")
    _write_other_recording(prefix / "robot1" / "whole.mcap")
    (result,) = launch(instance, driver.tick(instance, object_store_sensor))
    lines = [entry.user_message for entry in instance.all_logs(result.run_id) if not entry.is_dagster_event]
    assert "3 recordings: 1 in the lake, 2 refused, 0 to be tried again" in lines


def test_only_transient_errors_are_tried_again_each_time_after_a_longer_wait(
    embedded_home: Path, instance: dg.DagsterInstance
) -> None:
    a = Item("a", "/drop/a.mcap")
    for retry_number, wait_s in ((0, 10), (1, 20), (2, 40)):
        with pytest.raises(dg.RetryRequested) as caught:
            assets.end_run(Outcome(postponed={a: StorageError("full")}), retry_number)
        assert (caught.value.max_retries, caught.value.seconds_to_wait) == (assets.MAX_RETRIES, wait_s)
    with pytest.raises(dg.Failure) as failed:
        assets.end_run(Outcome(refused={a: "damaged"}), 0)
    assert not failed.value.allow_retries
    assets.end_run(Outcome(done=["b"], refused={a: "damaged"}), 0)


def test_a_run_that_is_tried_again_reports_each_recording_once(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "RETRY_AFTER_S", 0)
    drop = embedded_home / "drop"
    _write_other_recording(drop / "first.mcap")
    first = tick(instance)
    launch(instance, first)
    _write_other_recording(drop / "copy.mcap")
    (drop / "damaged.mcap").write_bytes(b"no recording")
    _write_other_recording(drop / "held.mcap", messages=7)
    upload, attempts = batch.upload_recording, []

    def fails_once(lake: Lakehouse, path: Path, **options: Any) -> Any:
        if path.name == "held.mcap" and not attempts:
            attempts.append(path)
            raise StorageError("the disk is full")
        return upload(lake, path, **options)

    monkeypatch.setattr(batch, "upload_recording", fails_once)
    (result,) = launch(instance, tick(instance, first.cursor))
    assert result.success
    assert len(attempts) == 1
    refused = instance.fetch_materializations(dg.AssetKey("quarantined_recordings"), limit=10).records
    metadata = [event.asset_materialization.metadata for event in refused if event.asset_materialization]
    assert [each["recording"].value for each in metadata] == ["damaged.mcap"]
    assert instance.get_materialized_partitions(dg.AssetKey("sequences")) == {"first", "held"}


def test_recordings_below_a_prefix_are_ingested_and_stay_where_they_are(
    embedded_home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = embedded_home / "bucket" / "incoming"
    (prefix / "robot7").mkdir(parents=True)
    _write_other_recording(prefix / "robot7" / "run_1.mcap")
    (prefix / "robot7" / "broken.mcap").write_bytes(b"no recording")
    write_rosbag2(prefix / "robot7" / "bag", [("/text", "std_msgs/msg/String", texts(3))], StoragePlugin.MCAP)
    monkeypatch.setenv("LAKEHOUSE_LANDING_PREFIX", f"file://{prefix}")
    first = driver.tick(instance, object_store_sensor)
    (result,) = launch(instance, first)
    assert result.success
    with Lakehouse.open(Settings.load()) as lake:
        assert lake.sequences.names() == ["robot7_bag", "robot7_run_1"]
    assert (prefix / "robot7" / "run_1.mcap").exists()
    assert metadata_of(instance, "uploaded_sessions", "robot7_run_1")["source"].startswith("file://")
    assert "robot7_broken.mcap.reason.txt" in {path.name for path in (embedded_home / "drop" / "rejected").iterdir()}
    assert driver.tick(instance, object_store_sensor, first.cursor).run_requests == []
    assert ingest(instance, ["uploaded_sessions"], ["robot7_run_1"], replaces=True).success


def test_recordings_in_an_s3_bucket_are_ingested_and_put_aside_on_request(
    embedded_home: Path, instance: dg.DagsterInstance, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    for name, value in as_environment(s3.settings(bucket)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAKEHOUSE_LANDING_PREFIX", f"s3://{bucket}/incoming")
    monkeypatch.setenv("LAKEHOUSE_LANDING_AFTERWARDS", "move")
    store = s3.file_system()
    _write_other_recording(embedded_home / "run_1.mcap")
    for name, content in (("run_1", (embedded_home / "run_1.mcap").read_bytes()), ("bad", b"no recording")):
        with store.open_output_stream(f"{bucket}/incoming/robot7/{name}.mcap") as stream:
            stream.write(content)
    first = driver.tick(instance, object_store_sensor)
    assert sorted(recordings_of(first)) == ["bad.mcap", "run_1.mcap"]
    (result,) = launch(instance, first)
    assert result.success
    found = {
        info.path for info in store.get_file_info(FileSelector(f"{bucket}/incoming", recursive=True)) if info.is_file
    }
    assert found == {
        f"{bucket}/incoming/ingested/robot7/run_1.mcap",
        f"{bucket}/incoming/rejected/robot7/bad.mcap",
        f"{bucket}/incoming/rejected/robot7/bad.mcap.reason.txt",
    }
    assert driver.tick(instance, object_store_sensor, first.cursor).run_requests == []
    assert ingest(instance, ["uploaded_sessions", "sequences"], ["robot7_run_1"], replaces=True).success
