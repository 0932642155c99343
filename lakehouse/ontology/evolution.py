"""Whether a table can hold the rows of an upload as it is, after growing, or not at all.

Iceberg tables may gain optional columns and struct fields, and may widen numbers (int to long, float to double, a
decimal's precision). Rows narrower than their column are fine. Everything else needs another table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa
import pyarrow.types as pat
from pyiceberg.schema import Schema
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StructType,
)

from lakehouse.ontology.iceberg_types import (
    arrow_type_of_primitive,
    comment_unit,
    iceberg_field,
    plan_unit,
    primitive_type,
)
from lakehouse.ontology.storage_names import fold_case
from lakehouse.ontology.storage_types import ColumnPlan, column_text

PARQUET_FIELD_ID = b"PARQUET:field_id"

ColumnPath = tuple[str, ...]


class IncompatibleTableError(ValueError):
    """A table cannot hold the rows of an upload, or not before it evolves."""


class Verdict(StrEnum):
    """What `compare` finds."""

    COMPATIBLE = "compatible"
    NEEDS_UPDATE = "needs update"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True)
class ColumnAddition:
    """An optional column to add at `path` (list elements are `element`, map values `value`)."""

    path: ColumnPath
    type: IcebergType
    comment: str | None


@dataclass(frozen=True, slots=True)
class TypePromotion:
    """A primitive column at `path` to widen to `type`."""

    path: ColumnPath
    type: PrimitiveType


@dataclass(frozen=True, slots=True)
class Evolution:
    """The difference between a table and what an upload needs.

    Attributes:
        reason: Why the table is incompatible; None otherwise.
    """

    additions: tuple[ColumnAddition, ...] = ()
    promotions: tuple[TypePromotion, ...] = ()
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        if self.reason is not None:
            return Verdict.INCOMPATIBLE
        return Verdict.NEEDS_UPDATE if self.additions or self.promotions else Verdict.COMPATIBLE

    def apply_to(self, update: UpdateSchema) -> None:
        """Stage the additions and promotions on an open schema update of the table."""
        for promotion in self.promotions:
            update.update_column(promotion.path, field_type=promotion.type)
        for addition in self.additions:
            update.add_column(addition.path, addition.type, doc=addition.comment)


@dataclass(slots=True)
class _Difference:
    additions: list[ColumnAddition] = field(default_factory=list)
    promotions: list[TypePromotion] = field(default_factory=list)


def compare(table_schema: Schema, envelope: Sequence[NestedField], payload: tuple[ColumnPlan, ...]) -> Evolution:
    """What the table needs to hold `envelope` and `payload`."""
    difference = _Difference()
    try:
        for wanted in envelope:
            found = next((each for each in table_schema.fields if each.name == wanted.name), None)
            if found is None or found.field_type != wanted.field_type:
                raise IncompatibleTableError(f"the table has no {wanted.field_type} column '{wanted.name}'")
        own_names = {each.name for each in envelope}
        fields = [each for each in table_schema.fields if each.name not in own_names]
        _compare_siblings(fields, payload, (), difference, may_grow=True)
    except IncompatibleTableError as error:
        return Evolution(reason=str(error))
    return Evolution(tuple(difference.additions), tuple(difference.promotions))


def _compare_siblings(
    fields: Sequence[NestedField],
    plans: tuple[ColumnPlan, ...],
    parent: ColumnPath,
    difference: _Difference,
    may_grow: bool,
) -> None:
    by_name = {each.name: each for each in fields}
    folded = {fold_case(each.name) for each in fields}
    for missing in by_name.keys() - {plan.storage.name for plan in plans}:
        if by_name[missing].required:
            raise IncompatibleTableError(f"{column_text((*parent, missing))} is required by the table")
    for plan in plans:
        path = (*parent, plan.storage.name)
        found = by_name.get(plan.storage.name)
        if found is None:
            if fold_case(plan.storage.name) in folded:
                raise IncompatibleTableError(f"{column_text(path)} differs only in case from one the table has")
            if not may_grow:
                raise IncompatibleTableError(f"{column_text(path)} would be added to a map key")
            addition = iceberg_field(plan)
            difference.additions.append(ColumnAddition(path, addition.field_type, addition.doc))
            continue
        if found.required:
            raise IncompatibleTableError(f"{column_text(path)} is required by the table")
        if comment_unit(found.doc) != plan_unit(plan):
            raise IncompatibleTableError(
                f"{column_text(path)} counts {comment_unit(found.doc) or 'plain numbers'} in the table and "
                f"{plan_unit(plan) or 'plain numbers'} in the upload"
            )
        _compare_types(found.field_type, plan, path, difference, may_grow)


def _compare_types(
    found: IcebergType, plan: ColumnPlan, path: ColumnPath, difference: _Difference, may_grow: bool
) -> None:
    wanted = plan.storage.type
    if pat.is_struct(wanted) and isinstance(found, StructType):
        _compare_siblings(found.fields, plan.children, path, difference, may_grow)
    elif pat.is_list(wanted) and isinstance(found, ListType):
        _refuse_required(found.element_required, path)
        _compare_types(found.element_type, plan.children[0], (*path, "element"), difference, may_grow)
    elif pat.is_map(wanted) and isinstance(found, MapType):
        _refuse_required(found.value_required, path)
        # The Iceberg spec lets map values evolve, never keys.
        _compare_types(found.key_type, plan.children[0], (*path, "key"), difference, may_grow=False)
        _compare_types(found.value_type, plan.children[1], (*path, "value"), difference, may_grow)
    elif pat.is_nested(wanted) or not isinstance(found, PrimitiveType):
        raise IncompatibleTableError(f"{column_text(path)} is {wanted} in the upload and {found} in the table")
    else:
        primitive = primitive_type(wanted)
        if found == primitive or can_widen(primitive, found):
            return
        if not may_grow or not can_widen(found, primitive):
            raise IncompatibleTableError(f"{column_text(path)} is {primitive} in the upload and {found} in the table")
        difference.promotions.append(TypePromotion(path, primitive))


def _refuse_required(required: bool, path: ColumnPath) -> None:
    if required:
        raise IncompatibleTableError(f"{column_text(path)} must not hold nulls in the table")


def can_widen(narrow: PrimitiveType, wide: PrimitiveType) -> bool:
    """Whether Iceberg format v2 may promote a column of type `narrow` to `wide`."""
    if isinstance(narrow, DecimalType) and isinstance(wide, DecimalType):
        return narrow.scale == wide.scale and narrow.precision < wide.precision
    return (isinstance(narrow, IntegerType) and isinstance(wide, LongType)) or (
        isinstance(narrow, FloatType) and isinstance(wide, DoubleType)
    )


def parquet_fields(
    table_schema: Schema, envelope: Sequence[NestedField], payload: tuple[ColumnPlan, ...]
) -> list[pa.Field]:
    """Fields of Parquet files that hold `envelope` and `payload` in the table, with the table's types and ids.

    Raises:
        IncompatibleTableError: If the table cannot hold them, or must evolve first.
    """
    difference = compare(table_schema, envelope, payload)
    if difference.verdict is not Verdict.COMPATIBLE:
        raise IncompatibleTableError(difference.reason or "the table must evolve before it can hold the upload")
    by_name = {each.name: each for each in table_schema.fields}
    own = [_parquet_field(by_name[each.name], None) for each in envelope]
    return own + [_parquet_field(by_name[plan.storage.name], plan) for plan in payload]


def _parquet_field(found: NestedField, plan: ColumnPlan | None) -> pa.Field:
    arrow_type = _parquet_type(found.field_type, plan)
    metadata = {PARQUET_FIELD_ID: str(found.field_id).encode()}
    return pa.field(found.name, arrow_type, nullable=not found.required, metadata=metadata)


def _parquet_type(found: IcebergType, plan: ColumnPlan | None) -> pa.DataType:
    # A dictionary's only child plans its values, which is the column itself in storage.
    while plan is not None and pat.is_dictionary(plan.arrow.type):
        plan = plan.children[0]
    if isinstance(found, PrimitiveType):
        arrow_type = arrow_type_of_primitive(found)
        if arrow_type is None:
            raise IncompatibleTableError(f"the table has a column of type {found}, which uploads never have")
        return arrow_type
    children = plan.children if plan is not None else ()
    if isinstance(found, StructType):
        by_name = {each.name: each for each in found.fields}
        return pa.struct([_parquet_field(by_name[child.storage.name], child) for child in children])
    if isinstance(found, ListType):
        return pa.list_(_parquet_field(found.element_field, children[0]))
    assert isinstance(found, MapType)
    return pa.map_(_parquet_field(found.key_field, children[0]), _parquet_field(found.value_field, children[1]))
