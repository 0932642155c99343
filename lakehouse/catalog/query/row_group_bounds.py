"""Bounds of row groups, from the statistics in Parquet footers."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.catalog.iceberg.column_history import ELEMENT, KEY, VALUE
from lakehouse.catalog.query.leaf_bounds import UNKNOWN, LeafBounds
from lakehouse.ontology.storage_types import is_any_list

LeafPath = tuple[str, ...]


def find_leaf(footer: pq.FileMetaData, path: LeafPath) -> int | None:
    """Number of the Parquet column of a leaf; None if the file has none."""
    paths = [footer.schema.column(number).path for number in range(footer.num_columns)]
    usual = _usual_path(path)
    if usual in paths:
        return paths.index(usual)
    if ELEMENT not in path and VALUE not in path and KEY not in path:
        return None
    # Other writers name the levels of lists and maps in other ways.
    leaves = list(_arrow_leaves(footer.schema.to_arrow_schema()))
    return leaves.index(path) if path in leaves else None


def row_group_bounds(
    footer: pq.FileMetaData, column: int | None, kind: pa.DataType, row_groups: Sequence[int]
) -> LeafBounds:
    """What the footer says of a leaf in some row groups.

    Args:
        footer: Footer of the file.
        column: Number of its Parquet column; None: the file has none, and nothing is known.
        kind: Type the values are stored as in our own files.
        row_groups: Numbers of row groups.
    """
    if column is None or not _has_usual_order(footer.schema.column(column), kind):
        return LeafBounds.unknown(kind, len(row_groups))
    return LeafBounds.of_values(kind, (_chunk(footer.row_group(each).column(column), kind) for each in row_groups))


def _chunk(chunk: pq.ColumnChunkMetaData, kind: pa.DataType) -> tuple[Any, Any, int, int, int]:
    known = chunk.statistics
    if known is None:
        return None, None, UNKNOWN, UNKNOWN, UNKNOWN
    nulls = known.null_count if known.has_null_count else UNKNOWN
    if not known.has_min_max:
        return None, None, chunk.num_values, nulls, UNKNOWN
    return _plain(known.min_raw, kind), _plain(known.max_raw, kind), chunk.num_values, nulls, UNKNOWN


def _plain(raw: Any, kind: pa.DataType) -> Any:
    if pat.is_decimal(kind):
        return int.from_bytes(raw, "big", signed=True) if isinstance(raw, bytes) else int(raw)
    return int(raw) if isinstance(raw, bool) else raw


def _has_usual_order(column: pq.ColumnSchema, kind: pa.DataType) -> bool:
    """Whether values and statistics of the column mean what they do in our own files, widened numbers included."""
    physical, logical = column.physical_type, json.loads(column.logical_type.to_json())
    name = logical.get("Type", "None")
    if pat.is_string(kind):
        return physical == "BYTE_ARRAY" and name == "String"
    if pat.is_decimal(kind):
        return name == "Decimal" and logical.get("scale") == kind.scale
    if pat.is_boolean(kind):
        return bool(physical == "BOOLEAN")
    if pat.is_floating(kind):
        return physical in ("FLOAT", "DOUBLE") and name == "None"
    if pat.is_date(kind):
        return name == "Date"
    if pat.is_timestamp(kind):
        return name == "Timestamp" and logical.get("timeUnit") == "microseconds"
    if pat.is_integer(kind):
        return physical in ("INT32", "INT64") and (name == "None" or (name == "Int" and bool(logical.get("isSigned"))))
    return False


def _usual_path(path: LeafPath) -> str:
    steps = {ELEMENT: "list.element", KEY: "key_value.key", VALUE: "key_value.value"}
    # A struct child may be called like a step; then the slow way decides.
    return ".".join((path[0], *(steps.get(name, name) for name in path[1:])))


def _arrow_leaves(schema: pa.Schema) -> Iterator[LeafPath]:
    for field in schema:
        yield from _leaves(field.type, (field.name,))


def _leaves(kind: pa.DataType, path: LeafPath) -> Iterator[LeafPath]:
    if pat.is_struct(kind):
        for number in range(kind.num_fields):
            child = kind.field(number)
            yield from _leaves(child.type, (*path, child.name))
    elif pat.is_map(kind):
        yield from _leaves(kind.key_type, (*path, KEY))
        yield from _leaves(kind.item_type, (*path, VALUE))
    elif is_any_list(kind):
        yield from _leaves(kind.value_type, (*path, ELEMENT))
    else:
        yield path
