import datetime

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.ontology.arrow_iceberg import (
    DictionaryOverflowError,
    UnstorableValueError,
    parquet_schema,
    plan_storage,
    topic_table_schema,
)
from lakehouse.ontology.envelope import Envelope
from lakehouse.ontology.registry import model_arrow_schema

TIMESTAMP = pa.field("timestamp_ns", pa.int64(), nullable=False)


def batch_of(**columns: pa.Array) -> pa.RecordBatch:
    length = len(next(iter(columns.values())))
    fields = [TIMESTAMP, *(pa.field(name, array.type) for name, array in columns.items())]
    return pa.RecordBatch.from_arrays(
        [pa.array(range(length), pa.int64()), *columns.values()], schema=pa.schema(fields)
    )


def round_trip(batch: pa.RecordBatch) -> pa.RecordBatch:
    plan = plan_storage(batch.schema)
    return plan.from_storage(plan.to_storage(batch))


def buffers_of(array: pa.Array) -> set[int]:
    return {buffer.address for buffer in array.buffers() if buffer is not None and buffer.size > 0}


def test_rows_carry_sequence_session_and_time_in_table_order() -> None:
    timestamps = [-(2**63), -1001, -1000, -1, 0, 999, 1000, 2**63 - 1]
    batch = pa.RecordBatch.from_arrays([pa.array(timestamps)], schema=pa.schema([TIMESTAMP]))
    plan = plan_storage(batch.schema)
    schema = parquet_schema(topic_table_schema(plan), plan)
    rows = Envelope(schema, "drive", "drive:7").add(pa.Table.from_batches([plan.to_storage(batch)]))

    assert rows.schema.names == ["sequence", "session", "timestamp_ns", "recorded_at"]
    assert not any(field.nullable for field in rows.schema)
    assert rows.column("sequence").to_pylist() == ["drive"] * len(timestamps)
    assert rows.column("session").to_pylist() == ["drive:7"] * len(timestamps)
    assert rows.column("timestamp_ns").to_pylist() == timestamps
    assert rows.column("recorded_at").type == pa.timestamp("us", tz="UTC")
    assert rows.column("recorded_at").cast(pa.int64()).to_pylist() == [value // 1000 for value in timestamps]


def test_a_topic_may_have_no_payload() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([5, 6])], schema=pa.schema([TIMESTAMP]))
    assert round_trip(batch).equals(batch)


def test_empty_batches_pass() -> None:
    for schema in (model_arrow_schema("FrameTransform"), model_arrow_schema("CameraInfo"), pa.schema([TIMESTAMP])):
        batch = pa.RecordBatch.from_pylist([], schema=schema)
        assert round_trip(batch).equals(batch)


def test_columns_that_need_no_change_share_their_memory() -> None:
    struct = pa.struct([pa.field("image", pa.binary(), nullable=False), pa.field("x", pa.int16())])
    values = [{"image": b"abc" * 100, "x": 1}, {"image": b"", "x": 2}]
    batch = batch_of(
        blob=pa.array([b"0" * 100, b"1"]),
        inside=pa.array(values, struct),
        points=pa.array([[1.0, 2.0], [3.0]], pa.large_list(pa.field("p", pa.float64(), nullable=False))),
    )
    plan = plan_storage(batch.schema)
    stored = plan.to_storage(batch)
    back = plan.from_storage(stored)
    for rows in (stored, back):
        assert buffers_of(rows.column("blob")) == buffers_of(batch.column("blob"))
        assert buffers_of(rows.column("inside").field(0)) == buffers_of(batch.column("inside").field(0))
        assert buffers_of(rows.column("points").values) == buffers_of(batch.column("points").values)
    assert back.equals(batch)


def test_a_slice_of_a_large_batch_is_converted_alone() -> None:
    values = pa.array(np.arange(1_000_000), pa.uint64())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 1_000_001, 10), pa.int32()), values)
    part = batch_of(lists=lists).slice(50_000, 3)
    plan = plan_storage(part.schema)
    assert len(plan.to_storage(part).column("lists").values) == 30
    assert round_trip(part).equals(part)


def test_gaps_between_nested_fixed_size_lists_are_closed_correctly() -> None:
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(60)).slice(12), 3)
    grid = pa.FixedSizeListArray.from_arrays(pairs.slice(2), 2)
    starts, sizes = pa.array([4, 0, 2], pa.int32()), pa.array([1, 2, 1], pa.int32())
    batch = batch_of(v=pa.ListViewArray.from_arrays(starts, sizes, grid))
    assert round_trip(batch).column("v").to_pylist() == batch.column("v").to_pylist()


def test_what_a_null_struct_hides_is_neither_stored_nor_judged() -> None:
    hidden = pa.array([2**62, 5], pa.timestamp("s"))  # the first is beyond any microsecond timestamp
    struct = pa.StructArray.from_arrays([hidden], names=["t"], mask=pa.array([True, False]))
    batch = batch_of(s=struct)
    plan = plan_storage(batch.schema)
    assert plan.to_storage(batch).column("s").field(0).null_count == 1
    assert round_trip(batch).column("s").to_pylist() == [None, {"t": datetime.datetime(1970, 1, 1, 0, 0, 5)}]


def test_a_time_beyond_microseconds_is_refused_not_wrapped() -> None:
    batch = batch_of(late=pa.array([2**62], pa.timestamp("s")))
    with pytest.raises(UnstorableValueError, match="late"):
        plan_storage(batch.schema).to_storage(batch)


def test_null_timestamps_and_other_schemas_are_refused() -> None:
    plan = plan_storage(pa.schema([TIMESTAMP]))
    with pytest.raises(UnstorableValueError, match="contains nulls"):
        plan.to_storage(pa.RecordBatch.from_arrays([pa.array([1, None])], schema=pa.schema([TIMESTAMP])))
    with pytest.raises(UnstorableValueError, match="schema"):
        plan.to_storage(batch_of(x=pa.array([1])))


def test_a_map_key_that_a_dictionary_makes_null_is_refused() -> None:
    keys = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([None], pa.string()))
    keys_type = pa.map_(keys.type, pa.int8())
    entries = pa.StructArray.from_arrays(
        [keys, pa.array([1], pa.int8())], fields=[keys_type.key_field, keys_type.item_field]
    )
    offsets = pa.array([0, 1], pa.int32()).buffers()[1]
    batch = batch_of(m=pa.Array.from_buffers(keys_type, 1, [None, offsets], 0, 0, [entries]))
    batch.validate(full=True)
    with pytest.raises(UnstorableValueError, match="null key"):
        plan_storage(batch.schema).to_storage(batch)


@pytest.mark.parametrize("kind", ["dictionary", "fixed dictionary", "string view", "list view", "nested list view"])
def test_a_small_message_cannot_stand_for_a_huge_column(kind: str) -> None:
    rows = 100_000
    megabyte = "x" * 1_000_000
    zeros, sizes = pa.array(np.zeros(rows), pa.int32()), pa.array(np.full(rows, 100_000), pa.int32())
    column: pa.Array
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows), pa.int8()), pa.array([megabyte]))
    elif kind == "fixed dictionary":
        values = pa.array([b"x" * 1_000_000], pa.binary(1_000_000))
        column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows), pa.int8()), values)
    elif kind == "string view":
        view = pa.array([megabyte], pa.string_view()).buffers()
        column = pa.Array.from_buffers(
            pa.string_view(), rows, [None, pa.py_buffer(view[1].to_pybytes()[:16] * rows), *view[2:]]
        )
    else:
        column = pa.ListViewArray.from_arrays(zeros, sizes, pa.array(np.arange(100_000)))
        if kind == "nested list view":
            inner = column.slice(0, 1000)
            column = pa.ListViewArray.from_arrays(zeros[:1000], pa.array(np.full(1000, 1000), pa.int32()), inner)
    batch = batch_of(c=column)
    with pytest.raises(UnstorableValueError, match="send smaller batches"):
        plan_storage(batch.schema).to_storage(batch)


def test_a_heavy_value_among_many_light_ones_is_weighed_exactly() -> None:
    light = pa.array([[]] * 1_000_000 + [["x" * 100_000]], pa.list_(pa.string()))
    column = pa.ListViewArray.from_arrays(
        pa.array(np.full(20_000, 1_000_000), pa.int32()), pa.array(np.ones(20_000), pa.int32()), light
    )
    batch = batch_of(c=column)
    with pytest.raises(UnstorableValueError, match="send smaller batches"):
        plan_storage(batch.schema).to_storage(batch)


def test_rows_of_many_dictionaries_are_split_until_each_batch_has_a_dictionary_that_fits() -> None:
    parts = [
        batch_of(
            d=pa.array([f"{k}-{i}" for i in range(100)]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        )
        for k in range(4)
    ]
    plan = plan_storage(parts[0].schema)
    stored = pa.Table.from_batches([plan.to_storage(part) for part in parts]).combine_chunks().to_batches()[0]
    with pytest.raises(DictionaryOverflowError):
        plan.from_storage(stored)
    restored = plan.from_storage_batches(stored)
    assert all(batch.schema == plan.arrow_schema for batch in restored)
    values = [value for batch in restored for value in batch.column("d").to_pylist()]
    assert values == [value for part in parts for value in part.column("d").to_pylist()]


def test_stored_rows_may_come_back_wider_reordered_and_with_more_columns() -> None:
    struct = pa.struct([pa.field("a", pa.int16(), nullable=False), pa.field("b", pa.float32())])
    batch = batch_of(
        s=pa.array([{"a": 1, "b": 0.1}, None, {"a": -3, "b": -0.0}], struct),
        l=pa.array([["x"], None, []], pa.list_(pa.field("item", pa.string(), nullable=False))),
        u=pa.array([1, None, 2**32 - 1], pa.uint32()),
        half=pa.array(np.array([0.1, -0.0, 65504], np.float16)),
    )
    plan = plan_storage(batch.schema)
    stored = plan.to_storage(batch)
    s = stored.column("s")
    wide = pa.StructArray.from_arrays(
        [s.field(1).cast(pa.float64()), pa.nulls(3, pa.int8()), s.field(0).cast(pa.int64())],
        names=["b", "new", "a"],
        mask=s.is_null(),
    )
    foreign = pa.RecordBatch.from_pydict(
        {
            "half": stored.column("half").cast(pa.float64()),
            "unrelated": pa.array([1, 2, 3]),
            "l": stored.column("l").cast(pa.large_list(pa.field("element", pa.large_string()))),
            "s": wide,
            "u": stored.column("u").dictionary_encode(),
            "timestamp_ns": stored.column("timestamp_ns"),
        }
    )
    restored = plan.from_storage(foreign)
    restored.validate(full=True)
    assert restored.schema.equals(batch.schema, check_metadata=True)
    assert restored.equals(batch)


def test_rows_that_lack_a_column_are_an_error_not_nulls() -> None:
    plan = plan_storage(batch_of(s=pa.array([{"a": 1, "b": 2}])).schema)
    with pytest.raises(UnstorableValueError, match="lack the column 's'"):
        plan.from_storage(pa.RecordBatch.from_pydict({"timestamp_ns": [1]}))
    with pytest.raises(UnstorableValueError, match="'s'"):
        plan.from_storage(pa.RecordBatch.from_pydict({"timestamp_ns": [1], "s": pa.array([{"a": 1}])}))


@pytest.mark.parametrize("view_type", [pa.string_view(), pa.binary_view()])
def test_null_rows_of_views_may_hold_anything(view_type: pa.DataType) -> None:
    """Only valid rows are ever validated, so an upload can put wild pointers below its nulls."""
    long, wild = b"x" * 20, b"\xff\xff\xff\x7f" * 4
    valid = (20).to_bytes(4, "little") + long[:4] + bytes(8)
    views = pa.py_buffer(wild + valid + wild + valid + b"odd")
    array = pa.Array.from_buffers(view_type, 4, [pa.py_buffer(b"\x0a"), views, pa.py_buffer(long)])
    expected = [None, long, None, long]
    for values in (array, array.slice(1), array.slice(2, 1)):
        values.validate(full=True)
        batch = batch_of(text=values, nested=pa.StructArray.from_arrays([values], ["text"]))
        returned = [
            None if value is None else value.encode() if isinstance(value, str) else value
            for value in round_trip(batch).column("text").to_pylist()
        ]
        assert returned == expected[values.offset : values.offset + len(values)]
