from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import (
    DateType,
    DecimalType,
    DoubleType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
)

from lakehouse.ontology.arrow_iceberg import (
    IncompatibleTableError,
    StoragePlan,
    Verdict,
    evolution,
    parquet_schema,
    plan_storage,
    topic_table_schema,
)
from lakehouse.ontology.evolution import can_widen
from tests.ontology.lake import Lake, read_parquet, scan
from tests.ontology.random_arrow import logical, random_batch

TIMESTAMP = pa.field("timestamp_ns", pa.int64(), nullable=False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def plan_of(*columns: tuple[str, pa.DataType] | pa.Field) -> StoragePlan:
    return plan_storage(pa.schema([TIMESTAMP, *columns]))


def table_schema_of(*columns: tuple[str, pa.DataType]) -> Schema:
    return topic_table_schema(plan_of(*columns))


POSE = pa.struct([("x", pa.float32()), ("n", pa.int16())])
LARGER_POSE = pa.struct([("y", pa.uint64()), ("n", pa.int64()), ("x", pa.float64())])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("x", pa.int8())], [("x", pa.int8())]),
        ([("x", pa.int8()), ("y", pa.int8())], [("y", pa.int8())]),
        ([("x", pa.int8())], [("x", pa.uint16())]),
        ([("x", pa.int64())], [("x", pa.int8())]),
        ([("x", pa.float64())], [("x", pa.float16())]),
        ([("x", pa.uint64())], [("x", pa.decimal128(18, 0))]),
        ([("x", pa.list_(pa.float32(), 9))], [("x", pa.large_list(pa.float32()))]),
        ([("x", pa.string())], [("x", pa.dictionary(pa.int8(), pa.large_string()))]),
        ([("x", pa.timestamp("s", "UTC"))], [("x", pa.timestamp("us", "Asia/Tokyo"))]),
        ([("x", LARGER_POSE)], [("x", POSE)]),
        ([("x", pa.list_(LARGER_POSE))], [("x", pa.list_(POSE, 2))]),
        ([("x", pa.duration("ms"))], [("x", pa.duration("ms"))]),
        ([("x", pa.list_(pa.map_(pa.date64(), POSE)))], [("x", pa.list_(pa.map_(pa.date64(), POSE)))]),
    ],
    ids=str,
)
def test_a_table_holds_equal_fewer_and_narrower_columns_as_it_is(before: list, after: list) -> None:
    table_schema, plan = table_schema_of(*before), plan_of(*after)
    assert evolution(table_schema, plan).verdict is Verdict.COMPATIBLE
    parquet_schema(table_schema, plan)


@pytest.mark.parametrize(
    ("before", "after", "additions", "promotions"),
    [
        ([], [("x", pa.int8())], ["x"], []),
        ([("x", pa.int8())], [("y", POSE), ("x", pa.int8())], ["y"], []),
        ([("x", pa.int32())], [("x", pa.int64())], [], ["x"]),
        ([("x", pa.uint16())], [("x", pa.uint32())], [], ["x"]),
        ([("x", pa.float16())], [("x", pa.float64())], [], ["x"]),
        ([("x", pa.decimal128(5, 2))], [("x", pa.decimal128(9, 2))], [], ["x"]),
        ([("x", POSE)], [("x", LARGER_POSE)], ["x.y"], ["x.n", "x.x"]),
        ([("x", pa.list_(POSE))], [("x", pa.list_(LARGER_POSE))], ["x.element.y"], ["x.element.n", "x.element.x"]),
        (
            [("x", pa.map_(pa.string(), POSE))],
            [("x", pa.map_(pa.string(), LARGER_POSE))],
            ["x.value.y"],
            ["x.value.n", "x.value.x"],
        ),
        ([("x", pa.list_(pa.int8()))], [("x", pa.list_(pa.int64()))], [], ["x.element"]),
        ([("x", pa.map_(pa.string(), pa.int8()))], [("x", pa.map_(pa.string(), pa.int64()))], [], ["x.value"]),
    ],
    ids=str,
)
def test_a_table_grows_by_optional_columns_and_wider_numbers(
    lake: Lake, before: list, after: list, additions: list[str], promotions: list[str]
) -> None:
    old_plan, new_plan = plan_of(*before), plan_of(*after)
    table = lake.create_table(old_plan)
    needed = evolution(table.schema(), new_plan)
    assert needed.verdict is Verdict.NEEDS_UPDATE
    assert [".".join(addition.path) for addition in needed.additions] == additions
    assert sorted(".".join(promotion.path) for promotion in needed.promotions) == promotions
    with pytest.raises(IncompatibleTableError, match="must evolve"):
        parquet_schema(table.schema(), new_plan)

    old_rows = [random_batch(old_plan.arrow_schema, 9, np.random.default_rng(1))]
    new_rows = [random_batch(new_plan.arrow_schema, 9, np.random.default_rng(2))]
    late_rows = [random_batch(old_plan.arrow_schema, 9, np.random.default_rng(3))]
    paths = [lake.append(table, old_plan, old_rows, "a")]
    with table.update_schema() as update:
        needed.apply_to(update)
    table = table.refresh()
    assert evolution(table.schema(), new_plan).verdict is Verdict.COMPATIBLE
    assert evolution(table.schema(), old_plan).verdict is Verdict.COMPATIBLE
    paths += [lake.append(table, new_plan, new_rows, "b"), lake.append(table, old_plan, late_rows, "c")]

    plans = [old_plan, new_plan, old_plan]
    for path, plan, rows in zip(paths, plans, [old_rows, new_rows, late_rows], strict=True):
        assert_rows(plan, [plan.from_storage(batch) for batch in read_parquet(path)], rows)
    for sequence, plan, rows in zip("abc", plans, [old_rows, new_rows, late_rows], strict=True):
        scanned = table.scan(row_filter=f"sequence = '{sequence}'").to_arrow().to_batches()
        assert_rows(plan, [plan.from_storage(batch) for batch in scanned], rows, lenient=True)
    assert sum(batch.num_rows for batch in scan(table)) == 27


def assert_rows(
    plan: StoragePlan, got: list[pa.RecordBatch], rows: list[pa.RecordBatch], lenient: bool = False
) -> None:
    for i, name in enumerate(plan.arrow_schema.names):
        expected = [value for batch in rows for value in logical(batch.column(i), lenient)]
        assert [value for batch in got for value in logical(batch.column(i), lenient)] == expected, name
    assert all(batch.schema.equals(plan.arrow_schema, check_metadata=True) for batch in got)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (pa.int32(), pa.string(), "is string in the upload and int in the table"),
        (pa.string(), pa.binary(), "binary"),
        (pa.int64(), pa.float64(), "double"),
        (pa.float64(), pa.int64(), "long"),
        (pa.int64(), pa.uint64(), "decimal"),
        (pa.bool_(), pa.int8(), "int"),
        (pa.int8(), POSE, "struct"),
        (POSE, pa.int8(), "int"),
        (POSE, pa.list_(POSE), "list"),
        (pa.list_(pa.int8()), pa.map_(pa.string(), pa.int8()), "map"),
        (pa.binary(3), pa.binary(4), r"fixed\[4\]"),
        (pa.decimal128(5, 2), pa.decimal128(9, 3), "decimal"),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), "timestamptz"),
        (pa.date32(), pa.timestamp("us"), "timestamp"),
        (pa.list_(pa.struct([("a", pa.int8())])), pa.list_(pa.struct([("a", pa.string())])), "string"),
        (pa.map_(POSE, pa.int8()), pa.map_(LARGER_POSE, pa.int8()), "map key"),
        (pa.map_(pa.int8(), pa.int8()), pa.map_(pa.int64(), pa.int8()), "long"),
    ],
    ids=str,
)
def test_other_differences_need_another_table(before: pa.DataType, after: pa.DataType, reason: str) -> None:
    table_schema, plan = table_schema_of(("x", before)), plan_of(("x", after))
    found = evolution(table_schema, plan)
    assert found.verdict is Verdict.INCOMPATIBLE
    with pytest.raises(IncompatibleTableError, match=reason) as error:
        parquet_schema(table_schema, plan)
    assert str(error.value) == found.reason


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pa.int64(), pa.timestamp("ns")),
        (pa.timestamp("ns"), pa.int64()),
        (pa.timestamp("ns"), pa.timestamp("ns", "UTC")),
        (pa.timestamp("ns"), pa.duration("ns")),
        (pa.duration("ns"), pa.duration("ms")),
        (pa.time32("s"), pa.time32("ms")),
        (pa.time64("ns"), pa.int8()),
        (pa.date64(), pa.timestamp("ns")),
        (pa.list_(pa.duration("s")), pa.list_(pa.int64())),
        (pa.map_(pa.string(), pa.duration("s")), pa.map_(pa.string(), pa.duration("ms"))),
    ],
    ids=str,
)
def test_numbers_that_count_different_things_never_share_a_column(before: pa.DataType, after: pa.DataType) -> None:
    found = evolution(table_schema_of(("x", before)), plan_of(("x", after)))
    assert found.verdict is Verdict.INCOMPATIBLE
    assert "counts" in (found.reason or "")


def test_a_description_cannot_pass_for_a_unit() -> None:
    text = {"description": "odd [duration in seconds]"}
    plan = plan_of(pa.field("x", pa.int64(), metadata=text), pa.field("y", pa.duration("ms"), metadata=text))
    assert evolution(topic_table_schema(plan), plan).verdict is Verdict.COMPATIBLE
    assert evolution(topic_table_schema(plan), plan_of(("x", pa.int64()))).verdict is Verdict.COMPATIBLE
    assert evolution(topic_table_schema(plan), plan_of(("x", pa.duration("s")))).verdict is Verdict.INCOMPATIBLE


def test_names_that_engines_would_confuse_need_another_table() -> None:
    for before, after in (
        (("Speed", pa.int8()), ("speed", pa.int8())),
        (("s", POSE), ("s", pa.struct([("X", pa.int8())]))),
    ):
        found = evolution(table_schema_of(before), plan_of(after))
        assert found.verdict is Verdict.INCOMPATIBLE
        assert "differs only in case" in (found.reason or "")


def test_a_foreign_table_is_not_written_to() -> None:
    plan = plan_of(("x", pa.int8()))
    good = topic_table_schema(plan)
    without_session = Schema(*(field for field in good.fields if field.name != "session"))
    wrong_time = Schema(
        *(field for field in good.fields if field.name != "recorded_at"),
        NestedField(4, "recorded_at", TimestampType(), required=True),
    )
    demanding = Schema(*good.fields, NestedField(99, "must", StringType(), required=True))
    never_null = Schema(*good.fields[:4], NestedField(5, "x", LongType(), required=True))
    for schema in (without_session, wrong_time, demanding, never_null):
        assert evolution(schema, plan).verdict is Verdict.INCOMPATIBLE


def test_files_take_field_ids_from_the_created_table_and_leave_out_columns_they_lack(lake: Lake) -> None:
    wide = plan_of(("a", pa.int8()), ("s", pa.struct([("p", pa.int8()), ("q", pa.map_(pa.string(), POSE))])))
    narrow = plan_of(("s", pa.struct([("q", pa.map_(pa.string(), pa.struct([("n", pa.int8())])))])))
    table = lake.catalog.create_table(
        "topics.own_ids", Schema(*(topic_table_schema(wide).fields[::-1])), partition_spec=PartitionSpec()
    )
    schema = parquet_schema(table.schema(), narrow)
    assert schema.names == ["sequence", "session", "timestamp_ns", "recorded_at", "s"]

    def assert_ids(field: pa.Field, path: str) -> None:
        assert int(field.metadata[b"PARQUET:field_id"]) == table.schema().find_field(path).field_id, path
        if pa.types.is_struct(field.type):
            for child in field.type:
                assert_ids(child, f"{path}.{child.name}")
        elif pa.types.is_map(field.type):
            assert_ids(field.type.key_field, f"{path}.key")
            assert_ids(field.type.item_field, f"{path}.value")

    for field in schema:
        assert_ids(field, field.name)
    assert [child.name for child in schema.field("s").type] == ["q"]


def test_a_table_with_a_column_type_uploads_never_have_is_incompatible() -> None:
    plan = plan_of(("x", pa.int64()))
    table_schema = Schema(*topic_table_schema(plan).fields[:4], NestedField(5, "x", DateType()))
    assert evolution(table_schema, plan).verdict is Verdict.INCOMPATIBLE


def test_promotions_are_those_of_iceberg_format_v2() -> None:
    assert can_widen(DecimalType(5, 2), DecimalType(9, 2))
    assert not can_widen(DecimalType(9, 2), DecimalType(5, 2))
    assert not can_widen(DateType(), TimestampType())
    assert not can_widen(LongType(), DoubleType())
