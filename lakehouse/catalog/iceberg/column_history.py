"""Which column a name means in a table whose columns other engines have renamed, dropped or put in another's place.

Iceberg tells columns by their field ids; names change (Iceberg spec, "Schema Evolution"). Topics name their fields as
they were uploaded, and data files have the names of their time. The schemas that the table had in the past lead from
such a name to its id, and the id leads to the column of any file, whatever it is called there.

Engines can make a table forget schemas of the past. What names meant then is proven by a mark among the properties of
the table: a digest of the columns as the last upload that changed them left them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

ELEMENT, KEY, VALUE = "element", "key", "value"
# Value: "<last column id>:<digest>", see `uploaded_columns`.
COLUMNS_PROPERTY = "mosaico.columns"
_CHILD_IDS = {ELEMENT: "element-id", KEY: "key-id", VALUE: "value-id"}

ColumnPath = tuple[str, ...]


class Column(NamedTuple):
    """A column or nested field of a schema.

    Attributes:
        path: Names from the top-level column down; elements, keys and values have the names of the constants above.
        field_id: Of Iceberg.
        is_leaf: Whether nothing lies below it.
        is_repeated: Whether a row may hold several values of it, in a list or a map.
    """

    path: ColumnPath
    field_id: int
    is_leaf: bool
    is_repeated: bool


class ColumnHistory:
    """The columns of one state of a table, by all names they ever had.

    Args:
        schemas: All schemas of the table as JSON, in the order in which they came.
        current_schema_id: The one that holds now.
        uploaded: What `uploaded_columns` said when an upload last changed the columns; None where it was not kept.
    """

    def __init__(
        self, schemas: Sequence[Mapping[str, Any]], current_schema_id: int, uploaded: str | None = None
    ) -> None:
        self._schemas = schemas
        self._uploaded = uploaded
        self._current = next(each for each in schemas if each["schema-id"] == current_schema_id)

    @cached_property
    def current(self) -> Mapping[ColumnPath, int]:
        """Field id of each column and nested field by its path now."""
        return dict(columns_of(self._current))

    @cached_property
    def is_forgetful(self) -> bool:
        """Whether schemas of the past are missing, so that names may have meant other columns than is known."""
        ids = {schema["schema-id"] for schema in self._schemas}
        return len(ids) <= max(ids)

    @cached_property
    def _proven(self) -> Mapping[ColumnPath, int]:
        """Columns that have the names which uploads gave them, whatever was forgotten since."""
        last_id, _, _ = (self._uploaded or "").partition(":")
        if not last_id.isdecimal() or uploaded_columns(self._current, int(last_id)) != self._uploaded:
            return {}
        return {path: field_id for path, field_id in self.current.items() if field_id <= int(last_id)}

    def knows(self, path: ColumnPath) -> bool:
        """Whether all columns are known that the path can mean."""
        return not self.is_forgetful or path in self._proven

    @cached_property
    def _ids(self) -> Mapping[ColumnPath, frozenset[int]]:
        found: dict[ColumnPath, set[int]] = {}
        for schema in self._schemas:
            for path, field_id in columns_of(schema):
                found.setdefault(path, set()).add(field_id)
        return {path: frozenset(ids) for path, ids in found.items()}

    @cached_property
    def _live(self) -> frozenset[int]:
        return frozenset(self.current.values())

    @cached_property
    def is_plain(self) -> bool:
        """Whether every name ever used means one column that still has it, so that names are as good as ids."""
        if self.is_forgetful:
            return False
        return len(self._schemas) == 1 or all(
            self.current.get(path) == field_id for path, ids in self._ids.items() for field_id in ids
        )

    @cached_property
    def keeps_names(self) -> bool:
        """Whether columns were added and dropped at most: those of today never had another name, nor has anybody had
        theirs."""
        return all(
            self.current.get(path) == field_id or (field_id not in self._live and path not in self.current)
            for path, ids in self._ids.items()
            for field_id in ids
        )

    def ids(self, path: ColumnPath) -> frozenset[int]:
        """The columns that had this path at some time as far as that is known, dropped ones included."""
        if self.is_forgetful and path in self._proven:
            return frozenset({self._proven[path]})
        return self._ids.get(path, frozenset())

    def is_live(self, field_id: int) -> bool:
        """Whether a column was not dropped."""
        return field_id in self._live

    def field_id(self, path: ColumnPath) -> int | None:
        """The one column that the path can mean; None if it was dropped, was never there, or several had, or may have
        had, the name."""
        if not self.knows(path):
            return None
        ids = self.ids(path)
        field_id = next(iter(ids)) if len(ids) == 1 else None
        return field_id if field_id in self._live else None

    def is_taken_away(self, path: ColumnPath) -> bool:
        """Whether a column lives on under another name than this."""
        return any(self.is_live(field_id) and self.current.get(path) != field_id for field_id in self.ids(path))

    def takes_names(self, paths: Iterable[ColumnPath]) -> bool:
        """Whether values can be added under these names without a column of earlier ones being torn in two."""
        if self.is_forgetful and not self._proven:
            return False
        return not any(self.is_taken_away(path) or (path in self.current and not self.knows(path)) for path in paths)


def uploaded_columns(schema: Mapping[str, Any], last_id: int) -> str:
    """The mark of the columns of a schema in JSON, up to the one with the highest id; it ignores those added later."""
    columns = sorted((field_id, path) for path, field_id in columns_of(schema) if field_id <= last_id)
    return f"{last_id}:{hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:32]}"


def columns_of(schema: Mapping[str, Any]) -> Iterator[tuple[ColumnPath, int]]:
    """Path and field id of every column and nested field of a schema in JSON."""
    return ((column.path, column.field_id) for column in walk_columns(schema))


def walk_columns(schema: Mapping[str, Any]) -> Iterator[Column]:
    """Every column and nested field of a schema in JSON (Iceberg spec, Appendix C), each before those below it."""
    return _fields(schema["fields"], (), is_repeated=False)


def _fields(fields: Sequence[Mapping[str, Any]], parent: ColumnPath, *, is_repeated: bool) -> Iterator[Column]:
    for field in fields:
        yield from _column((*parent, field["name"]), field["id"], field["type"], is_repeated=is_repeated)


def _column(path: ColumnPath, field_id: int, kind: Any, *, is_repeated: bool) -> Iterator[Column]:
    is_leaf = isinstance(kind, str)
    yield Column(path, field_id, is_leaf, is_repeated)
    if is_leaf:
        return
    if kind["type"] == "struct":
        yield from _fields(kind["fields"], path, is_repeated=is_repeated)
        return
    for name in (ELEMENT,) if kind["type"] == "list" else (KEY, VALUE):
        yield from _column((*path, name), kind[_CHILD_IDS[name]], kind[name], is_repeated=True)
