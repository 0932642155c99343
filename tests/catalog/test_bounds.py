"""Bounds of leaf columns contain every value, whatever the values are."""

import io
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg import conversions
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
)

from lakehouse.catalog.iceberg.bounds import ColumnMetrics, column_metrics, count_elements, serialize, truncated_upper
from lakehouse.catalog.iceberg.leaves import FIELD_ID_KEY, parquet_leaves
from tests.ontology.random_arrow import random_array

ICEBERG_TYPES: dict[pa.DataType, IcebergType] = {
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.decimal128(9, 2): DecimalType(9, 2),
    pa.decimal128(20, 0): DecimalType(20, 0),
    pa.decimal128(38, 10): DecimalType(38, 10),
    pa.string(): StringType(),
    pa.date32(): DateType(),
    pa.timestamp("us"): TimestampType(),
    pa.timestamp("us", "UTC"): TimestamptzType(),
    pa.time64("us"): TimeType(),
}
LEAF, ELEMENT, KEY, VALUE, BLOB = 1, 2, 3, 4, 5
kinds = pytest.mark.parametrize("kind", ICEBERG_TYPES, ids=str)


def numbered(name: str, kind: pa.DataType, field_id: int, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable, {FIELD_ID_KEY: str(field_id)})


def schema_of(kind: pa.DataType) -> pa.Schema:
    """The kind in a struct, in a list of structs and on both sides of a map."""
    return pa.schema(
        [
            pa.field("outer", pa.struct([pa.field("inner", pa.struct([numbered("leaf", kind, LEAF)]))])),
            pa.field("many", pa.list_(pa.field("element", pa.struct([numbered("leaf", kind, ELEMENT)])))),
            pa.field("map", pa.map_(numbered("key", kind, KEY, False), numbered("value", kind, VALUE))),
            numbered("blob", pa.binary(), BLOB),
        ]
    )


def metrics_of(schema: pa.Schema, row_groups: list[pa.RecordBatch], **options: Any) -> ColumnMetrics:
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, **options) as writer:
        for rows in row_groups:
            writer.write_batch(rows)
    leaves = parquet_leaves(schema)
    footer = pq.ParquetFile(buffer).metadata
    paths = [footer.row_group(0).column(i).path_in_schema for i in range(footer.num_columns)]
    assert paths == [leaf.parquet_path for leaf in leaves]
    return column_metrics(footer, leaves, [count_elements(rows, leaves) for rows in row_groups])


def one_column(kind: pa.DataType, *groups: list[Any]) -> ColumnMetrics:
    schema = pa.schema([numbered("leaf", kind, LEAF)])
    batches = [pa.RecordBatch.from_arrays([pa.array(values, kind)], schema=schema) for values in groups]
    return metrics_of(schema, batches)


def comparable(array: pa.Array) -> list[Any]:
    """Values in the form that PyIceberg decodes bounds to; nulls and NaN left out."""
    array = array.drop_null()
    if pat.is_temporal(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return [value for value in array.to_pylist() if not (isinstance(value, float) and math.isnan(value))]


def check_contains(lower: bytes | None, upper: bytes | None, kind: pa.DataType, values: list[Any]) -> None:
    primitive = ICEBERG_TYPES[kind]
    if lower is not None:
        low = conversions.from_bytes(primitive, lower)
        assert all(low <= value for value in values)
        if pat.is_floating(kind) and low == 0:
            assert math.copysign(1, low) == -1
        if not pat.is_string(kind):
            assert low == min(values)
            assert conversions.to_bytes(primitive, low) == lower
    if upper is not None:
        high = conversions.from_bytes(primitive, upper)
        assert all(value <= high for value in values)
        if pat.is_floating(kind) and high == 0:
            assert math.copysign(1, high) == 1
        if not pat.is_string(kind):
            assert high == max(values)
    if not values:
        assert lower is None
        assert upper is None
    elif not pat.is_string(kind):
        assert lower is not None
        assert upper is not None


@kinds
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), rows=st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_bounds_contain_every_value_of_every_leaf(kind: pa.DataType, seed: int, rows: list[int]) -> None:
    random = np.random.default_rng(seed)
    schema = schema_of(kind)
    groups = [
        pa.RecordBatch.from_arrays([random_array(field, count, random) for field in schema], schema=schema)
        for count in rows
    ]
    metrics = metrics_of(schema, groups)
    leaves = {leaf.field_id: leaf for leaf in parquet_leaves(schema)}
    for field_id in (LEAF, ELEMENT, KEY, VALUE):
        array = pa.concat_arrays([leaves[field_id].values(group) for group in groups])
        values = comparable(array)
        nan_count = len(array) - array.null_count - len(values)
        if field_id == LEAF:
            check_contains(metrics.lower_bounds.get(LEAF), metrics.upper_bounds.get(LEAF), kind, values)
            assert metrics.value_counts[LEAF] == sum(rows)
            assert metrics.null_value_counts[LEAF] == array.null_count
            assert metrics.nan_value_counts.get(LEAF, 0) == nan_count
            assert (LEAF in metrics.nan_value_counts) == pat.is_floating(kind)
        else:
            found = metrics.element_bounds[field_id]
            check_contains(found.lower, found.upper, kind, values)
            assert (found.value_count, found.null_count) == (len(array), array.null_count)
            assert (found.nan_count or 0) == nan_count
    assert set(metrics.lower_bounds) | set(metrics.upper_bounds) <= {LEAF}
    assert set(metrics.column_sizes) == {LEAF, ELEMENT, KEY, VALUE, BLOB}


def test_leaves_below_null_structs_are_nulls_whatever_they_hide() -> None:
    schema = pa.schema([pa.field("outer", pa.struct([numbered("leaf", pa.float64(), LEAF)]))])
    hidden = pa.StructArray.from_arrays(
        [pa.array([math.nan, 1.0, 99.0])], fields=list(schema.field("outer").type), mask=pa.array([True, False, True])
    )
    metrics = metrics_of(schema, [pa.RecordBatch.from_arrays([hidden], schema=schema)])
    assert (metrics.value_counts[LEAF], metrics.null_value_counts[LEAF], metrics.nan_value_counts[LEAF]) == (3, 2, 0)
    assert metrics.lower_bounds[LEAF] == metrics.upper_bounds[LEAF] == conversions.to_bytes(DoubleType(), 1.0)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_only_nan_and_null_gives_no_bounds(kind: pa.DataType) -> None:
    metrics = one_column(kind, [math.nan, None], [math.nan])
    assert not metrics.lower_bounds
    assert not metrics.upper_bounds
    assert metrics.nan_value_counts == {LEAF: 2}


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_a_row_group_of_nan_does_not_hide_the_bounds_of_others(kind: pa.DataType) -> None:
    metrics = one_column(kind, [math.nan], [1.0, math.nan, 2.0], [None])
    expected = (serialize(kind, 1.0), serialize(kind, 2.0))
    assert (metrics.lower_bounds[LEAF], metrics.upper_bounds[LEAF]) == expected


@pytest.mark.parametrize("zeros", [[0.0], [-0.0], [0.0, -0.0]])
def test_a_bound_of_zero_covers_both_zeros(zeros: list[float]) -> None:
    metrics = one_column(pa.float64(), zeros)
    assert metrics.lower_bounds[LEAF] == conversions.to_bytes(DoubleType(), -0.0)
    assert metrics.upper_bounds[LEAF] == conversions.to_bytes(DoubleType(), 0.0)


@pytest.mark.parametrize("size", [2**62, 2**63 - 1, -(2**63)])
def test_large_integers_are_exact(size: int) -> None:
    metrics = one_column(pa.int64(), [size])
    assert conversions.from_bytes(LongType(), metrics.lower_bounds[LEAF]) == size
    assert conversions.from_bytes(LongType(), metrics.upper_bounds[LEAF]) == size


@given(st.integers(-(10**38) + 1, 10**38 - 1))
def test_decimals_take_the_fewest_bytes(unscaled: int) -> None:
    digits = tuple(int(digit) for digit in str(abs(unscaled)))
    value = Decimal((int(unscaled < 0), digits, -10))
    assert serialize(pa.decimal128(38, 10), unscaled) == conversions.to_bytes(DecimalType(38, 10), value)


@given(st.text(max_size=40), st.integers(1, 20))
def test_truncated_upper_bounds_are_bounds_and_text(text: str, limit: int) -> None:
    upper = truncated_upper(text, limit)
    if upper is not None:
        assert upper >= text
        assert len(upper) <= limit
        upper.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 16, "a" * 16),
        ("a" * 17, "a" * 15 + "b"),
        ("é" * 17, "é" * 15 + "ê"),
        ("a" * 15 + "\U0010ffff" + "x", "a" * 14 + "b"),
        ("\U0010ffff" * 17, None),
        # U+D800 to U+DFFF are no characters.
        ("a" * 15 + "\ud7ff" + "x", "a" * 15 + "\ue000"),
        ("\U0001f600" * 17, "\U0001f600" * 15 + "\U0001f601"),
    ],
)
def test_long_texts_are_cut_after_sixteen_code_points(text: str, expected: str | None) -> None:
    metrics = one_column(pa.string(), [text])
    assert metrics.lower_bounds[LEAF].decode() == text[:16]
    assert metrics.upper_bounds.get(LEAF) == (None if expected is None else expected.encode())


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=1, max_size=8))
def test_bounds_of_texts_contain_them_in_code_point_order(texts: list[str | None]) -> None:
    metrics = one_column(pa.string(), texts)
    present = [text for text in texts if text is not None]
    assert (LEAF in metrics.lower_bounds) == bool(present)
    if present:
        assert metrics.lower_bounds[LEAF].decode() <= min(present)
    if LEAF in metrics.upper_bounds:
        assert metrics.upper_bounds[LEAF].decode() >= max(present)


def test_texts_too_long_for_a_footer_have_no_bounds_rather_than_wrong_ones() -> None:
    metrics = one_column(pa.string(), ["b"], ["a" * 100_000, "z" * 100_000])
    assert not metrics.lower_bounds
    assert not metrics.upper_bounds
    assert metrics.null_value_counts == {LEAF: 0}


def test_blobs_have_no_bounds() -> None:
    assert not one_column(pa.binary(), [b"a"]).lower_bounds
    assert not one_column(pa.binary(4), [b"aaaa"]).lower_bounds


def test_columns_without_statistics_have_no_bounds_and_no_null_counts() -> None:
    schema = pa.schema([numbered("leaf", pa.int64(), LEAF)])
    batch = pa.RecordBatch.from_arrays([pa.array([1, None])], schema=schema)
    metrics = metrics_of(schema, [batch], write_statistics=False)
    assert not metrics.lower_bounds
    assert not metrics.null_value_counts
    assert metrics.value_counts == {LEAF: 2}


def test_session_locators_keep_their_last_characters_in_bounds() -> None:
    locator = "drive_2026_11:01ARZ3NDEKTSV4RRFFQ69G5FAV"
    schema = pa.schema([numbered("session", pa.string(), LEAF)])
    metrics = metrics_of(schema, [pa.RecordBatch.from_arrays([pa.array([locator])], schema=schema)])
    assert metrics.lower_bounds[LEAF] == metrics.upper_bounds[LEAF] == locator.encode()
