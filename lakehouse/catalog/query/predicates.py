"""Which rows satisfy conditions: exact, over columns (protocol sections 12.6 and 12.7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator, Quantifier
from lakehouse.catalog.query.field_columns import FieldColumn, find_column
from lakehouse.catalog.query.value_conditions import is_comparable, value_set
from lakehouse.catalog.query.value_sets import Mask, TextSet, ValueSet, text_successor, validity
from lakehouse.ontology.arrow_iceberg import StoragePlan
from lakehouse.ontology.list_layout import ListLayout, read_list, select
from lakehouse.ontology.storage_types import is_any_list

MAX_LIST_OPERAND = 1024


@dataclass(frozen=True, slots=True)
class RowCondition:
    """One condition, compiled for the columns of one schema.

    Attributes:
        source: The condition as it was asked.
        column: Where the values are.
        values: What one value has to be; None if the condition is not about single values.
        elements: What each element of a whole list has to be; None if the condition is not about a whole list.
        wants_absent: The value has to be null (`$nex`).
        is_negated: The list has to differ from `elements`.
    """

    source: FieldCondition
    column: FieldColumn
    values: ValueSet | None = None
    elements: tuple[ValueSet, ...] | None = None
    wants_absent: bool = False
    is_negated: bool = False

    def mask(self, rows: pa.RecordBatch) -> Mask:
        """Per row of storage whether the condition holds."""
        found = _descend(rows, self.column.path)
        if found is None:
            # Files written before the table had the column hold nulls.
            return np.full(rows.num_rows, self.wants_absent and (self.column.is_whole_list or not self.column.is_list))
        if self.column.is_map:
            return self._map_mask(found)
        if self.column.is_list:
            if not is_any_list(found.type):
                return np.zeros(rows.num_rows, np.bool_)
            if self.column.is_whole_list:
                return self._whole_list_mask(found)
            return self._element_mask(read_list(found))
        return self._value_mask(found)

    def _value_mask(self, values: pa.Array | None, count: int = 0) -> Mask:
        if values is None:
            return np.full(count, self.wants_absent)
        if self.wants_absent:
            return ~validity(values)
        assert self.values is not None
        return self.values.contains(_in_form(values, self.column.storage_kind))

    def _element_mask(self, lists: ListLayout) -> Mask:
        starts, lengths = lists.offsets[:-1], np.diff(lists.offsets)
        elements = select(lists.values, lists.selection)
        specifier = self.column.specifier
        if isinstance(specifier, int):
            is_long_enough = lengths > specifier
            chosen = elements.take(pa.array(starts[is_long_enough] + specifier))
            result = np.zeros(lists.row_count, np.bool_)
            result[is_long_enough] = self._value_mask(_inside(chosen, self.column.inner_path), len(chosen))
            return result
        holds = self._value_mask(_inside(elements, self.column.inner_path), len(elements))
        found = _count_true(holds, lists)
        if specifier is Quantifier.ANY:
            return found > 0
        return (found == lengths) & lists.is_valid()

    def _whole_list_mask(self, array: pa.Array) -> Mask:
        if self.wants_absent:
            return ~validity(array)
        if self.elements is None:  # $ex
            return validity(array)
        lists = read_list(array)
        elements = _in_form(select(lists.values, lists.selection), self.column.storage_kind)
        valid = lists.is_valid()
        alike = np.flatnonzero(valid & (np.diff(lists.offsets) == len(self.elements)))
        for position, allowed in enumerate(self.elements):
            if len(alike) == 0:
                break
            alike = alike[allowed.contains(elements.take(pa.array(lists.offsets[alike] + position)))]
        result = np.zeros(lists.row_count, np.bool_)
        result[alike] = True
        return valid & ~result if self.is_negated else result

    def _map_mask(self, array: pa.Array) -> Mask:
        if not pat.is_map(array.type):
            return np.zeros(len(array), np.bool_)
        maps = read_list(array)
        entries = select(maps.values, maps.selection)
        assert self.column.map_key is not None
        key = self.column.map_key.encode("utf-8", "surrogatepass")
        is_meant = TextSet([(key, text_successor(key))]).contains(entries.field(0))
        items = entries.field(1)
        if self.wants_absent:
            return _count_true(is_meant & validity(items), maps) == 0
        assert self.values is not None
        return _count_true(is_meant & self.values.contains(_in_form(items, self.column.storage_kind)), maps) > 0


@dataclass(frozen=True, slots=True)
class RowPredicate:
    """All conditions on a row, for one schema.

    Attributes:
        conditions: Those that have to be looked at.
        is_never: Whether no row of the schema can satisfy them.
    """

    conditions: tuple[RowCondition, ...]
    is_never: bool = False

    @classmethod
    def compile(cls, conditions: Sequence[FieldCondition], plan: StoragePlan) -> "RowPredicate":
        """Compile conditions on one tag for the topics of one schema.

        Raises:
            BadRequestError: If a condition is about a list of lists, or compares a whole list in a way that is not
                defined.
        """
        compiled: list[RowCondition] = []
        is_never = False
        for each in conditions:
            found = _compile(each, plan)
            if found is False:
                is_never = True
            elif found is not True:
                compiled.append(found)
        return cls(() if is_never else tuple(compiled), is_never)

    def mask(self, rows: pa.RecordBatch) -> Mask:
        """Per row of storage whether all conditions hold."""
        result = np.full(rows.num_rows, not self.is_never)
        for condition in self.conditions:
            if not result.any():
                break
            result &= condition.mask(rows)
        return result


def _compile(source: FieldCondition, plan: StoragePlan) -> RowCondition | bool:
    operator = source.condition.operator
    column = find_column(source.path, operator, plan)
    if column is None:
        return operator is Operator.NOT_EXISTS
    if not is_comparable(column.kind):
        return False
    if operator is Operator.NOT_EXISTS:
        return RowCondition(source, column, wants_absent=True)
    if column.is_whole_list:
        return _compile_list(source, column)
    values = value_set(source.condition, column.kind)
    return False if values is None else RowCondition(source, column, values)


def _compile_list(source: FieldCondition, column: FieldColumn) -> RowCondition | bool:
    operator, operand = source.condition.operator, source.condition.operand
    if operator is Operator.EXISTS:
        return RowCondition(source, column)
    if not isinstance(operand, tuple | list):
        return False
    elements = [value_set(Condition(Operator.EQUAL, each), column.kind) for each in operand]
    known = tuple(each for each in elements if each is not None)
    is_negated = operator is Operator.NOT_EQUAL
    if len(known) < len(elements):
        # NaN equals nothing, so the list differs; a value of another type compares with nothing.
        has_nan = all(each is not None or value != value for each, value in zip(elements, operand, strict=True))
        return RowCondition(source, column) if is_negated and has_nan else False
    return RowCondition(source, column, elements=known, is_negated=is_negated)


def _descend(rows: pa.RecordBatch, path: Sequence[str]) -> pa.Array | None:
    position = rows.schema.get_field_index(path[0])
    return None if position < 0 else _inside(rows.column(position), path[1:])


def _inside(array: pa.Array, path: Sequence[str]) -> pa.Array | None:
    """The values below structs, null where a struct above is null; None if there is no such child."""
    for name in path:
        position = array.type.get_field_index(name) if pat.is_struct(array.type) else -1
        if position < 0:
            return None
        array = pc.struct_field(array, [position])
    return array


def _count_true(holds: Mask, lists: ListLayout) -> np.ndarray:
    """Per row, how many of its elements hold."""
    running = np.concatenate([[0], np.cumsum(holds)])
    found: np.ndarray = np.diff(running[lists.offsets])
    return found


_FAMILIES = (pat.is_integer, pat.is_floating, pat.is_boolean)


def _in_form(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Values of a file whose type another engine or a later schema widened, as far as that makes a difference."""
    stored = values.type
    if stored == kind or any(belongs(stored) and belongs(kind) for belongs in _FAMILIES):
        return values
    if pat.is_decimal(stored) and pat.is_decimal(kind) and stored.scale == kind.scale:
        return values
    return values.cast(kind)
