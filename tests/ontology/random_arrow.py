"""Random Arrow types and arrays, with everything the format allows and most code forgets.

Slices with offsets, values hidden below null structs, null lists that are not empty, views out of order, dictionaries
with unused and null entries, NaN, negative zero, the ends of integer ranges.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from hypothesis import strategies as st

Random = np.random.Generator

_ZONES = ("UTC", "Europe/Rome", "+05:30")
_UNITS = ("s", "ms", "us", "ns")

LEAF_TYPES: tuple[pa.DataType, ...] = (
    *(pa.bool_(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
    *(pa.binary(0), pa.binary(1), pa.binary(17)),
    *(pa.timestamp(unit) for unit in _UNITS),
    *(pa.timestamp(unit, tz=zone) for unit in _UNITS for zone in _ZONES),
    *(pa.duration(unit) for unit in _UNITS),
    *(pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.date32(), pa.date64()),
    *(pa.decimal32(5, 2), pa.decimal64(15, 3), pa.decimal128(38, 10), pa.decimal256(38, 0), pa.decimal128(9, 9)),
    *(pa.decimal128(3, -4), pa.decimal128(2, 10), pa.decimal256(20, -3)),
)
_DICTIONARY_INDEXES = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32())

field_names = st.one_of(
    st.sampled_from(
        ["x", "X", "a.b", "a", "sequence", "Session", "recorded_at", "TIMESTAMP_NS", "element", "key", "value", "list"]
    ),
    st.sampled_from(["", " ", "größe", "ŝ/t", "`q`", 'say "hi"', "tab\t", "ſ", "S", "item", "数"]),
    st.text(st.characters(codec="utf-8"), max_size=5),
)


@st.composite
def fields(draw: st.DrawFn, types: st.SearchStrategy[pa.DataType]) -> pa.Field:
    metadata = draw(st.sampled_from([None, None, {"description": "how far"}, {"a": "b", "description": "in [m]"}]))
    return pa.field(draw(field_names), draw(types), nullable=draw(st.booleans()), metadata=metadata)


def _nested(types: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    children = fields(types)
    keys = st.builds(lambda name, each: pa.field(name, each, nullable=False), field_names, types)
    return st.one_of(
        st.lists(children, min_size=1, max_size=4).map(pa.struct),
        children.map(pa.list_),
        children.map(pa.large_list),
        children.map(pa.list_view),
        children.map(pa.large_list_view),
        st.builds(pa.list_, children, st.integers(0, 3)),
        st.builds(pa.map_, keys, children, keys_sorted=st.booleans()),
    )


_leaves = st.one_of(
    st.sampled_from(LEAF_TYPES),
    st.builds(pa.dictionary, st.sampled_from(_DICTIONARY_INDEXES), st.sampled_from(LEAF_TYPES)),
)
arrow_types = st.recursive(_leaves, _nested, max_leaves=8)


@st.composite
def upload_schemas(draw: st.DrawFn) -> pa.Schema:
    """Schemas of uploads: `timestamp_ns` somewhere among payload columns."""
    payload = draw(st.lists(fields(arrow_types), max_size=4))
    payload = [field for field in payload if field.name != "timestamp_ns"]
    position = draw(st.integers(0, len(payload)))
    payload.insert(position, pa.field("timestamp_ns", pa.int64(), nullable=draw(st.booleans())))
    return pa.schema(payload, metadata=draw(st.sampled_from([None, {"k": "v"}])))


def random_batch(schema: pa.Schema, row_count: int, random: Random) -> pa.RecordBatch:
    """Rows of `schema`; now and then a slice of something longer."""
    margin = int(random.integers(0, 4))
    arrays = []
    for field in schema:
        if field.name == "timestamp_ns":
            arrays.append(pa.array(_integers(random, row_count + 2 * margin, 64, signed=True)))
        else:
            arrays.append(random_array(field, row_count + 2 * margin, random))
    return pa.RecordBatch.from_arrays(arrays, schema=schema).slice(margin, row_count)


def random_array(field: pa.Field, length: int, random: Random) -> pa.Array:
    """An array of the field's type and length, itself a slice half of the time."""
    margin = int(random.integers(0, 3)) * int(random.integers(0, 2))
    total = length + 2 * margin
    nulls = random.random(total) < random.choice([0, 0.3, 1], p=[0.4, 0.5, 0.1])
    if not field.nullable:
        nulls[:] = False
    return _array(field.type, total, nulls, random).slice(margin, length)


def _array(arrow_type: pa.DataType, length: int, nulls: np.ndarray, random: Random) -> pa.Array:
    validity = pa.py_buffer(np.packbits(~nulls, bitorder="little")) if nulls.any() else None
    null_count = int(nulls.sum())
    if pat.is_struct(arrow_type):
        children = [random_array(child, length, random) for child in arrow_type]
        return pa.Array.from_buffers(arrow_type, length, [validity], null_count, 0, children)
    if pat.is_fixed_size_list(arrow_type):
        child = random_array(arrow_type.value_field, length * arrow_type.list_size, random)
        return pa.Array.from_buffers(arrow_type, length, [validity], null_count, 0, [child])
    if pat.is_list_view(arrow_type) or pat.is_large_list_view(arrow_type):
        numbers = np.int32 if pat.is_list_view(arrow_type) else np.int64
        child = random_array(arrow_type.value_field, 5, random)
        starts = random.integers(0, 6, length)
        sizes = random.integers(0, 6 - starts)
        buffers = [validity, pa.py_buffer(starts.astype(numbers)), pa.py_buffer(sizes.astype(numbers))]
        return pa.Array.from_buffers(arrow_type, length, buffers, null_count, 0, [child])
    if pat.is_list(arrow_type) or pat.is_large_list(arrow_type) or pat.is_map(arrow_type):
        numbers = np.int64 if pat.is_large_list(arrow_type) else np.int32
        offsets = np.cumsum(np.r_[random.integers(0, 3), random.integers(0, 4, length)]).astype(numbers)
        count = int(offsets[-1]) + int(random.integers(0, 3))
        if pat.is_map(arrow_type):
            pairs = (arrow_type.key_field, arrow_type.item_field)
            entries = [random_array(pair, count, random) for pair in pairs]
            child = pa.Array.from_buffers(pa.struct(pairs), count, [None], 0, 0, entries)
        else:
            child = random_array(arrow_type.value_field, count, random)
        return pa.Array.from_buffers(arrow_type, length, [validity, pa.py_buffer(offsets)], null_count, 0, [child])
    if pat.is_dictionary(arrow_type):
        size = int(random.integers(1, 6))
        # A null among the dictionary's values makes rows null, which a map key must not be.
        null_values = random.random(size) < (0.2 if nulls.any() else 0)
        values = _array(arrow_type.value_type, size, null_values, random)
        indices = pa.array(random.integers(0, size, length), mask=nulls).cast(arrow_type.index_type)
        return pa.DictionaryArray.from_arrays(indices, values)
    return _leaf(arrow_type, length, nulls, random)


def _leaf(arrow_type: pa.DataType, length: int, nulls: np.ndarray, random: Random) -> pa.Array:
    if pat.is_boolean(arrow_type):
        return pa.array(random.random(length) < 0.5, mask=nulls)
    if pat.is_floating(arrow_type):
        specials = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.5, 6e-8, 65504.0])
        values = np.where(random.random(length) < 0.5, random.choice(specials, length), random.normal(size=length))
        return pa.array(values.astype(arrow_type.to_pandas_dtype()), mask=nulls)
    if pat.is_integer(arrow_type):
        values = _integers(random, length, arrow_type.bit_width, pat.is_signed_integer(arrow_type))
        return pa.array(values, arrow_type, mask=nulls)
    if pat.is_decimal(arrow_type):
        digits = pa.array([int(text) for text in _digits(random, length, arrow_type.precision)], pa.decimal128(38, 0))
        unscaled = pa.array(digits.to_pylist(), pa.decimal128(38, 0), mask=nulls)
        wide = pa.Array.from_buffers(pa.decimal128(38, arrow_type.scale), length, unscaled.buffers())
        return wide.cast(arrow_type)
    if pat.is_fixed_size_binary(arrow_type):
        return pa.array([random.bytes(arrow_type.byte_width) for _ in range(length)], arrow_type, mask=nulls)
    if pat.is_binary(arrow_type) or pat.is_large_binary(arrow_type) or pat.is_binary_view(arrow_type):
        return pa.array([random.bytes(n) for n in random.integers(0, 20, length)], mask=nulls).cast(arrow_type)
    if pat.is_string(arrow_type) or pat.is_large_string(arrow_type) or pat.is_string_view(arrow_type):
        words = ["", "a", "ü", "数据", "longer than a view holds inline", "\x00"]
        return pa.array([words[i] for i in random.integers(0, len(words), length)], mask=nulls).cast(arrow_type)
    return _temporal(arrow_type, length, nulls, random)


def _temporal(arrow_type: pa.DataType, length: int, nulls: np.ndarray, random: Random) -> pa.Array:
    width = np.int32 if arrow_type.bit_width == 32 else np.int64
    per_day = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
    if pat.is_time(arrow_type):
        values = random.integers(0, per_day[arrow_type.unit], length)
    elif pat.is_date64(arrow_type):
        values = random.integers(-100_000, 100_000, length) * per_day["ms"]
    elif pat.is_timestamp(arrow_type) and arrow_type.unit in ("s", "ms"):
        # A microsecond count must hold the value; the bounds just fit.
        limit = (2**63 - 1) // {"s": 1_000_000, "ms": 1000}[arrow_type.unit]
        values = random.choice([limit, -limit, 0, -1, 1_700_000_000], length)
        values = np.where(nulls, 2**62, values)  # what a null hides would not fit
    else:
        values = _integers(random, length, 8 * np.dtype(width).itemsize, signed=True)
    numbers = np.asarray(values, width)
    return _masked(numbers, nulls, arrow_type) if nulls.any() else pa.array(numbers).view(arrow_type)


def _masked(values: np.ndarray, nulls: np.ndarray, arrow_type: pa.DataType) -> pa.Array:
    """`values` with nulls that still hide their number, as C and Rust writers leave them."""
    validity = pa.py_buffer(np.packbits(~nulls, bitorder="little"))
    return pa.Array.from_buffers(arrow_type, len(values), [validity, pa.py_buffer(values)])


def _integers(random: Random, length: int, bits: int, signed: bool) -> np.ndarray:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    ends = np.array([low, high, 0, 1], kind)
    anywhere = random.integers(low, high, length, dtype=kind, endpoint=True)
    return np.where(random.random(length) < 0.5, random.choice(ends, length), anywhere)


def _digits(random: Random, length: int, precision: int) -> list[str]:
    signs = random.choice(["", "-"], length)
    return [sign + "".join(random.choice(list("0123456789"), precision)) for sign in signs]


def logical(array: pa.Array, null_rows_may_read_empty: bool = False) -> list[Any]:
    """The values of an array as Python objects that compare exactly: -0.0 is not 0.0, one NaN is as good as another.

    Args:
        array: Any array.
        null_rows_may_read_empty: Let null maps and null lists of structs equal empty ones. PyIceberg 0.12 rebuilds
            both without their validity when it projects.
    """
    lenient = null_rows_may_read_empty
    if pat.is_dictionary(array.type):
        return _by_index(logical(array.dictionary), array.indices.to_pylist())
    valid = array.is_valid().to_pylist()
    if pat.is_struct(array.type):
        columns = [logical(array.field(i), lenient) for i in range(array.type.num_fields)]
        return _where(valid, [tuple(row) for row in zip(*columns, strict=True)])
    if pat.is_nested(array.type):
        reads_empty = lenient and (pat.is_map(array.type) or pat.is_struct(array.type.value_type))
        null = [] if reads_empty else None
        return [_elements(array, i, lenient) if ok else null for i, ok in enumerate(valid)]
    if pat.is_floating(array.type):
        return _where(valid, [_float_text(value) for value in array.to_pylist()])
    if pat.is_temporal(array.type):
        width = pa.int32() if array.type.bit_width == 32 else pa.int64()
        return array.view(width).to_pylist()
    return array.to_pylist()


def _elements(array: pa.Array, row: int, lenient: bool) -> list[Any]:
    if pat.is_map(array.type):
        one = array.slice(row, 1)
        start, stop = (one.offsets[i].as_py() for i in (0, 1))
        keys, items = (logical(part[start:stop], lenient) for part in (one.keys, one.items))
        return list(zip(keys, items, strict=True))
    return logical(array[row].values, lenient)


def _by_index(values: list[Any], indices: list[int | None]) -> list[Any]:
    return [None if index is None else values[index] for index in indices]


def _where(valid: list[bool], values: list[Any]) -> list[Any]:
    return [value if ok else None for ok, value in zip(valid, values, strict=True)]


def _float_text(value: float | None) -> str | None:
    return None if value is None else repr(float(value))
