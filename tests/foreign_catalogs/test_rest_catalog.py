"""Tables in real Iceberg REST catalogs: the same lake, wholly visible or not at all, also after `kill -9`.

What depends on the server runs on both of them; what is about our own steps between the requests on one.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.rest import RestCatalog

from lakehouse.catalog.commits import publication
from lakehouse.catalog.commits.metadata_tables import NOTIFICATIONS, MetadataTables
from lakehouse.catalog.commits.stepwise import commit_stepwise
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.errors import CommitConflictError, ConfigurationError, StateError, StorageError
from lakehouse.catalog.iceberg.rest_changes import requirements
from lakehouse.catalog.iceberg.row_changes import RowChange, stage_rows
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.upkeep import Upkeep
from lakehouse.catalog.rebuild.rebuild import rebuild
from lakehouse.catalog.records import SessionState
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.sql.lake_sql import LakeSql
from tests.foreign_catalogs.foreign_lake import ForeignLake, rows_read
from tests.rebuild.test_rebuild import lose_database, record
from tests.rebuild.visible import differences, served, visible

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rest-catalog")]


def test_a_lake_lives_in_a_rest_catalog_and_survives_its_database(lake: ForeignLake) -> None:
    with served(lake.settings) as (lakehouse, port):
        lakehouse.sequences.create("drive", {"driver": {"name": "ann"}})
        record(lakehouse, "drive", "a", "empty")
        record(lakehouse, "drive", "b")
        lakehouse.sequences.create("doomed", {})
        record(lakehouse, "doomed", "a")
        assert lake.engine_rows("plain.a") == ["doomed"] * 4 + ["drive"] * 4
        lakehouse.sequences.delete("doomed")
        assert lake.engine_rows("plain.a") == ["drive"] * 4
        assert lake.engine_rows("mosaico.sequences") == ["drive"]
        lakehouse.notifications.create("drive", "error", "a note")
        lakehouse.maintenance.run(["plain.a", "mosaico.topics"])
        before = visible(port)
        assert before["rows drive/a"].num_rows == 4
        assert len(before["query 5"]["items"]) == 1
        database = lakehouse.database
    lose_database(lake.settings, database)
    with pytest.raises(ConfigurationError, match="lakehouse rebuild"):
        lake.open()
    with Lakehouse.open(lake.settings, may_be_lost=True) as lakehouse:
        rebuild(lakehouse.database, lakehouse.table_files)
    with served(lake.settings) as (_, port):
        assert differences(before, visible(port)) == []


@pytest.mark.parametrize(
    ("lake", "step"),
    [
        ("reference", "announcement:after"),
        ("reference", "table-commit:after:2"),
        ("nessie", "table-commit:after:2"),
        ("reference", "control-plane-write:before"),
        ("nessie-together", "table-commit:before"),
        ("nessie-together", "table-commit:after"),
    ],
    indirect=["lake"],
)
def test_a_finalize_that_was_killed_is_carried_through_once(lake: ForeignLake, step: str) -> None:
    with lake.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b", finalize=False)
    lake.killed_at(step, "finalize", "drive")
    if lake.together:
        # Whoever reads the tables alone sees all of the session or nothing, before anybody has carried it through.
        rows = [4, 4, 2, 1] if step == "table-commit:after" else [0, 0, 0, 0]
        tables = ("plain.a", "plain.b", "mosaico.topics", "mosaico.sessions")
        assert [len(lake.engine_rows(table)) for table in tables] == rows
    with lake.open() as lakehouse:
        (session,) = lakehouse.recovery.interrupted()
        assert session.state is SessionState.COMMITTING
        # Our doors go on reading the recorded files: all of them, each row once.
        assert [rows_read(lakehouse, "drive", path) for path in "ab"] == [4, 4]
        with pytest.raises(CommitConflictError, match="is being finalized"):
            lakehouse.sequences.delete("drive")
        assert lakehouse.recovery.resume_all() == 1
        assert lakehouse.recovery.interrupted() == []
        assert [rows_read(lakehouse, "drive", path) for path in "ab"] == [4, 4]
    for identifier, count in {"plain.a": 4, "plain.b": 4, "mosaico.topics": 2, "mosaico.sessions": 1}.items():
        assert lake.engine_rows(identifier) == ["drive"] * count
    assert lake.engine_rows("mosaico.sequences") == ["drive"]


@pytest.mark.parametrize(
    ("lake", "step"),
    [("reference", "table-commit:after:2"), ("nessie-together", "table-commit:after")],
    indirect=["lake"],
)
def test_a_deletion_that_was_killed_is_carried_through_before_the_name_is_used_again(
    lake: ForeignLake, step: str
) -> None:
    with lake.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b")
    lake.killed_at(step, "delete", "drive")
    with lake.open() as lakehouse:
        assert lakehouse.sequences.names() == []
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "b")
        assert rows_read(lakehouse, "drive", "b") == 4
        assert lakehouse.recovery.resume_all() == 0
    assert lake.engine_rows("plain.a") == []
    assert lake.engine_rows("plain.b") == ["drive"] * 4
    assert lake.engine_rows("mosaico.topics") == ["drive"]


# The last one takes such a request, but carries it out in steps.
@pytest.mark.parametrize("lake", ["nessie-together", "reference-postgresql", "reference-together"], indirect=True)
def test_two_processes_finalize_at_once_and_a_third_resumes_what_they_do(lake: ForeignLake) -> None:
    with lake.open() as one:
        for name in ("x", "y"):
            one.sequences.create(name, {})
            record(one, name, "a", "b", finalize=False)
        meeting = ("3", str(lake.home / "meeting"))
        work = [lake.start(*each, *meeting) for each in (("finalize", "x"), ("finalize", "y"), ("resume", ""))]
        for process in work:
            assert process.wait(120) == 0, process.written()
        assert one.recovery.interrupted() == []
        assert [rows_read(one, name, path) for name in "xy" for path in "ab"] == [4] * 4
    assert lake.engine_rows("plain.a") == lake.engine_rows("plain.b") == ["x"] * 4 + ["y"] * 4
    assert lake.engine_rows("mosaico.sessions") == ["x", "y"]


def test_of_two_first_commits_to_a_table_one_wins(one_by_one: ForeignLake) -> None:
    with one_by_one.open() as lakehouse:
        files, catalog = lakehouse.table_files, lakehouse.table_files.catalog
        MetadataTables(lakehouse.database, files).ensure()
        with lakehouse.database.snapshot() as connection:
            base = files.document(catalog.locations(connection, [NOTIFICATIONS])[NOTIFICATIONS])
        rows = base.schema.as_arrow().empty_table()
        note = {"resource": "x", "sequence": "x", "notification_type": "error", "message": "", "created_at_ns": 1}
        rows = pa.Table.from_pylist([{**note, "created_at": 0}], schema=rows.schema)
        first, second = (stage_rows(files, NOTIFICATIONS, base, [RowChange("x", append=rows)], {}) for _ in range(2))
        assert first is not None
        assert second is not None
        catalog.commit(None, files, first)
        with pytest.raises(CatalogConflictError):
            catalog.commit(None, files, second)
    assert one_by_one.engine_rows(NOTIFICATIONS) == ["x"]


def test_a_session_that_another_process_concluded_first_is_finalized_for_its_client(
    on_reference: ForeignLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_reference.open() as ours, on_reference.open() as starting:
        # It has waited for its turn long enough.
        starting.committer.turns = Turns(starting.database, starting.activity, patience_s=0)
        ours.sequences.create("drive", {})
        record(ours, "drive", "a", "b", finalize=False)
        (session,) = ours.sequences.describe("drive").sessions

        def overtaken(files: TableFiles, staged: list[StagedTable]) -> None:
            monkeypatch.undo()
            assert starting.recovery.resume_all() == 1
            commit_stepwise(files, staged)

        monkeypatch.setattr(publication, "commit_stepwise", overtaken)
        ours.sessions.finalize(session.uuid)
        with pytest.raises(StateError, match="already finalized"):
            ours.sessions.finalize(session.uuid)
        assert [rows_read(ours, "drive", path) for path in "ab"] == [4, 4]
    assert on_reference.engine_rows("plain.a") == ["drive"] * 4


def test_a_plan_made_before_another_process_announced_and_committed_appends_nothing_twice(
    on_reference: ForeignLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_reference.open() as ours, on_reference.open() as dying:
        dying.committer.turns = Turns(dying.database, dying.activity, patience_s=0)
        ours.sequences.create("drive", {})
        record(ours, "drive", "a", "b", finalize=False)
        (session,) = ours.sequences.describe("drive").sessions
        attempt = ours.committer._attempt

        def die(point: str) -> None:
            if point == "control-plane-write:before":
                raise StorageError("the database is gone")

        def overtaken(plans: Any) -> list[str]:
            # Our plan is made, and has not looked at the tables yet.
            monkeypatch.undo()
            with monkeypatch.context() as patched:
                patched.setattr(publication.crash_points, "reach", die)
                with pytest.raises(StorageError, match="is gone"):
                    dying.sessions.finalize(session.uuid)
            assert on_reference.engine_rows("plain.a") == ["drive"] * 4
            return attempt(plans)

        monkeypatch.setattr(ours.committer, "_attempt", overtaken)
        ours.sessions.finalize(session.uuid)
        assert [rows_read(ours, "drive", path) for path in "ab"] == [4, 4]
    for table, count in {"plain.a": 4, "plain.b": 4, "mosaico.topics": 2, "mosaico.sessions": 1}.items():
        assert on_reference.engine_rows(table) == ["drive"] * count


def test_nobody_waits_for_the_database_while_the_catalog_is_asked(
    on_reference: ForeignLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on_reference.open() as lakehouse, on_reference.open() as other:
        asked: list[str] = []

        def from_another_process(operation: str) -> None:
            # SQLite has one writer: whoever held it now would wait for this one, and this one for him.
            other.sequences.create(f"at-{len(asked)}", {})
            asked.append(operation)

        catalog = type(lakehouse.table_files.catalog)
        for name in ("commit", "create_namespace", "hold"):
            original = getattr(catalog, name)

            def slow(self: Any, *arguments: Any, name: str = name, original: Any = original) -> Any:
                from_another_process(name)
                return original(self, *arguments)

            monkeypatch.setattr(catalog, name, slow)
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a")
        for number in range(8):
            lakehouse.notifications.create("drive", "error", f"note {number}")
        before = len(asked)
        upkeep = Upkeep(lakehouse.database, lakehouse.table_files, lakehouse.committer, lakehouse.settings)
        done = upkeep.maintain(NOTIFICATIONS)
        assert done.row_compactions + done.manifest_merges > 0
        assert set(asked[:before]) == {"commit", "create_namespace"}
        assert set(asked[before:]) == {"commit"}


def test_an_expiry_is_refused_when_the_table_has_moved_since_it_was_chosen(one_by_one: ForeignLake) -> None:
    with one_by_one.open() as lakehouse:
        files = lakehouse.table_files
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a")
        with lakehouse.database.snapshot() as connection:
            base = files.document(files.catalog.locations(connection, ["plain.a"])["plain.a"])
        fields = {**base.fields, "snapshots": []}
        expiry = StagedTable("plain.a", base.metadata_location, base.next_metadata_location(), fields, ())
        # A change that no requirement of the protocol speaks of, as a new tag is one.
        with one_by_one.engine().load_table("plain.a").transaction() as change:
            change.set_properties(owner="somebody")
        with pytest.raises(CatalogConflictError):
            files.catalog.commit(None, files, expiry)
    assert one_by_one.engine_rows("plain.a") == ["drive"] * 4


def test_an_expiry_requires_every_known_tag_and_branch_to_be_where_it_was() -> None:
    refs = {name: {"snapshot-id": number, "type": "tag"} for name, number in (("main", 3), ("training", 2))}
    base: dict[str, Any] = {
        "table-uuid": "a",
        "current-snapshot-id": 3,
        "current-schema-id": 0,
        "refs": refs,
        "snapshots": [{"snapshot-id": number} for number in (1, 2, 3)],
    }
    expiry = list(requirements(base, {**base, "snapshots": base["snapshots"][1:]}))
    asserted = {each["ref"]: each["snapshot-id"] for each in expiry if each["type"] == "assert-ref-snapshot-id"}
    assert asserted == {"main": 3, "training": 2}
    # What only adds goes well beside a tag that somebody moves.
    assert "training" not in str(list(requirements(base, base)))


def test_a_catalog_that_cannot_be_reached_is_told_by_its_setting(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path, db_url="", store_endpoint="", catalog_uri="http://127.0.0.1:9/")
    with pytest.raises(ConfigurationError, match="LAKEHOUSE_CATALOG_URI"):
        Lakehouse.open(settings)


@pytest.mark.parametrize("lake", ["nessie-together"], indirect=True)
def test_a_statement_over_two_tables_sees_a_session_in_both_or_in_none(
    lake: ForeignLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake.open() as lakehouse:
        lakehouse.sequences.create("drive", {})
        record(lakehouse, "drive", "a", "b")
        lakehouse.sequences.create("next", {})
        record(lakehouse, "next", "a", "b", finalize=False)
        (waiting,) = (each.uuid for each in lakehouse.recovery.stale(0))
        original, pending = RestCatalog.load_table, [waiting]

        def between(catalog: RestCatalog, identifier: str) -> Any:
            table = original(catalog, identifier)
            if pending:
                lakehouse.sessions.finalize(pending.pop())
            return table

        monkeypatch.setattr(RestCatalog, "load_table", between)
        question = "SELECT (SELECT count(*) FROM plain.a) AS a, (SELECT count(*) FROM plain.b) AS b"
        with LakeSql(lakehouse).opened(question) as statement:
            assert statement.batches().read_all().to_pylist() == [{"a": 8, "b": 8}]
        assert pending == []
