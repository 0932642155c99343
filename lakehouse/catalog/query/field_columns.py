"""Where the field of a condition is in the columns of a topic."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.iceberg.column_history import ELEMENT, KEY, VALUE
from lakehouse.catalog.query.conditions import FieldPath, Operator, Quantifier
from lakehouse.catalog.query.value_conditions import is_text
from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN, ColumnPlan, StoragePlan
from lakehouse.ontology.storage_types import is_any_list

_TIMESTAMP_FIELD = pa.field(TIMESTAMP_COLUMN, pa.int64(), nullable=False)
_TIMESTAMP_PLAN = ColumnPlan(_TIMESTAMP_FIELD, _TIMESTAMP_FIELD)


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """The column a condition is about.

    Attributes:
        path: Names in storage of the structs down to the leaf, or down to the list or map it is in.
        inner_path: Names in storage of the structs inside the list element, down to the leaf.
        kind: Type of the values compared, as uploaded: of the leaf, or of the elements of a list compared as a whole.
        storage_kind: The type they are stored as.
        is_list: Whether a list is on the way, or is what is compared.
        specifier: Element or quantifier of the list; None where there is none or the list is compared as a whole.
        map_key: The entry of a map meant; None if the column is no map.
    """

    path: tuple[str, ...]
    inner_path: tuple[str, ...]
    kind: pa.DataType
    storage_kind: pa.DataType
    is_list: bool = False
    specifier: int | Quantifier | None = None
    map_key: str | None = None

    @property
    def is_map(self) -> bool:
        return self.map_key is not None

    @property
    def is_repeated(self) -> bool:
        """Whether a row holds any number of values."""
        return self.is_list or self.is_map

    @property
    def is_whole_list(self) -> bool:
        return self.is_list and self.specifier is None

    @property
    def leaf_path(self) -> tuple[str, ...]:
        """Path of the leaf with the bounds that matter, list elements called `element`, values of maps `value`."""
        if self.is_map:
            return (*self.path, VALUE)
        return (*self.path, ELEMENT, *self.inner_path) if self.is_list else self.path

    @property
    def leaf_paths(self) -> tuple[tuple[str, ...], ...]:
        """Every leaf that has to be read."""
        return ((*self.path, KEY), self.leaf_path) if self.is_map else (self.leaf_path,)


def find_column(path: FieldPath, operator: Operator, plan: StoragePlan) -> FieldColumn | None:
    """The column of a topic that a path leads to.

    Returns:
        None if the topic has no such column. Columns without comparable values (struct, whole map, binary) are found.

    Raises:
        BadRequestError: If the path leads into a list of lists, or to a whole list with an operator for single values.
    """
    if path.segments == (TIMESTAMP_COLUMN,):
        found: ColumnPlan | None = _TIMESTAMP_PLAN
    else:
        found = _child(plan.payload, path.segments[0])
    names: list[str] = []
    inner: list[str] = []
    is_inside_list = False
    for number, segment in enumerate(path.segments):
        if number:
            assert found is not None
            if pat.is_map(found.arrow.type):
                return None if is_inside_list else _map_entry(found, names, path.segments[number:])
            found = _child(found.children, segment) if pat.is_struct(found.arrow.type) else None
        if found is None:
            return None
        (inner if is_inside_list else names).append(found.storage.name)
        if path.list_segment == number:
            if not is_any_list(found.arrow.type):
                return None
            found, is_inside_list = _element(found, path), True
    assert found is not None
    kind = found.arrow.type
    if is_any_list(kind) and not is_inside_list:
        return _whole_list(found, names, path, operator)
    return FieldColumn(
        tuple(names), tuple(inner), kind, found.storage.type, is_inside_list, path.specifier if is_inside_list else None
    )


def _child(plans: tuple[ColumnPlan, ...], name: str) -> ColumnPlan | None:
    return next((plan for plan in plans if plan.arrow.name == name), None)


def _element(plan: ColumnPlan, path: FieldPath) -> ColumnPlan:
    element = plan.children[0]
    if is_any_list(element.arrow.type):
        raise BadRequestError(f"{quoted(path)} is a list of lists; conditions on those are not supported")
    return element


def _whole_list(plan: ColumnPlan, names: list[str], path: FieldPath, operator: Operator) -> FieldColumn:
    element = _element(plan, path)
    if operator not in (Operator.EQUAL, Operator.NOT_EQUAL, Operator.EXISTS, Operator.NOT_EXISTS):
        raise BadRequestError(
            f"{quoted(path)} is a list: compare it with '$eq' or '$neq' and an array, or choose elements with "
            "[0], [?] or [!]"
        )
    return FieldColumn(tuple(names), (), element.arrow.type, element.storage.type, is_list=True)


def _map_entry(plan: ColumnPlan, names: list[str], key: tuple[str, ...]) -> FieldColumn:
    key_plan, value = plan.children
    if not is_text(key_plan.arrow.type):  # keys of other types are not addressed by name
        return FieldColumn(tuple(names), (), plan.arrow.type, plan.storage.type)
    return FieldColumn(tuple(names), (), value.arrow.type, value.storage.type, map_key=".".join(key))
