"""The columns of a topic in data files that call them otherwise: found by field id, given the names of the topic.

Only where another engine has renamed, dropped or replaced columns of the table. What was dropped is null, as it is for
every reader of Iceberg; what a topic cannot be without is missed aloud.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.catalog.errors import ChangedTableError
from lakehouse.catalog.iceberg.column_history import ELEMENT, KEY, VALUE, ColumnHistory, ColumnPath
from lakehouse.ontology.evolution import PARQUET_FIELD_ID
from lakehouse.ontology.list_layout import build_list, read_list, select, validity_buffer
from lakehouse.ontology.storage_names import SEQUENCE_COLUMN, TIMESTAMP_COLUMN
from lakehouse.ontology.storage_types import ColumnPlan, column_text, is_any_list


@dataclass(frozen=True, slots=True)
class WantedColumn:
    """A column as the topic knows it.

    Attributes:
        name: In storage; the levels of lists and maps are called `element`, `key` and `value`.
        children: Of structs, lists and maps, as far as they are wanted.
        absent: Type of the nulls that take its place where the table has it no more; None: it is left out.
        is_required: Whether rows cannot be without it.
    """

    name: str
    children: tuple["WantedColumn", ...] = ()
    absent: pa.DataType | None = None
    is_required: bool = False


# Payload never has these names.
_OWN = (WantedColumn(TIMESTAMP_COLUMN), WantedColumn(SEQUENCE_COLUMN))


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """What is wanted of a topic.

    Attributes:
        columns: The outermost ones.
        paths: Those of all of them, at every depth.
    """

    columns: tuple[WantedColumn, ...]
    paths: frozenset[ColumnPath]

    @classmethod
    def of_plan(cls, payload: Sequence[ColumnPlan]) -> "WantedColumns":
        """All columns of a topic."""
        return cls._of(tuple(_of_plan(plan.storage.name, plan) for plan in payload))

    @classmethod
    def of_paths(cls, paths: Iterable[ColumnPath]) -> "WantedColumns":
        """Some leaves of a topic."""
        return cls._of(_of_paths(paths))

    @classmethod
    def _of(cls, columns: tuple[WantedColumn, ...]) -> "WantedColumns":
        return cls(columns, frozenset(path for each in columns for path in _paths(each, ())))

    def have_their_names(self, history: ColumnHistory) -> bool:
        """Whether the names of the topic are as good as field ids, in every file of a table."""
        return history.is_plain and self.paths <= history.current.keys()


def _of_plan(name: str, plan: ColumnPlan) -> WantedColumn:
    wanted = WantedColumn(name, (), plan.storage.type, not plan.arrow.nullable)
    while pat.is_dictionary(plan.arrow.type):
        plan = plan.children[0]
    kind = plan.storage.type
    if pat.is_struct(kind):
        return replace(wanted, children=tuple(_of_plan(each.storage.name, each) for each in plan.children))
    names = (KEY, VALUE) if pat.is_map(kind) else (ELEMENT,) if is_any_list(kind) else ()
    levels = zip(names, plan.children, strict=True) if names else ()
    return replace(wanted, children=tuple(_of_plan(each, child) for each, child in levels))


def _of_paths(paths: Iterable[ColumnPath]) -> tuple[WantedColumn, ...]:
    below: dict[str, list[ColumnPath]] = {}
    for name, *rest in paths:
        below.setdefault(name, []).append(tuple(rest))
    return tuple(WantedColumn(name, _of_paths(filter(None, rest))) for name, rest in below.items())


def _paths(wanted: WantedColumn, parent: ColumnPath) -> Iterator[ColumnPath]:
    path = (*parent, wanted.name)
    yield path
    for child in wanted.children:
        yield from _paths(child, path)


@dataclass(frozen=True, slots=True)
class _Column:
    """A wanted column, and what the file calls it; None: the file has none."""

    wanted: WantedColumn
    source: str | None
    children: tuple["_Column", ...]

    def convert(self, array: pa.Array) -> pa.Array:
        """The values with the names of the topic."""
        if not self.children:
            return array
        if pat.is_struct(array.type):
            # Children are read as they lie: below a null struct nobody looks at them.
            parts = {field.name: array.field(number) for number, field in enumerate(array.type)}
            names, arrays = _converted(self.children, parts, len(array))
            kind = pa.struct([pa.field(name, each.type) for name, each in zip(names, arrays, strict=True)])
            buffers = [validity_buffer(array)]
            return pa.Array.from_buffers(kind, len(array), buffers, array.null_count, 0, arrays)
        layout = read_list(array)
        values = select(layout.values, layout.selection)
        converters = {child.wanted.name: child.convert for child in self.children}
        if pat.is_map(array.type):
            key, item = (
                converters[name](values.field(number)) if name in converters else values.field(number)
                for number, name in enumerate((KEY, VALUE))
            )
            kind = pa.map_(key.type, item.type)
            entries = pa.struct([kind.key_field, kind.item_field])
            values = pa.Array.from_buffers(entries, len(values), [None], 0, 0, [key, item])
        else:
            values = converters[ELEMENT](values)
            kind = pa.list_(pa.field(array.type.value_field.name, values.type))
        return build_list(kind, layout, values)


def _converted(
    columns: Sequence[_Column], parts: Mapping[str, pa.Array], length: int
) -> tuple[list[str], list[pa.Array]]:
    """Names and values of the columns that were read, or have nulls in their place."""
    names, arrays = [], []
    for column in columns:
        if column.source is None and column.wanted.absent is not None:
            values = pa.nulls(length, column.wanted.absent)
        elif column.source is None or column.source not in parts:
            continue
        else:
            values = column.convert(parts[column.source])
        names.append(column.wanted.name)
        arrays.append(values)
    return names, arrays


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The wanted columns of one file.

    Attributes:
        columns: The topic's, and those that all topics have.
    """

    columns: tuple[_Column, ...]

    @classmethod
    def find(
        cls, schema: pa.Schema, history: ColumnHistory, wanted: WantedColumns, *, is_as_uploaded: bool
    ) -> "FileColumns":
        """Find them by their ids.

        Args:
            schema: Of the file, with field ids.
            history: Of the table.
            wanted: Columns of the topic.
            is_as_uploaded: Whether the file is one of ours, in which columns have the names of the upload.

        Raises:
            ChangedTableError: If a column that rows cannot be without was dropped, or it cannot be told which is meant.
        """
        if not is_as_uploaded:
            _check_known(history, wanted)
        columns = {each.name: each for each in (*_OWN, *wanted.columns)}
        naming = _Naming(history, history.is_forgetful and is_as_uploaded)
        return cls(tuple(_find(each, (), list(schema), naming) for each in columns.values()))

    @property
    def sources(self) -> list[str]:
        """Names in the file of the columns of the topic and of its timestamps, as far as it has them."""
        return [each.source for each in self.columns if each.source is not None and each.wanted.name != SEQUENCE_COLUMN]

    def source_path(self, path: ColumnPath) -> ColumnPath | None:
        """What the file calls a leaf of the topic; None if it has none."""
        found: list[str] = []
        columns = self.columns
        for name in path:
            column = next((each for each in columns if each.wanted.name == name), None)
            if column is None or column.source is None:
                return None
            found.append(column.source)
            columns = column.children
        return tuple(found)

    def renamed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of the file with the names of the topic; what is not wanted is left out."""
        parts = dict(zip(rows.schema.names, rows.columns, strict=True))
        names, arrays = _converted(self.columns, parts, rows.num_rows)
        return pa.RecordBatch.from_arrays(arrays, names=names)


@dataclass(frozen=True, slots=True)
class _Naming:
    """How names of a topic lead to columns of a file.

    Attributes:
        history: Of the table.
        is_as_uploaded: Whether the file tells more than the table, which has forgotten what the names meant.
    """

    history: ColumnHistory
    is_as_uploaded: bool


def _check_known(history: ColumnHistory, wanted: WantedColumns) -> None:
    """Refuse to guess in files of other engines, in which columns have the names of any time."""
    paths = {*wanted.paths, *((each.name,) for each in _OWN)}
    unknown = min((path for path in paths if not history.knows(path)), default=None)
    if unknown is not None:
        raise ChangedTableError(
            f"it cannot be told which column of the table is {column_text(unknown)} of the upload: another engine "
            "rewrote files of the table, and the schemas that tell what its columns were called were removed"
        )


def _find(wanted: WantedColumn, parent: ColumnPath, siblings: Sequence[pa.Field], naming: _Naming) -> _Column:
    path = (*parent, wanted.name)
    field = _resolve(path, siblings, naming)
    if field is None and wanted.is_required:
        raise ChangedTableError(
            f"{column_text(path)} was dropped from the table by another engine, and the topic has no rows without it"
        )
    return _Column(wanted, None, ()) if field is None else _column(wanted, path, field, field.name, naming)


def _column(wanted: WantedColumn, path: ColumnPath, field: pa.Field, source: str, naming: _Naming) -> _Column:
    kind = field.type
    if pat.is_struct(kind):
        return _Column(wanted, source, tuple(_find(each, path, list(kind), naming) for each in wanted.children))
    levels = {}
    if pat.is_map(kind):
        levels = {KEY: kind.key_field, VALUE: kind.item_field}
    elif is_any_list(kind):
        levels = {ELEMENT: kind.value_field}
    children = [each for each in wanted.children if each.name in levels]
    found = (_column(each, (*path, each.name), levels[each.name], each.name, naming) for each in children)
    return _Column(wanted, source, tuple(found))


def _resolve(path: ColumnPath, siblings: Sequence[pa.Field], naming: _Naming) -> pa.Field | None:
    """The field of the file that a path of the topic means; None if it was dropped, or is younger than the file."""
    history = naming.history
    known = history.ids(path)
    named = next((each for each in siblings if each.name == path[-1]), None)
    if naming.is_as_uploaded:
        return named if named is not None and history.is_live(_field_id(named, path, history)) else None
    if not known:
        # The table has forgotten the schemas of that time. The file tells the id, if it is of that time.
        if named is None:
            raise ChangedTableError(
                f"{column_text(path)} is not in the table any more: another engine renamed or dropped it, and the "
                "table has forgotten since which"
            )
        return named if history.is_live(_field_id(named, path, history)) else None
    found = [each for each in siblings if (own := _field_id(each, path, history)) in known and history.is_live(own)]
    if len(found) > 1:
        raise ChangedTableError(
            f"{column_text(path)} may be either of two columns of the table: another engine renamed one and gave its "
            "name to another"
        )
    return found[0] if found else None


def _field_id(field: pa.Field, path: ColumnPath, history: ColumnHistory) -> int:
    own = (field.metadata or {}).get(PARQUET_FIELD_ID)
    # A file that was added as it is may have no ids: it is read by the names of the table.
    return int(own) if own is not None else history.current.get((*path[:-1], field.name), -1)
