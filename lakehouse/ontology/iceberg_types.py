"""Iceberg types of stored columns, with the comments that make a table readable: what it is, and its unit."""

from collections.abc import Iterator, Mapping
from itertools import count

import pyarrow as pa
import pyarrow.types as pat
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
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from lakehouse.ontology.storage_types import UNITS_OF_PLAIN_NUMBERS, ColumnPlan

MAX_COMMENT_LENGTH = 600

ColumnPath = tuple[str, ...]

_PRIMITIVES: dict[pa.DataType, PrimitiveType] = {
    pa.bool_(): BooleanType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float32(): FloatType(),
    pa.float64(): DoubleType(),
    pa.string(): StringType(),
    pa.binary(): BinaryType(),
    pa.date32(): DateType(),
    pa.timestamp("us"): TimestampType(),
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
}
_ARROW_OF_PRIMITIVE = {iceberg: arrow for arrow, iceberg in _PRIMITIVES.items()}


def primitive_type(storage_type: pa.DataType) -> PrimitiveType:
    """The Iceberg type of a storage leaf type."""
    if pat.is_decimal128(storage_type):
        return DecimalType(storage_type.precision, storage_type.scale)
    if pat.is_fixed_size_binary(storage_type):
        return FixedType(storage_type.byte_width)
    return _PRIMITIVES[storage_type]


def arrow_type_of_primitive(iceberg_type: PrimitiveType) -> pa.DataType | None:
    """The storage Arrow type of an Iceberg type; None if we never write it."""
    if isinstance(iceberg_type, DecimalType):
        return pa.decimal128(iceberg_type.precision, iceberg_type.scale)
    if isinstance(iceberg_type, FixedType):
        return pa.binary(len(iceberg_type))
    return _ARROW_OF_PRIMITIVE.get(iceberg_type)


def iceberg_fields(
    plans: tuple[ColumnPlan, ...], first_id: int = 1, comments: Mapping[ColumnPath, str] | None = None
) -> list[NestedField]:
    """Optional Iceberg fields for `plans`, numbered in depth-first order from `first_id`.

    Args:
        plans: Sibling columns.
        first_id: The first field id; `create_table` renumbers anyway.
        comments: Better comments than the field's own description, by path of original names (list elements are
            `element`, map children `key` and `value`).
    """
    return list(_fields(plans, count(first_id), comments or {}, ()))


def iceberg_field(plan: ColumnPlan) -> NestedField:
    """One optional Iceberg field, numbered from 1."""
    return iceberg_fields((plan,))[0]


def _fields(
    plans: tuple[ColumnPlan, ...], ids: Iterator[int], comments: Mapping[ColumnPath, str], parent: ColumnPath
) -> Iterator[NestedField]:
    for plan in plans:
        path = (*parent, plan.arrow.name)
        field_id = next(ids)
        field_type = _type(plan, ids, comments, path)
        yield NestedField(
            field_id, plan.storage.name, field_type, required=False, doc=comment(plan, comments.get(path))
        )


def _type(plan: ColumnPlan, ids: Iterator[int], comments: Mapping[ColumnPath, str], path: ColumnPath) -> IcebergType:
    storage_type = plan.storage.type
    if pat.is_struct(storage_type):
        return StructType(*_fields(plan.children, ids, comments, path))
    if pat.is_list(storage_type):
        element = plan.children[0]
        element_id = next(ids)
        return ListType(element_id, _type(element, ids, comments, (*path, "element")), element_required=False)
    if pat.is_map(storage_type):
        key, value = plan.children
        key_id, value_id = next(ids), next(ids)
        key_type = _type(key, ids, comments, (*path, "key"))
        return MapType(key_id, key_type, value_id, _type(value, ids, comments, (*path, "value")), value_required=False)
    return primitive_type(storage_type)


def comment(plan: ColumnPlan, text: str | None = None) -> str | None:
    """The comment of one column: its description, its original name if storage changed it, its unit in brackets.

    Args:
        plan: The column.
        text: What to say instead of the field's own `description`.
    """
    if text is None:
        described = (plan.arrow.metadata or {}).get(b"description", b"")
        text = described.decode("utf-8", errors="replace").strip()
    if len(text) > MAX_COMMENT_LENGTH:
        text = text[: MAX_COMMENT_LENGTH - 3] + "..."
    if comment_unit(text) is not None:
        text += "."  # a description must not pass for the unit that `comment_unit` reads back
    parts = [text] if text else []
    if plan.storage.name != plan.arrow.name:
        parts.append(f"Uploaded as {plan.arrow.name[:100]!r}.")
    unit = plan_unit(plan)
    if unit is not None:
        parts.append(f"[{unit}]")
    return " ".join(parts) or None


def plan_unit(plan: ColumnPlan) -> str | None:
    """What the plain numbers of a column, of its list elements, or of its map keys and values count."""
    if pat.is_list(plan.storage.type):
        return plan_unit(plan.children[0])
    if pat.is_map(plan.storage.type):
        units = [
            f"{side}: {unit}"
            for side, child in zip(("key", "value"), plan.children, strict=True)
            if (unit := plan_unit(child))
        ]
        return "; ".join(units) or None
    return plan.unit


def comment_unit(text: str | None) -> str | None:
    """The unit that `comment` wrote at the end of a column comment; None if it wrote none."""
    if not text or not text.endswith("]") or "[" not in text:
        return None
    unit = text[text.rindex("[") + 1 : -1]
    return unit if _is_plan_unit(unit) else None


def _is_plan_unit(text: str) -> bool:
    words = [part.split(": ", 1)[1] if part.startswith(("key: ", "value: ")) else part for part in text.split("; ")]
    return all(any(known in part for known in UNITS_OF_PLAIN_NUMBERS) for part in words)
