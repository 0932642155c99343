"""Topics that are created, uploaded and deleted by several processes at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import delete, select

from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.metadata_tables import MetadataTables
from lakehouse.catalog.control_plane.schema import notifications, sequences
from lakehouse.catalog.errors import BadRequestError, LakehouseError, NotFoundError, StateError, StorageError
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.iceberg.tables import TopicTable, TopicTables
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import MAX_TAG_LENGTH, TopicLocator
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.topics import Topics, UploadResources
from lakehouse.catalog.writing.memory_budget import UploadBudget
from lakehouse.catalog.writing.uploads import UploadLimits
from lakehouse.ontology.arrow_iceberg import plan_storage

TIMESTAMP = pa.field("timestamp_ns", pa.int64(), nullable=False)
NUMBERS = pa.schema([TIMESTAMP, pa.field("value", pa.float64())])
TEXTS = pa.schema([TIMESTAMP, pa.field("value", pa.string())])


@pytest.fixture
def lakehouse(tmp_path: Path, database_url: str) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path, db_url=database_url, store_endpoint="")) as opened:
        yield opened


def run_all(*targets: Callable[[], object]) -> list[Exception]:
    """Run all at once; returns what they raised."""
    errors: list[Exception] = []
    barrier = threading.Barrier(len(targets))

    def run(target: Callable[[], object]) -> None:
        barrier.wait()
        try:
            target()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_topics_created_while_their_sequence_or_session_is_deleted_are_there_or_not_found(
    lakehouse: Lakehouse,
) -> None:
    def creation(session_uuid: str, path: str) -> Callable[[], object]:
        return lambda: lakehouse.topics.create(session_uuid, TopicLocator("drive", path), "default", "IMU")

    for number in range(25):
        lakehouse.sequences.create("drive", {})
        session = lakehouse.sessions.create("drive")
        creation(session.uuid, "first")()
        deletions: list[Callable[[], object]] = [lambda: lakehouse.sequences.delete("drive")]
        if number % 2:
            locator = session.locator
            deletions = [
                lambda locator=locator: lakehouse.sessions.delete(locator),  # type: ignore[misc]
                lambda: lakehouse.topics.delete(TopicLocator("drive", "first")),
            ]
        errors = run_all(*(creation(session.uuid, f"topic{n}") for n in range(4)), *deletions)
        assert [error for error in errors if not isinstance(error, NotFoundError)] == []
        if number % 2:
            lakehouse.sequences.delete("drive")


def test_a_tag_too_long_for_the_index_is_refused_and_any_other_accepted(lakehouse: Lakehouse) -> None:
    lakehouse.sequences.create("drive", {})
    session = lakehouse.sessions.create("drive")
    # What no index compresses: every character different, four bytes each.
    longest = "".join(chr(0x20000 + 37 * n) for n in range(MAX_TAG_LENGTH))
    locator = TopicLocator("drive", "imu")
    topic = lakehouse.topics.create(session.uuid, locator, "default", longest)
    with lakehouse.topics.begin_upload(locator, topic, NUMBERS) as upload:
        upload.finish()
    with pytest.raises(BadRequestError, match="ontology tag"):
        lakehouse.topics.create(session.uuid, TopicLocator("drive", "gps"), "default", longest + "x")


class _ReplacedTable(TopicTables):
    """Drops each table right after it was found, and makes one for texts in its place: once."""

    is_replaced = False

    def ensure(self, ontology_tag: str, topic_path: str, plan: Any) -> TopicTable:
        table = super().ensure(ontology_tag, topic_path, plan)
        if not self.is_replaced:
            self.is_replaced = True
            assert self.drop_if_unused(table.identifier)
            assert super().ensure(ontology_tag, topic_path, plan_storage(TEXTS)).identifier == table.identifier
        return table


def test_a_table_that_was_replaced_before_an_upload_claimed_it_is_not_written_to(lakehouse: Lakehouse) -> None:
    tables = _ReplacedTable(lakehouse.database, lakehouse.table_files)
    limits = UploadLimits(row_group=1 << 20, file=1 << 22)
    resources = UploadResources(lakehouse.warehouse, limits, UploadBudget(1 << 24), lakehouse.encoders)
    metadata_tables = MetadataTables(lakehouse.database, lakehouse.table_files)
    deletion = Deletion(lakehouse.database, lakehouse.warehouse, lakehouse.committer, metadata_tables)
    topics = Topics(lakehouse.database, tables, resources, deletion)
    lakehouse.sequences.create("drive", {})
    session = lakehouse.sessions.create("drive")
    locator = TopicLocator("drive", "imu")
    topic = topics.create(session.uuid, locator, "default", "IMU")
    rows = pa.record_batch([pa.array([1, 2]), pa.array([0.5, 1.5])], schema=NUMBERS)
    with topics.begin_upload(locator, topic, NUMBERS) as upload:
        upload.write(rows)
        upload.finish()
    lakehouse.sessions.finalize(session.uuid)
    record = topics.get(locator)
    assert record.table_identifier == "imu.imu_v2"
    assert list(lakehouse.reader.read(record)) == [rows]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_note_on_what_is_just_being_deleted_is_not_found(lakehouse: Lakehouse) -> None:
    lakehouse.sequences.create("drive", {})
    errors: list[Exception] = []

    def note() -> None:
        try:
            lakehouse.notifications.create("drive", "error", "lost")
        except LakehouseError as error:
            errors.append(error)

    with lakehouse.database.transaction() as connection:
        connection.execute(delete(sequences))
        thread = threading.Thread(target=note)
        thread.start()
        thread.join(0.5)
    thread.join()
    assert [type(error) for error in errors] == [NotFoundError]
    with lakehouse.database.snapshot() as connection:
        assert connection.execute(select(notifications)).all() == []


@pytest.mark.parametrize("made_anew", [False, True])
def test_rows_whose_table_another_engine_dropped_are_not_acknowledged(lakehouse: Lakehouse, made_anew: bool) -> None:
    lakehouse.sequences.create("drive", {})
    session = lakehouse.sessions.create("drive")
    locator = TopicLocator("drive", "imu")
    topic = lakehouse.topics.create(session.uuid, locator, "default", "IMU")
    with lakehouse.topics.begin_upload(locator, topic, NUMBERS) as upload:
        upload.write(pa.RecordBatch.from_pylist([{"timestamp_ns": 1, "value": 1.0}], NUMBERS))
        with closing(open_sql_catalog(lakehouse.database, lakehouse.warehouse)) as engine:
            schema = engine.load_table("imu.imu").schema()
            engine.drop_table("imu.imu")
            if made_anew:
                engine.create_table("imu.imu", schema)
        with pytest.raises(StateError, match="was dropped or made anew"):
            upload.finish()
    lakehouse.topics.delete(locator)
    topic = lakehouse.topics.create(session.uuid, locator, "default", "IMU")
    with lakehouse.topics.begin_upload(locator, topic, NUMBERS) as upload:
        upload.write(pa.RecordBatch.from_pylist([{"timestamp_ns": 1, "value": 1.0}], NUMBERS))
        upload.finish()
    lakehouse.sessions.finalize(session.uuid)
    assert sum(batch.num_rows for batch in lakehouse.reader.read(lakehouse.topics.get(locator))) == 1


def test_rows_are_acknowledged_though_their_table_cannot_be_looked_at(
    lakehouse: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse.sequences.create("drive", {})
    session = lakehouse.sessions.create("drive")
    locator = TopicLocator("drive", "imu")
    topic = lakehouse.topics.create(session.uuid, locator, "default", "IMU")

    def unreachable(*_: object) -> bool:
        raise StorageError("the catalog cannot be reached")

    with lakehouse.topics.begin_upload(locator, topic, NUMBERS) as upload, monkeypatch.context() as failing:
        failing.setattr(TopicTables, "is_where_it_was", unreachable)
        upload.write(pa.RecordBatch.from_pylist([{"timestamp_ns": 1, "value": 1.0}], NUMBERS))
        upload.finish()
    lakehouse.sessions.finalize(session.uuid)
    assert sum(batch.num_rows for batch in lakehouse.reader.read(lakehouse.topics.get(locator))) == 1
