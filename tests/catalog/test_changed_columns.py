"""Columns that other engines rename, add, widen, move or drop: topics keep values and names, or say what is wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table.update import AssertTableUUID, RemoveSchemasUpdate
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import DoubleType, IntegerType, LongType, StringType

from lakehouse.catalog.errors import ChangedTableError, DamagedDataError, LakehouseError
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.rebuild.rebuild import rebuild
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.catalog.time_window import TimeWindow
from tests.catalog.scattered_lake import START_NS, ScatteredLake, as_texts

TABLE = "scattered.front"
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("temperature", pa.float32()),
        pa.field("count", pa.int32()),
        pa.field("motion", pa.struct([("x", pa.float64()), ("y", pa.float64())]), nullable=False),
        pa.field("points", pa.list_(pa.struct([("level", pa.float64()), ("name", pa.string())]))),
        pa.field("weights", pa.map_(pa.string(), pa.float32())),
    ]
)
# Files of ours keep their names; files that another engine writes have those of their time.
REWRITTEN = pytest.mark.parametrize("rewritten", [False, True], ids=["files of ours", "files of theirs"])


def drive(first: int, schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """Ten rows whose numbers begin with `first`; of two drives no number is the same."""
    rows = [
        {
            "timestamp_ns": START_NS + (first + number) * 1_000_000,
            "temperature": None if number == 3 else float(first + number),
            "count": first + number,
            "motion": {"x": first + number / 10, "y": -float(first + number)},
            "points": [{"level": float(first + number), "name": f"p{number}"}, {"level": None, "name": None}],
            "weights": [("left", float(first + number))],
        }
        for number in range(10)
    ]
    return pa.RecordBatch.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path) as opened:
        yield opened


@pytest.fixture
def topics(lake: ScatteredLake) -> list[TopicRecord]:
    """Two drives in one table: 0 to 9, and 100 to 109."""
    return [lake.store("low", [drive(0)]), lake.store("high", [drive(100)])]


def change(lake: ScatteredLake, steps: Callable[[UpdateSchema], Any]) -> None:
    with lake.stock_table(TABLE).update_schema(allow_incompatible_changes=True) as update:
        steps(update)


def rewrite(lake: ScatteredLake) -> None:
    """All files anew, as another engine compacts them."""
    overwrite(lake, lake.stock_table(TABLE).scan().to_arrow())


def overwrite(lake: ScatteredLake, rows: pa.Table) -> None:
    table = lake.stock_table(TABLE)
    if len(table.spec().fields) > 1:
        # PyIceberg alone cannot partition by day.
        with table.update_spec() as update:
            update.remove_field("recorded_at_day")
    lake.stock_table(TABLE).overwrite(rows)


def found(lake: ScatteredLake, field: str, operator: str = "$geq", value: Any = 100.0) -> tuple[set[str], int]:
    """Which drives, and how many files were opened for that."""
    explanation = Explanation()
    matches = lake.lakehouse.query({"ontology": {f"Scattered.{field}": {operator: value}}}, explanation)
    return {each.name for each in matches}, explanation.files_opened


def rename_all(update: UpdateSchema) -> None:
    update.rename_column("temperature", "degrees")
    update.rename_column("motion.y", "sideways")
    update.rename_column("motion", "movement")
    update.rename_column("points.element.level", "height")


def widen(update: UpdateSchema) -> None:
    update.update_column("temperature", field_type=DoubleType())
    update.update_column("count", field_type=LongType())


def add_and_move(update: UpdateSchema) -> None:
    update.add_column("label", StringType())
    update.add_column(("motion", "z"), DoubleType())
    update.move_first("weights")
    update.move_after("temperature", "count")
    update.move_first("motion.y")


@REWRITTEN
@pytest.mark.parametrize("steps", [rename_all, widen, add_and_move])
def test_what_was_uploaded_comes_back_and_is_found(
    lake: ScatteredLake, topics: list[TopicRecord], steps: Callable[[UpdateSchema], Any], rewritten: bool
) -> None:
    window = TimeWindow(START_NS + 2_000_000, START_NS + 105_000_000)
    before = [lake.rows(topic) for topic in topics]
    counts = [lake.lakehouse.reader.window_info(topic, window) for topic in topics]
    change(lake, steps)
    if rewritten:
        rewrite(lake)
    assert [lake.rows(topic) for topic in topics] == before
    assert [lake.lakehouse.reader.window_info(topic, window) for topic in topics] == counts
    assert all(batch.schema.equals(SCHEMA, check_metadata=True) for batch in lake.lakehouse.reader.read(topics[0]))
    for field in ("temperature", "count", "motion.x"):
        # Bounds still spare the other drive's file; stock PyIceberg writes none of nested fields.
        assert found(lake, field) == ({"high"}, 2 if rewritten and "." in field else 1), field
    assert found(lake, "points[?].level")[0] == {"high"}
    assert found(lake, "weights.left")[0] == {"high"}
    assert found(lake, "motion.y", "$lt", -100.5)[0] == {"high"}
    assert found(lake, "temperature", "$nex", None)[0] == {"low", "high"}
    assert found(lake, "count", "$eq", 107)[0] == {"high"}


@REWRITTEN
def test_sql_sees_the_names_of_today(lake: ScatteredLake, topics: list[TopicRecord], rewritten: bool) -> None:
    change(lake, rename_all)
    change(lake, widen_renamed)
    if rewritten:
        rewrite(lake)
    columns = 'sum(degrees) AS sum, max(movement.sideways) AS most, count("count") AS number'
    question = f'SELECT {columns} FROM {TABLE} WHERE "count" >= 100'
    with LakeSql(lake.lakehouse).opened(question) as statement:
        assert statement.batches().read_all().to_pylist() == [{"sum": 942.0, "most": -100.0, "number": 10}]
        assert [file.read for file in statement.files] == [1]


def widen_renamed(update: UpdateSchema) -> None:
    update.update_column("degrees", field_type=DoubleType())
    update.update_column("count", field_type=LongType())


def test_a_value_that_the_uploaded_type_cannot_hold_is_told_by_its_column(
    lake: ScatteredLake, topics: list[TopicRecord]
) -> None:
    change(lake, widen)
    rows = lake.stock_table(TABLE).scan().to_arrow()
    position = rows.schema.get_field_index("count")
    overwrite(lake, rows.set_column(position, rows.schema.field("count"), pa.array([3_000_000_000] * len(rows))))
    with pytest.raises(DamagedDataError, match="column 'count'"):
        lake.rows(topics[0])


def test_sql_reads_widened_columns_of_files_from_before(lake: ScatteredLake, topics: list[TopicRecord]) -> None:
    change(lake, widen)
    with LakeSql(lake.lakehouse).opened(f'SELECT sum(temperature), sum("count") FROM {TABLE}') as statement:
        assert list(statement.batches().read_all().to_pylist()[0].values()) == [984.0, 1090]


@REWRITTEN
def test_what_was_dropped_is_null_for_everybody(
    lake: ScatteredLake, topics: list[TopicRecord], rewritten: bool
) -> None:
    change(lake, lambda update: update.delete_column("temperature").delete_column("motion.x"))
    if rewritten:
        rewrite(lake)
    (batch,) = lake.lakehouse.reader.read(topics[1])
    assert batch.schema.equals(SCHEMA)
    assert batch["temperature"].null_count == 10
    assert batch["motion"].to_pylist() == [{"x": None, "y": -float(number)} for number in range(100, 110)]
    assert batch["count"].to_pylist() == list(range(100, 110))
    assert found(lake, "temperature")[0] == set()
    assert found(lake, "motion.x", "$nex", None)[0] == {"low", "high"}
    assert found(lake, "count") == ({"high"}, 1)


@REWRITTEN
def test_what_a_topic_cannot_be_without_is_missed_aloud(
    lake: ScatteredLake, topics: list[TopicRecord], rewritten: bool
) -> None:
    change(lake, lambda update: update.delete_column("motion"))
    if rewritten:
        rewrite(lake)
    with pytest.raises(ChangedTableError, match="column 'motion' was dropped"):
        list(lake.lakehouse.reader.read(topics[0]))
    assert found(lake, "count") == ({"high"}, 1)


def test_a_name_that_went_to_another_column_is_never_taken_for_it(
    lake: ScatteredLake, topics: list[TopicRecord]
) -> None:
    before = lake.rows(topics[1])
    change(lake, lambda update: update.rename_column("count", "tally"))
    change(lake, lambda update: update.add_column("count", IntegerType()))
    assert lake.rows(topics[1]) == before
    assert found(lake, "count")[0] == {"high"}
    rewrite(lake)
    for ask in (lambda: lake.rows(topics[1]), lambda: found(lake, "count")):
        with pytest.raises(ChangedTableError, match="column 'count' may be either of two"):
            ask()


def forget(lake: ScatteredLake) -> None:
    """Leave the current schema only, as engines do that expire snapshots and clean the metadata."""
    table = lake.stock_table(TABLE)
    past = [number for number in table.schemas() if number != table.schema().schema_id]
    removal = RemoveSchemasUpdate(schema_ids=past)
    table.catalog.commit_table(table, (AssertTableUUID(uuid=table.metadata.table_uuid),), (removal,))
    assert len(lake.stock_table(TABLE).schemas()) == 1


def replace_name(update: UpdateSchema) -> None:
    update.rename_column("raw", "raw_old")
    update.rename_column("corrected", "raw")


def swap_names(lake: ScatteredLake) -> None:
    for old, new in (("raw", "other"), ("corrected", "raw"), ("other", "corrected")):
        change(lake, lambda update, old=old, new=new: update.rename_column(old, new))


RAW_SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("raw", pa.float64()),
        pa.field("corrected", pa.float64()),
    ]
)


def raw_drive(first: int) -> pa.RecordBatch:
    """Ten rows with `corrected` 1000 below `raw`, so that bounds of the one never hold the other."""
    values = [float(first + number) for number in range(10)]
    times = [START_NS + (first + number) * 1_000_000 for number in range(10)]
    return pa.RecordBatch.from_arrays(
        [pa.array(times), pa.array(values), pa.array([value - 1000 for value in values])], schema=RAW_SCHEMA
    )


@REWRITTEN
@pytest.mark.parametrize(
    "steps", [lambda lake: change(lake, replace_name), swap_names], ids=["given to another", "swapped"]
)
def test_names_that_changed_places_in_forgotten_schemas_are_never_taken_for_each_other(
    lake: ScatteredLake, steps: Callable[[ScatteredLake], Any], rewritten: bool
) -> None:
    topics = [lake.store("low", [raw_drive(0)]), lake.store("high", [raw_drive(100)])]
    before = [lake.rows(topic) for topic in topics]
    steps(lake)
    if rewritten:
        rewrite(lake)
    forget(lake)
    if rewritten:
        for ask in (
            lambda: lake.rows(topics[1]),
            lambda: found(lake, "raw"),
            lambda: found(lake, "corrected", "$lt", 0),
        ):
            with pytest.raises(ChangedTableError, match="cannot be told which column"):
                ask()
    else:
        assert [lake.rows(topic) for topic in topics] == before
        assert found(lake, "raw")[0] == {"high"}
        assert found(lake, "corrected", "$lt", -950.0)[0] == {"low"}
        assert found(lake, "raw", "$lt", 0.0)[0] == set()
    later = lake.store("later", [raw_drive(200)])
    assert later.table_identifier == f"{TABLE}_v2"
    assert lake.rows(later) == as_texts([raw_drive(200)])


@REWRITTEN
def test_names_that_stayed_are_known_without_the_schemas_of_the_past(
    lake: ScatteredLake, topics: list[TopicRecord], rewritten: bool
) -> None:
    before = [lake.rows(topic) for topic in topics]
    grown = lake.store("grown", [drive(200).append_column("label", pa.array(["a"] * 10))])
    assert grown.table_identifier == TABLE
    change(lake, add_note)
    if rewritten:
        rewrite(lake)
    forget(lake)
    assert [lake.rows(topic) for topic in topics] == before
    assert [batch["label"].to_pylist() for batch in lake.lakehouse.reader.read(grown)] == [["a"] * 10]
    assert found(lake, "count", "$lt", 100) == ({"low"}, 1)
    assert found(lake, "label", "$eq", "a")[0] == {"grown"}
    assert lake.store("later", [drive(300)]).table_identifier == TABLE


def add_note(update: UpdateSchema) -> None:
    update.add_column("note", StringType())


def test_a_column_dropped_and_added_again_begins_anew(lake: ScatteredLake, topics: list[TopicRecord]) -> None:
    change(lake, lambda update: update.delete_column("count"))
    later = lake.store("later", [drive(200)])
    assert later.table_identifier == TABLE
    for _ in range(2):
        assert [each["count"].null_count for each in lake.lakehouse.reader.read(topics[1])] == [10]
        assert [each["count"].null_count for each in lake.lakehouse.reader.read(later)] == [0]
        assert found(lake, "count")[0] == {"later"}
        rewrite(lake)


@pytest.mark.parametrize(
    ("steps", "table"),
    [
        (widen, TABLE),
        (add_and_move, TABLE),
        (rename_all, f"{TABLE}_v2"),
        (lambda update: update.add_column("note", StringType()), f"{TABLE}_v2"),
        (lambda update: update.rename_column("timestamp_ns", "moment"), f"{TABLE}_v2"),
    ],
    ids=["widened", "added and moved", "renamed", "added with another type", "a column of all topics renamed"],
)
def test_later_uploads_go_where_their_columns_are_or_beside(
    lake: ScatteredLake, steps: Callable[[UpdateSchema], Any], table: str
) -> None:
    schema = SCHEMA.append(pa.field("note", pa.float64()))
    lake.store("before", [drive(0)])
    change(lake, steps)
    rows = drive(100).add_column(len(SCHEMA), schema.field("note"), pa.array([0.5] * 10))
    later = lake.store("later", [rows])
    assert later.table_identifier == table
    assert lake.rows(later) == as_texts([rows])
    assert lake.lakehouse.topics.get(lake.store("again", [rows]).locator).table_identifier == table


def test_the_columns_that_tell_whose_a_row_is_have_to_stay(lake: ScatteredLake, topics: list[TopicRecord]) -> None:
    before = lake.rows(topics[0])
    for column in ("sequence", "timestamp_ns"):
        change(lake, lambda update, column=column: update.rename_column(column, "other"))
        for ask in (
            lambda: lake.rows(topics[0]),
            lambda: lake.lakehouse.reader.window_info(topics[0], TimeWindow()),
            lambda: found(lake, "count"),
        ):
            with pytest.raises(ChangedTableError, match=f"'{column}'"):
                ask()
        change(lake, lambda update, column=column: update.rename_column("other", column))
        assert lake.rows(topics[0]) == before
    change(lake, lambda update: update.rename_column("sequence", "other"))
    with pytest.raises(ChangedTableError, match="'sequence'"):
        lake.lakehouse.sequences.delete("low")
    change(lake, lambda update: update.rename_column("other", "sequence"))
    lake.lakehouse.sequences.delete("low")
    assert lake.rows(topics[1])
    assert lake.stock_table(TABLE).scan().to_arrow()["sequence"].unique().to_pylist() == ["high"]


def test_files_written_while_the_time_had_another_name_have_to_be_rewritten(
    lake: ScatteredLake, topics: list[TopicRecord]
) -> None:
    before = lake.rows(topics[0])
    change(lake, lambda update: update.rename_column("timestamp_ns", "moment"))
    rewrite(lake)
    change(lake, lambda update: update.rename_column("moment", "timestamp_ns"))
    with pytest.raises(DamagedDataError, match="has to be rewritten there"):
        lake.rows(topics[0])
    rewrite(lake)
    assert lake.rows(topics[0]) == before


def test_compaction_keeps_what_was_renamed_and_goes_on_with_the_other_tables(lake: ScatteredLake) -> None:
    parts = [drive(first) for first in range(0, 400, 10)]
    front, rear = lake.store("front", parts), lake.store("rear", parts, path="rear")
    lake.store("broken", parts, path="broken")
    before = [lake.rows(topic) for topic in (front, rear)]
    change(lake, rename_all)
    with lake.stock_table("scattered.broken").update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("timestamp_ns", "moment")
    report = lake.compact(compaction_min_files=2)
    assert set(report.work) == {TABLE, "scattered.rear"}
    assert "'timestamp_ns'" in report.left_alone["scattered.broken"]
    assert [lake.rows(topic) for topic in (front, rear)] == before
    assert report.work[TABLE].rows == report.work["scattered.rear"].rows == 400


def test_a_rebuilt_lake_knows_the_columns_too(tmp_path: Path) -> None:
    with ScatteredLake(tmp_path) as lake:
        topics = [lake.store("low", [drive(0)]), lake.store("high", [drive(100)])]
        before = [lake.rows(topic) for topic in topics]
        change(lake, rename_all)
        rewrite(lake)
        lake.store("later", [drive(200)])
    for file in tmp_path.glob("lakehouse.db*"):
        file.unlink()
    with ScatteredLake(tmp_path, may_be_lost=True) as lake:
        rebuild(lake.lakehouse.database, lake.lakehouse.table_files)
        again = [lake.lakehouse.topics.get(topic.locator) for topic in topics]
        assert [lake.rows(topic) for topic in again] == before
        assert found(lake, "temperature")[0] == {"high", "later"}


def test_columns_that_others_add_to_the_metadata_are_kept_and_those_they_take_are_missed(lake: ScatteredLake) -> None:
    topic = lake.store("first", [drive(0)])
    with lake.stock_table("mosaico.sequences").update_schema() as update:
        update.add_column("note", StringType())
    lake.store("doomed", [drive(50)])
    lake.lakehouse.sequences.delete("doomed")
    assert lake.stock_table("mosaico.sequences").scan().to_arrow().select(["sequence", "note"]).to_pylist() == [
        {"sequence": "first", "note": None}
    ]
    with lake.stock_table("mosaico.sequences").update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("user_metadata", "metadata")
    session = lake.begin("second")
    locator = lake.upload(session, [drive(100)])
    with pytest.raises(ChangedTableError, match=r"mosaico\.sequences has no column 'user_metadata'"):
        lake.lakehouse.sessions.finalize(session.uuid)
    with pytest.raises(LakehouseError, match=r"mosaico\.sequences"):
        lake.lakehouse.sequences.delete("first")
    with lake.stock_table("mosaico.sequences").update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("metadata", "user_metadata")
    lake.lakehouse.sessions.finalize(session.uuid)
    assert lake.rows(lake.lakehouse.topics.get(locator)) == as_texts([drive(100)])
    assert lake.rows(topic) == as_texts([drive(0)])
