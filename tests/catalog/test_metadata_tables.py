"""Sequences, sessions and topics as Iceberg tables beside the data."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.commits.finalization import Finalization
from lakehouse.catalog.commits.metadata_tables import METADATA_TABLES, MetadataTables
from lakehouse.catalog.control_plane.rows import to_json
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.iceberg.row_changes import FILES_PER_SIZE_CLASS, merge_row_files, stage_merged_rows
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.upkeep import Upkeep
from lakehouse.catalog.records import SessionRecord
from lakehouse.catalog.settings import Settings
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE
SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("value", pa.float64())])
START_NS = 1_700_000_000_123_456_789


@pytest.fixture
def lakehouse(tmp_path: Path, database_url: str, store: dict[str, str]) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path, db_url=database_url, **store)) as opened:
        yield opened


def deletion_through(lakehouse: Lakehouse, tables: MetadataTables) -> Deletion:
    return Deletion(lakehouse.database, lakehouse.warehouse, lakehouse.committer, tables)


def finalization_through(lakehouse: Lakehouse, tables: MetadataTables) -> Finalization:
    return Finalization(lakehouse.database, lakehouse.committer, tables, deletion_through(lakehouse, tables))


def record_session(lakehouse: Lakehouse, sequence: str, *paths: str) -> SessionRecord:
    """An open session whose topics are uploaded."""
    session = lakehouse.sessions.create(sequence)
    for path in paths:
        locator = TopicLocator(sequence, path)
        topic = lakehouse.topics.create(session.uuid, locator, "default", "Floating64", {"place": path})
        batch = pa.record_batch([pa.array([START_NS, START_NS + 1]), pa.array([1.0, 2.0])], schema=SCHEMA)
        with lakehouse.topics.begin_upload(locator, topic, SCHEMA) as upload:
            upload.write(batch)
            upload.finish()
    return session


def finalize_sequence(lakehouse: Lakehouse, sequence: str, *paths: str) -> SessionRecord:
    lakehouse.sequences.create(sequence, {"driver": "ann"})
    session = record_session(lakehouse, sequence, *paths)
    lakehouse.sessions.finalize(session.uuid)
    return session


def stock(lakehouse: Lakehouse, name: str) -> Table:
    return open_sql_catalog(lakehouse.database, lakehouse.warehouse).load_table(f"mosaico.{name}")


def rows(lakehouse: Lakehouse, name: str) -> list[dict[str, Any]]:
    found = stock(lakehouse, name).scan().to_arrow().to_pylist()
    return sorted(found, key=lambda row: next(iter(row.values())))


def names(lakehouse: Lakehouse, name: str) -> list[str]:
    return [next(iter(row.values())) for row in rows(lakehouse, name)]


def test_a_finalized_session_is_described_in_sql(lakehouse: Lakehouse) -> None:
    session = finalize_sequence(lakehouse, "drive", "a", "b")
    (sequence,) = rows(lakehouse, "sequences")
    assert (sequence["sequence"], sequence["user_metadata"]) == ("drive", '{"driver":"ann"}')
    (described,) = rows(lakehouse, "sessions")
    assert described["session"] == str(session.locator)
    assert described["public_uuid"] == session.public_uuid
    record = lakehouse.topics.get(TopicLocator("drive", "b"))
    topic = rows(lakehouse, "topics")[1]
    assert topic["topic"] == "drive/b"
    assert topic["table_identifier"] == record.table_identifier
    assert topic["arrow_schema"] == record.arrow_schema
    assert (topic["row_count"], topic["total_bytes"], topic["uuid"]) == (2, record.total_bytes, record.uuid)
    assert (topic["start_ns"], topic["end_ns"]) == (START_NS, START_NS + 1)
    assert topic["first_at"].timestamp() == pytest.approx(START_NS / 1e9, abs=1e-6)
    for name in ("sequences", "sessions", "topics"):
        assert all(field.doc for field in stock(lakehouse, name).schema().fields)


def test_the_capability_of_a_session_is_in_no_file(lakehouse: Lakehouse) -> None:
    session = finalize_sequence(lakehouse, "drive", "a")
    for file in lakehouse.warehouse.list_files(lakehouse.warehouse.uri):
        assert session.uuid.encode() not in lakehouse.warehouse.read(file.uri)


def test_open_sessions_are_not_shown(lakehouse: Lakehouse) -> None:
    finalize_sequence(lakehouse, "first", "a")
    lakehouse.sequences.create("second", {})
    record_session(lakehouse, "second", "a")
    assert names(lakehouse, "sequences") == ["first"]
    assert names(lakehouse, "topics") == ["first/a"]


def test_a_sequence_is_listed_once_for_all_its_sessions(lakehouse: Lakehouse) -> None:
    lakehouse.sequences.create("drive", {})
    sessions = [record_session(lakehouse, "drive", f"topic{number}") for number in range(6)]
    barrier = threading.Barrier(len(sessions))

    def finalize(session: SessionRecord) -> None:
        barrier.wait()
        lakehouse.sessions.finalize(session.uuid)

    threads = [threading.Thread(target=finalize, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(lakehouse, "sequences") == ["drive"]
    assert names(lakehouse, "sessions") == sorted(str(session.locator) for session in sessions)
    assert names(lakehouse, "topics") == [f"drive/topic{number}" for number in range(6)]


def test_what_is_deleted_goes_from_the_tables_in_the_same_commit(lakehouse: Lakehouse) -> None:
    for name in ("a", "b", "c"):
        finalize_sequence(lakehouse, name, "x", "y")
    second = record_session(lakehouse, "a", "z")
    lakehouse.sessions.finalize(second.uuid)

    lakehouse.topics.delete(TopicLocator("b", "x"))
    assert names(lakehouse, "topics") == ["a/x", "a/y", "a/z", "b/y", "c/x", "c/y"]
    lakehouse.sessions.delete(second.locator)
    assert names(lakehouse, "topics") == ["a/x", "a/y", "b/y", "c/x", "c/y"]
    assert names(lakehouse, "sequences") == ["a", "b", "c"], "a has another session"
    lakehouse.sequences.delete("c")
    assert names(lakehouse, "sequences") == ["a", "b"]
    assert names(lakehouse, "topics") == ["a/x", "a/y", "b/y"]
    assert [row["sequence"] for row in rows(lakehouse, "sessions")] == ["a", "b"]


def test_a_sequence_without_finalized_sessions_is_listed_again_with_the_next(lakehouse: Lakehouse) -> None:
    session = finalize_sequence(lakehouse, "drive", "x")
    lakehouse.sessions.delete(session.locator)
    assert names(lakehouse, "sequences") == []
    lakehouse.sessions.finalize(record_session(lakehouse, "drive", "y").uuid)
    assert names(lakehouse, "sequences") == ["drive"]
    assert names(lakehouse, "topics") == ["drive/y"]


def test_a_name_used_again_shows_the_new_sequence_only(lakehouse: Lakehouse) -> None:
    finalize_sequence(lakehouse, "drive", "x")
    lakehouse.sequences.delete("drive")
    session = finalize_sequence(lakehouse, "drive", "x")
    assert names(lakehouse, "sessions") == [str(session.locator)]


def test_small_files_are_merged_and_rows_survive_deletions(lakehouse: Lakehouse) -> None:
    upkeep = Upkeep(lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings)
    for number in range(30):
        finalize_sequence(lakehouse, f"drive-{number:02}", "x")
        for identifier in METADATA_TABLES:
            document = upkeep.document(identifier)
            assert document is not None
            if upkeep.is_due(document):
                upkeep.maintain(identifier)
    expected = [f"drive-{number:02}" for number in range(30)]
    assert names(lakehouse, "sequences") == expected
    assert len(list(stock(lakehouse, "topics").scan().plan_files())) < 25
    lakehouse.sequences.delete("drive-03")
    assert names(lakehouse, "topics") == [f"{name}/x" for name in expected if name != "drive-03"]
    planned = stock(lakehouse, "topics").scan(row_filter="sequence = 'drive-29'").plan_files()
    assert len(list(planned)) < 5, "files are pruned by the bounds of their rows"


class _Overtaken(MetadataTables):
    """Lets another committer finish between the plan of a commit and the pointers it is staged on."""

    def __init__(self, lakehouse: Lakehouse, overtake: Callable[[], None]) -> None:
        super().__init__(lakehouse.database, lakehouse.table_files)
        self._overtake: list[Callable[[], None]] = [overtake]

    def publish(self, *arguments: Any) -> Any:
        planned = super().publish(*arguments)
        return self._overtaken(planned)

    def retract(self, *arguments: Any) -> Any:
        planned = super().retract(*arguments)
        return self._overtaken(planned)

    def _overtaken(self, planned: Any) -> Any:
        while self._overtake:
            self._overtake.pop()()
        return planned


@pytest.fixture
def rival(lakehouse: Lakehouse) -> Iterator[Lakehouse]:
    """The same lake, as another process sees it that does not wait for its turn."""
    with Lakehouse.open(lakehouse.settings) as opened:
        opened.committer.turns = Turns(opened.database, opened.activity, patience_s=0)
        yield opened


def test_two_processes_that_finalize_the_first_sessions_of_a_sequence_list_it_once(
    lakehouse: Lakehouse, rival: Lakehouse
) -> None:
    lakehouse.sequences.create("drive", {})
    mine, theirs = (record_session(lakehouse, "drive", path) for path in "ab")
    tables = _Overtaken(lakehouse, lambda: rival.sessions.finalize(theirs.uuid))
    finalization_through(lakehouse, tables).finalize(mine.uuid)
    assert names(lakehouse, "sequences") == ["drive"]
    assert names(lakehouse, "topics") == ["drive/a", "drive/b"]


def test_metadata_that_are_replaced_while_another_session_is_finalized_are_published(
    lakehouse: Lakehouse, rival: Lakehouse
) -> None:
    lakehouse.sequences.create("drive", {"driver": "ann"})
    session = record_session(lakehouse, "drive", "a")
    tables = _Overtaken(lakehouse, lambda: rival.sequences.replace_metadata("drive", {"driver": "bob"}))
    finalization_through(lakehouse, tables).finalize(session.uuid)
    (row,) = rows(lakehouse, "sequences")
    assert row["user_metadata"] == '{"driver":"bob"}' == to_json(lakehouse.sequences.get("drive").user_metadata)


def test_a_sequence_stays_listed_while_one_process_finalizes_and_another_deletes(
    lakehouse: Lakehouse, rival: Lakehouse
) -> None:
    first = finalize_sequence(lakehouse, "drive", "a")
    second = record_session(lakehouse, "drive", "b")
    tables = _Overtaken(lakehouse, lambda: rival.sessions.finalize(second.uuid))
    deletion_through(lakehouse, tables).delete_session(first.locator)
    assert names(lakehouse, "sequences") == ["drive"]

    third = record_session(lakehouse, "drive", "c")
    tables = _Overtaken(lakehouse, lambda: rival.sessions.delete(second.locator))
    finalization_through(lakehouse, tables).finalize(third.uuid)
    assert names(lakehouse, "sequences") == ["drive"]
    assert names(lakehouse, "topics") == ["drive/c"]


def test_a_merge_that_a_deletion_overtook_is_given_up(lakehouse: Lakehouse) -> None:
    for number in range(FILES_PER_SIZE_CLASS):
        finalize_sequence(lakehouse, f"drive-{number:02}", "x")
    upkeep = Upkeep(lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings)
    before = upkeep.document("mosaico.topics")
    assert before is not None
    merged = merge_row_files(lakehouse.table_files, before)
    assert merged is not None
    lakehouse.sequences.delete("drive-03")
    after = upkeep.document("mosaico.topics")
    assert after is not None
    assert stage_merged_rows(lakehouse.table_files, "mosaico.topics", after, merged) is None
    assert not lakehouse.warehouse.exists(merged.merged.file_path)
    assert "drive-03/x" not in names(lakehouse, "topics")
