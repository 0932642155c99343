"""Which Arrow type a value is stored as, so that Iceberg format v2 holds it without loss.

The one place of the type mapping. Iceberg v2 has no unsigned, no 8- or 16-bit, no nanosecond and no time-of-day type
that all engines read, so values are widened (exactly) or kept as a plain `long` whose unit stands in the column
comment.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.ontology.storage_names import storage_names

# Parquet readers stop at 100 levels, of which a list takes two.
MAX_NESTING_DEPTH = 48
MAX_FIELDS = 10_000
MAX_DECIMAL_DIGITS = 38

_LONGEST_QUOTED_NAME = 120


class UnsupportedTypeError(ValueError):
    """A schema that cannot be stored without loss; the text names the column and says what is allowed."""


class UnstorableValueError(ValueError):
    """A value whose type is supported but which itself has no exact counterpart in storage."""


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How one column, at any depth, is stored.

    Attributes:
        arrow: The field as uploaded.
        storage: The field as stored: storage name and type, nullable, without metadata.
        children: Plans of the struct children, of the one list element, or of a map's key and value; for a
            dictionary, the plan of its values. Empty for leaves.
        unit: What the stored number counts, where the storage type does not say; else None.
    """

    arrow: pa.Field
    storage: pa.Field
    children: tuple["ColumnPlan", ...] = ()
    unit: str | None = None


def column_text(path: tuple[str, ...]) -> str:
    """A column path as it appears in an error text: printable and short even when the input was not."""
    text = ".".join(path).encode("unicode_escape").decode("ascii")
    return f"column '{text if len(text) <= _LONGEST_QUOTED_NAME else text[:_LONGEST_QUOTED_NAME] + '...'}'"


class _FieldBudget:
    """Counts the fields of a schema at all depths and stops at the bound."""

    def __init__(self) -> None:
        self._used = 0

    def take(self) -> None:
        self._used += 1
        if self._used > MAX_FIELDS:
            raise UnsupportedTypeError(f"the schema has more than {MAX_FIELDS} fields")


def plan_columns(fields: list[pa.Field], reserved: tuple[str, ...] = ()) -> tuple[ColumnPlan, ...]:
    """Plan sibling columns of a table.

    Args:
        fields: The payload columns.
        reserved: Names of columns that exist beside them.

    Raises:
        UnsupportedTypeError: If a type at any depth has no lossless storage.
    """
    return _plan_siblings(fields, reserved, (), 1, _FieldBudget())


def _plan_siblings(
    fields: list[pa.Field], reserved: tuple[str, ...], parent: tuple[str, ...], depth: int, budget: _FieldBudget
) -> tuple[ColumnPlan, ...]:
    names = [field.name for field in fields]
    return tuple(
        _plan_column(field, name, (*parent, field.name), depth, budget)
        for field, name in zip(fields, storage_names(names, reserved), strict=True)
    )


def _plan_column(field: pa.Field, name: str, path: tuple[str, ...], depth: int, budget: _FieldBudget) -> ColumnPlan:
    budget.take()
    if depth > MAX_NESTING_DEPTH:
        raise UnsupportedTypeError(f"{column_text(path)} is nested deeper than {MAX_NESTING_DEPTH} levels")
    arrow_type = field.type
    children: tuple[ColumnPlan, ...] = ()
    unit = None
    if pat.is_struct(arrow_type):
        if arrow_type.num_fields == 0:
            raise UnsupportedTypeError(f"{column_text(path)} is a struct without fields, which Iceberg cannot hold")
        children = _plan_siblings(list(arrow_type), (), path, depth + 1, budget)
        storage_type = pa.struct([child.storage for child in children])
    elif pat.is_map(arrow_type):
        key = _plan_column(arrow_type.key_field, "key", (*path, "key"), depth + 1, budget)
        value = _plan_column(arrow_type.item_field, "value", (*path, "value"), depth + 1, budget)
        children = (key, value)
        storage_type = pa.map_(key.storage.with_nullable(False), value.storage)
    elif is_any_list(arrow_type):
        element = _plan_column(arrow_type.value_field, "element", (*path, "element"), depth + 1, budget)
        children = (element,)
        storage_type = pa.list_(element.storage)
    elif pat.is_dictionary(arrow_type):
        values = _plan_column(field.with_type(arrow_type.value_type), name, path, depth + 1, budget)
        if arrow_type.ordered or values.children:
            kind = "an ordered dictionary" if arrow_type.ordered else "a dictionary of nested values"
            raise UnsupportedTypeError(f"{column_text(path)} is {kind}; send its values as a plain column")
        children = (values,)
        storage_type, unit = values.storage.type, values.unit
    else:
        storage_type = _leaf_storage_type(arrow_type, path)
        unit = _unit_of_plain_number(arrow_type)
    return ColumnPlan(field, pa.field(name, storage_type, nullable=True), children, unit)


def walk(
    plans: tuple[ColumnPlan, ...], arrow_parent: tuple[str, ...] = (), storage_parent: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], ColumnPlan]]:
    """Every column at every depth as (path of uploaded names, path of storage names, plan).

    In both paths list elements are called `element`, and map children `key` and `value`, as in Iceberg and Parquet.
    """
    for plan in plans:
        yield from _walk(plan, (*arrow_parent, plan.arrow.name), (*storage_parent, plan.storage.name))


def _walk(
    plan: ColumnPlan, arrow_path: tuple[str, ...], storage_path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], ColumnPlan]]:
    yield arrow_path, storage_path, plan
    if pat.is_struct(plan.arrow.type):
        yield from walk(plan.children, arrow_path, storage_path)
    elif not pat.is_dictionary(plan.arrow.type):
        for child in plan.children:
            yield from _walk(child, (*arrow_path, child.storage.name), (*storage_path, child.storage.name))


def is_any_list(arrow_type: pa.DataType) -> bool:
    """Whether the type is one of Arrow's five list layouts (maps excluded)."""
    return (
        pat.is_list(arrow_type)
        or pat.is_large_list(arrow_type)
        or pat.is_fixed_size_list(arrow_type)
        or pat.is_list_view(arrow_type)
        or pat.is_large_list_view(arrow_type)
    )


def can_be_taken(arrow_type: pa.DataType) -> bool:
    """Whether Arrow's `take` gathers values of the type correctly.

    It knows no views, and of fixed-size lists of fixed-size lists it forgets the inner offset and returns memory that
    is none of theirs (pyarrow 26). Storage types are free of both.
    """
    if pat.is_string_view(arrow_type) or pat.is_binary_view(arrow_type):
        return False
    if pat.is_dictionary(arrow_type):
        return can_be_taken(arrow_type.value_type)
    if pat.is_fixed_size_list(arrow_type) and pat.is_fixed_size_list(arrow_type.value_type):
        return False
    return all(can_be_taken(arrow_type.field(i).type) for i in range(arrow_type.num_fields))


def is_temporal_number(arrow_type: pa.DataType) -> bool:
    """Whether values are stored as the plain 64-bit number they are made of."""
    return (
        pat.is_duration(arrow_type)
        or pat.is_time(arrow_type)
        or pat.is_date64(arrow_type)
        or (pat.is_timestamp(arrow_type) and arrow_type.unit == "ns")
    )


_SAME: tuple[Callable[[pa.DataType], bool], ...] = (
    pat.is_boolean,
    pat.is_int32,
    pat.is_int64,
    pat.is_float32,
    pat.is_float64,
    pat.is_date32,
)
_INT: tuple[Callable[[pa.DataType], bool], ...] = (pat.is_int8, pat.is_int16, pat.is_uint8, pat.is_uint16)
_STRING: tuple[Callable[[pa.DataType], bool], ...] = (pat.is_string, pat.is_large_string, pat.is_string_view)
_BINARY: tuple[Callable[[pa.DataType], bool], ...] = (pat.is_binary, pat.is_large_binary, pat.is_binary_view)


def _leaf_storage_type(arrow_type: pa.DataType, path: tuple[str, ...]) -> pa.DataType:
    if any(matches(arrow_type) for matches in _SAME):
        return arrow_type
    if any(matches(arrow_type) for matches in _INT):
        return pa.int32()
    if pat.is_uint32(arrow_type) or is_temporal_number(arrow_type):
        return pa.int64()
    if pat.is_uint64(arrow_type):
        return pa.decimal128(20, 0)
    if pat.is_float16(arrow_type):
        return pa.float32()
    if any(matches(arrow_type) for matches in _STRING):
        return pa.string()
    if any(matches(arrow_type) for matches in _BINARY):
        return pa.binary()
    if pat.is_fixed_size_binary(arrow_type):
        # Neither Parquet nor Iceberg has a fixed length of zero.
        return arrow_type if arrow_type.byte_width else pa.binary()
    if pat.is_timestamp(arrow_type):
        return pa.timestamp("us", tz="UTC" if arrow_type.tz is not None else None)
    if pat.is_decimal(arrow_type):
        return _decimal_storage_type(arrow_type, path)
    raise UnsupportedTypeError(f"{column_text(path)} has type {_type_text(arrow_type)}, which cannot be stored exactly")


def _decimal_storage_type(arrow_type: pa.DataType, path: tuple[str, ...]) -> pa.DataType:
    """Iceberg wants 0 <= scale <= precision <= 38; Arrow also knows scales below zero and above the precision."""
    scale = max(arrow_type.scale, 0)
    precision = max(arrow_type.precision - min(arrow_type.scale, 0), scale)
    if precision > MAX_DECIMAL_DIGITS:
        raise UnsupportedTypeError(
            f"{column_text(path)} has type {arrow_type}; decimals of more than {MAX_DECIMAL_DIGITS} digits "
            "cannot be stored exactly"
        )
    return pa.decimal128(precision, scale)


_UNIT_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


# The words by which a column comment tells that a `long` is really a time; every unit written below contains one.
UNITS_OF_PLAIN_NUMBERS = ("since 1970-01-01", "since midnight", "duration in ")


def _unit_of_plain_number(arrow_type: pa.DataType) -> str | None:
    if not is_temporal_number(arrow_type):
        return None
    if pat.is_date64(arrow_type):
        return "milliseconds since 1970-01-01, whole days"
    words = _UNIT_WORDS[arrow_type.unit]
    if pat.is_duration(arrow_type):
        return f"duration in {words}"
    if pat.is_time(arrow_type):
        return f"{words} since midnight"
    return f"{words} since 1970-01-01T00:00" + (" UTC" if arrow_type.tz is not None else " local time")


def _type_text(arrow_type: pa.DataType) -> str:
    text = str(arrow_type)
    return text if len(text) <= _LONGEST_QUOTED_NAME else text[:_LONGEST_QUOTED_NAME] + "..."
