import pyarrow as pa
import pytest
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from lakehouse.ontology.arrow_iceberg import UnsupportedTypeError, iceberg_payload_schema, plan_storage
from lakehouse.ontology.storage_types import MAX_FIELDS, MAX_NESTING_DEPTH

TIMESTAMP = pa.field("timestamp_ns", pa.int64(), nullable=False)


def schema_of(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([TIMESTAMP, *columns])


@pytest.mark.parametrize(
    ("arrow_type", "stored"),
    [
        (pa.bool_(), BooleanType()),
        (pa.int8(), IntegerType()),
        (pa.int16(), IntegerType()),
        (pa.int32(), IntegerType()),
        (pa.uint8(), IntegerType()),
        (pa.uint16(), IntegerType()),
        (pa.int64(), LongType()),
        (pa.uint32(), LongType()),
        (pa.uint64(), DecimalType(20, 0)),
        (pa.float16(), FloatType()),
        (pa.float32(), FloatType()),
        (pa.float64(), DoubleType()),
        (pa.string(), StringType()),
        (pa.large_string(), StringType()),
        (pa.string_view(), StringType()),
        (pa.binary(), BinaryType()),
        (pa.large_binary(), BinaryType()),
        (pa.binary_view(), BinaryType()),
        (pa.binary(4), FixedType(4)),
        (pa.binary(0), BinaryType()),
        (pa.date32(), DateType()),
        (pa.date64(), LongType()),
        (pa.time32("s"), LongType()),
        (pa.time64("us"), LongType()),
        (pa.time64("ns"), LongType()),
        (pa.duration("ms"), LongType()),
        (pa.timestamp("s"), TimestampType()),
        (pa.timestamp("ms", "Asia/Tokyo"), TimestamptzType()),
        (pa.timestamp("us", "UTC"), TimestamptzType()),
        (pa.timestamp("ns", "UTC"), LongType()),
        (pa.decimal32(5, 2), DecimalType(5, 2)),
        (pa.decimal256(38, 3), DecimalType(38, 3)),
        (pa.decimal128(3, -2), DecimalType(5, 0)),
        (pa.decimal128(2, 6), DecimalType(6, 6)),
        (pa.dictionary(pa.int8(), pa.uint64()), DecimalType(20, 0)),
    ],
    ids=str,
)
def test_a_type_is_stored_where_all_its_values_fit(arrow_type: pa.DataType, stored: IcebergType) -> None:
    iceberg = iceberg_payload_schema(plan_storage(schema_of(("x", arrow_type))))
    assert iceberg.find_field("x").field_type == stored
    assert iceberg.find_field("x").optional


@pytest.mark.parametrize(
    "arrow_type",
    [
        pa.null(),
        pa.month_day_nano_interval(),
        pa.decimal256(39, 0),
        pa.decimal128(38, -1),
        pa.struct([]),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.sparse_union([pa.field("a", pa.int8())]),
        pa.run_end_encoded(pa.int32(), pa.int8()),
        pa.uuid(),
        pa.bool8(),
        pa.fixed_shape_tensor(pa.int8(), [2]),
        pa.dictionary(pa.int8(), pa.string(), ordered=True),
        pa.dictionary(pa.int8(), pa.list_(pa.int8())),
    ],
    ids=str,
)
@pytest.mark.parametrize("depth", ["top level", "in a struct", "in a list", "in a map"])
def test_a_type_that_cannot_be_stored_exactly_is_refused_by_name(arrow_type: pa.DataType, depth: str) -> None:
    wrapped = {
        "top level": arrow_type,
        "in a struct": pa.struct([("inner", arrow_type)]),
        "in a list": pa.list_(pa.struct([("inner", arrow_type)])),
        "in a map": pa.map_(pa.string(), arrow_type),
    }[depth]
    with pytest.raises(UnsupportedTypeError, match="column 'bad") as error:
        plan_storage(schema_of(("fine", pa.int8()), ("bad", wrapped)))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (pa.schema([("x", pa.int8())]), "has no top-level column 'timestamp_ns'"),
        (pa.schema([]), "has no top-level column 'timestamp_ns'"),
        (pa.schema([("Timestamp_ns", pa.int64())]), "has no top-level column 'timestamp_ns'"),
        (pa.schema([("s", pa.struct([TIMESTAMP]))]), "has no top-level column 'timestamp_ns'"),
        (pa.schema([TIMESTAMP, TIMESTAMP]), "has more than one top-level column 'timestamp_ns'"),
        (pa.schema([("timestamp_ns", pa.int32())]), "must be int64"),
        (pa.schema([("timestamp_ns", pa.uint64())]), "must be int64"),
        (pa.schema([("timestamp_ns", pa.timestamp("ns"))]), "must be int64"),
    ],
    ids=str,
)
def test_rows_must_carry_an_int64_timestamp(schema: pa.Schema, reason: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=reason):
        plan_storage(schema)


def test_a_timestamp_alone_is_a_schema() -> None:
    plan = plan_storage(pa.schema([TIMESTAMP]))
    assert plan.storage_schema.names == ["timestamp_ns"]
    assert len(iceberg_payload_schema(plan).fields) == 0


@pytest.mark.parametrize(
    "field",
    [
        pa.field(b"\xff", pa.int8()),
        pa.field("s", pa.struct([pa.field(b"\xff", pa.int8())])),
        pa.field("l", pa.list_(pa.struct([pa.field(b"\xff", pa.int8())]))),
        pa.field("t", pa.timestamp("ns", tz=b"\xff")),
    ],
    ids=["name", "struct child", "below a list", "time zone"],
)
def test_text_that_is_not_utf8_is_refused(field: pa.Field) -> None:
    with pytest.raises(UnsupportedTypeError, match="not valid UTF-8"):
        plan_storage(pa.schema([TIMESTAMP, field]))


def test_nesting_is_bounded() -> None:
    def nested(levels: int) -> pa.DataType:
        arrow_type: pa.DataType = pa.int8()
        for _ in range(levels - 1):
            arrow_type = pa.list_(arrow_type)
        return arrow_type

    plan_storage(schema_of(("x", nested(MAX_NESTING_DEPTH))))
    for levels in (MAX_NESTING_DEPTH + 1, 400):
        with pytest.raises(UnsupportedTypeError, match=f"nested deeper than {MAX_NESTING_DEPTH} levels"):
            plan_storage(schema_of(("x", nested(levels))))


def test_the_number_of_fields_is_bounded() -> None:
    fields = [(f"c{i}", pa.bool_()) for i in range(MAX_FIELDS)]
    plan_storage(schema_of(*fields))
    with pytest.raises(UnsupportedTypeError, match=f"more than {MAX_FIELDS} fields"):
        plan_storage(schema_of(("s", pa.struct(fields))))


def storage_names(*names: str) -> list[str]:
    plan = plan_storage(schema_of(*((name, pa.int8()) for name in names)))
    return plan.storage_schema.names[1:]


def test_ordinary_names_are_kept() -> None:
    names = ["x", "Größe", "frame id", "a-b/c", "sequence_number", "数"]
    assert storage_names(*names) == names


@pytest.mark.parametrize("name", ["sequence", "SESSION", "recorded_at", "Timestamp_NS"])
def test_payload_names_of_the_envelope_are_renamed(name: str) -> None:
    (stored,) = storage_names(name)
    assert stored.startswith(name + "_")
    assert stored.lower() not in ("sequence", "session", "timestamp_ns", "recorded_at")


def test_names_that_differ_only_in_case_are_told_apart_at_every_level() -> None:
    stored = storage_names("speed", "Speed", "SPEED")
    assert stored[0] == "speed"
    assert len({name.lower() for name in stored}) == 3

    struct = pa.struct([("a", pa.int8()), ("A", pa.int8())])
    plan = plan_storage(schema_of(("s", pa.list_(struct))))
    inner = plan.storage_schema.field("s").type.value_type
    assert len({field.name.lower() for field in inner}) == 2


def test_names_engines_read_as_syntax_are_repaired_without_taking_anothers_place() -> None:
    stored = storage_names("a.b", "a_b", "", "`", 'q"', "tab\t", "a.b")
    assert stored[1] == "a_b"
    assert all(name and not set(name) & set('.`"\t') for name in stored)
    assert len({name.lower() for name in stored}) == len(stored)


def test_a_repaired_name_depends_on_the_original_only() -> None:
    (alone,) = storage_names("a.b")
    assert storage_names("x", "y", "a.b")[2] == alone


def test_columns_are_listed_with_uploaded_and_storage_paths() -> None:
    struct = pa.struct([("a.b", pa.int8())])
    plan = plan_storage(schema_of(("Session", pa.list_(struct)), ("m", pa.map_(pa.string(), pa.int8()))))
    paths = {arrow: storage for arrow, storage, _ in plan.columns()}
    session, inner = storage_names("Session")[0], storage_names("a.b")[0]
    assert paths["Session", "element", "a.b"] == (session, "element", inner)
    assert paths["m", "value"] == ("m", "value")
