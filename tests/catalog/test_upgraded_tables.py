"""Tables that another engine upgrades to Iceberg format version 3: read as ever, and never written to by halves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakehouse.catalog.errors import ChangedTableError
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.catalog.table_overview import table_overviews
from tests.catalog.scattered_lake import ScatteredLake, as_texts, in_order

TABLE = "scattered.front"


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path) as opened:
        yield opened


def upgrade(lake: ScatteredLake, identifier: str = TABLE, added: dict[str, Any] | None = None) -> None:
    """What an engine does for it: a new metadata file (Iceberg spec, "Row Lineage")."""
    own = lake.lakehouse
    with own.database.snapshot() as connection:
        before = read_pointers(connection, [identifier])[identifier]
    document = own.table_files.document(before)
    fields = {**document.fields, "format-version": 3, "next-row-id": 0}
    if added is not None:
        schema = document.schema_fields
        new = {**schema, "schema-id": schema["schema-id"] + 1, "fields": [*schema["fields"], added]}
        fields |= {"schemas": [*fields["schemas"], new], "current-schema-id": new["schema-id"], "last-column-id": 99}
    after = document.next_metadata_location()
    own.table_files.write_document(after, fields)
    with own.database.transaction() as connection:
        own.table_files.catalog.commit(connection, own.table_files, StagedTable(identifier, before, after, fields, ()))


def stored(lake: ScatteredLake) -> set[str]:
    return {file.uri for file in lake.lakehouse.warehouse.list_files(lake.lakehouse.warehouse.uri)}


def test_rows_are_read_and_found_and_new_uploads_go_beside(lake: ScatteredLake) -> None:
    before = lake.store("before", in_order(count=2))
    rows = lake.rows(before)
    upgrade(lake)
    assert lake.rows(before) == rows
    later = lake.store("later", in_order(count=2))
    assert later.table_identifier == f"{TABLE}_v2"
    assert lake.rows(later) == rows
    assert lake.find({"Scattered.number": {"$eq": 7}}) == {"before", "later"}
    with LakeSql(lake.lakehouse).opened(f"SELECT count(*) AS n FROM {TABLE} WHERE number < 10") as statement:
        assert statement.batches().read_all().to_pylist() == [{"n": 10}]


def test_what_was_on_its_way_is_refused_before_anything_is_written_or_lost(lake: ScatteredLake) -> None:
    lake.store("before", in_order(count=2))
    session = lake.begin("waiting")
    batches = in_order(count=2)
    locator = lake.upload(session, batches)
    upgrade(lake)
    files = stored(lake)
    with pytest.raises(ChangedTableError, match=r"table scattered\.front is in Iceberg format version 3"):
        lake.lakehouse.sessions.finalize(session.uuid)
    assert stored(lake) == files
    assert lake.rows(lake.lakehouse.topics.get(locator)) == as_texts(batches)
    lake.lakehouse.topics.delete(TopicLocator("waiting", "front"))
    lake.upload(session, batches)
    lake.lakehouse.sessions.finalize(session.uuid)
    again = lake.lakehouse.topics.get(locator)
    assert (again.table_identifier, lake.rows(again)) == (f"{TABLE}_v2", as_texts(batches))


def test_an_upload_during_which_the_table_is_upgraded_is_not_acknowledged(lake: ScatteredLake) -> None:
    lake.store("before", in_order(count=2))
    session, locator = lake.begin("drive"), TopicLocator("drive", "front")
    uuid = lake.lakehouse.topics.create(session.uuid, locator, "default", "Scattered")
    batches = in_order(count=2)
    with lake.lakehouse.topics.begin_upload(locator, uuid, batches[0].schema) as upload:
        upload.write(batches[0])
        upgrade(lake)
        with pytest.raises(ChangedTableError, match="format version 3"):
            upload.finish()
    lake.lakehouse.topics.delete(locator)
    lake.upload(session, batches)
    lake.lakehouse.sessions.finalize(session.uuid)
    assert lake.rows(lake.lakehouse.topics.get(locator)) == as_texts(batches)


def test_values_that_a_new_column_has_in_old_rows_are_there_in_sql(lake: ScatteredLake) -> None:
    topic = lake.store("before", in_order(count=2))
    rows = lake.rows(topic)
    upgrade(lake, added={"id": 99, "name": "grade", "required": False, "type": "int", "initial-default": 5})
    with LakeSql(lake.lakehouse).opened(f"SELECT grade, count(*) AS n FROM {TABLE} GROUP BY grade") as statement:
        assert statement.batches().read_all().to_pylist() == [{"grade": 5, "n": len(rows)}]
    assert lake.rows(topic) == rows


def test_columns_of_unknown_types_disturb_nobody(lake: ScatteredLake) -> None:
    topic = lake.store("before", in_order(count=2))
    rows = lake.rows(topic)
    upgrade(lake, added={"id": 99, "name": "anything", "required": False, "type": "variant"})
    assert lake.rows(topic) == rows
    assert lake.find({"Scattered.number": {"$eq": 7}}) == {"before"}
    assert table_overviews(lake.lakehouse)[TABLE].columns == ()
    assert lake.store("later", in_order(count=2)).table_identifier == f"{TABLE}_v2"
    with pytest.raises(ChangedTableError, match=r"scattered\.front has columns of a type"):
        lake.lakehouse.sequences.delete("before")
    assert lake.rows(topic) == rows


def test_deletion_is_refused_and_leaves_everything(lake: ScatteredLake) -> None:
    topic = lake.store("before", in_order(count=2))
    rows = lake.rows(topic)
    upgrade(lake)
    files = stored(lake)
    with pytest.raises(ChangedTableError, match="format version 3"):
        lake.lakehouse.sequences.delete("before")
    assert lake.rows(topic) == rows
    assert stored(lake) == files


def test_maintenance_leaves_it_to_others_and_goes_on(lake: ScatteredLake) -> None:
    front, rear = lake.store("front", in_order()), lake.store("rear", in_order(), path="rear")
    upgrade(lake)
    rows = lake.rows(front)
    report = lake.compact()
    assert "format version 3" in report.left_alone[TABLE]
    assert set(report.work) == {"scattered.rear"}
    own = lake.lakehouse
    assert run_cleanup_cycle(own.database, own.table_files, own.committer, own.settings) is not None
    assert own.maintenance.run([TABLE, "scattered.rear"]).expired_snapshots == 0
    with own.database.snapshot() as connection:
        location = read_pointers(connection, [TABLE])[TABLE]
    assert json.loads(own.warehouse.read(location))["format-version"] == 3
    assert lake.rows(front) == rows
    assert lake.rows(rear) == rows


def test_without_its_own_tables_the_lake_takes_no_session_and_loses_none(lake: ScatteredLake) -> None:
    topic = lake.store("before", in_order(count=2))
    rows = lake.rows(topic)
    upgrade(lake, "mosaico.sessions")
    session = lake.begin("waiting")
    locator = lake.upload(session, in_order(count=2))
    files = stored(lake)
    with pytest.raises(ChangedTableError, match=r"mosaico\.sessions is in Iceberg format version 3"):
        lake.lakehouse.sessions.finalize(session.uuid)
    assert stored(lake) == files
    assert lake.rows(topic) == rows == lake.rows(lake.lakehouse.topics.get(locator))
