"""The leaf columns of a nested Arrow schema, as Parquet and Iceberg count them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa
import pyarrow.types as pat

FIELD_ID_KEY = b"PARQUET:field_id"


class Repeated(Enum):
    """The steps from a repeated column to its children; steps into structs are child numbers."""

    ELEMENT = "element"
    KEY = "key"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One primitive column of a Parquet file.

    Attributes:
        field_id: Iceberg field id.
        parquet_path: Dotted path in the Parquet schema, `list.element` and `key_value.key` included.
        column: Number of the top-level column.
        steps: The way from the top-level column to the leaf.
        type: Arrow type of the values.
    """

    field_id: int
    parquet_path: str
    column: int
    steps: tuple[int | Repeated, ...]
    type: pa.DataType

    @property
    def is_repeated(self) -> bool:
        """Whether a row holds any number of values, because a list or map lies above."""
        return any(isinstance(step, Repeated) for step in self.steps)

    @property
    def is_top_level(self) -> bool:
        return not self.steps

    def values(self, batch: pa.RecordBatch) -> pa.Array:
        """The values of the leaf in `batch`.

        One per row (null where a struct above is null) for a leaf that is not repeated; else the elements of all
        lists one after another.
        """
        array = batch.column(self.column)
        for step in self.steps:
            array = _child(array, step)
        return array


def parquet_leaves(schema: pa.Schema) -> list[Leaf]:
    """The leaves of `schema` in the order of Parquet columns.

    Raises:
        ValueError: If a leaf carries no Iceberg field id.
    """
    return [leaf for number, field in enumerate(schema) for leaf in _descend(field, field.name, number, ())]


def _descend(field: pa.Field, path: str, column: int, steps: tuple[int | Repeated, ...]) -> Iterator[Leaf]:
    kind = field.type
    if pat.is_struct(kind):
        for number in range(kind.num_fields):
            child = kind.field(number)
            yield from _descend(child, f"{path}.{child.name}", column, (*steps, number))
    elif pat.is_map(kind):
        yield from _descend(kind.key_field, f"{path}.key_value.key", column, (*steps, Repeated.KEY))
        yield from _descend(kind.item_field, f"{path}.key_value.value", column, (*steps, Repeated.VALUE))
    elif pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind):
        yield from _descend(kind.value_field, f"{path}.list.element", column, (*steps, Repeated.ELEMENT))
    else:
        field_id = (field.metadata or {}).get(FIELD_ID_KEY)
        if field_id is None:
            raise ValueError(f"column {path} has no Iceberg field id")
        yield Leaf(int(field_id), path, column, steps, kind)


def _child(array: pa.Array, step: int | Repeated) -> pa.Array:
    if isinstance(step, int):
        # flatten() puts the nulls of the struct into the child; field() is free.
        return array.flatten()[step] if array.null_count else array.field(step)
    if step is Repeated.ELEMENT:
        return array.flatten()
    # keys and items ignore slices, and null maps may still cover entries.
    if array.null_count:
        array = array.drop_null()
    entries = array.keys if step is Repeated.KEY else array.items
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return entries.slice(first, last - first)
