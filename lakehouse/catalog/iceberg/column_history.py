"""Which column a name means in a table whose columns other engines have renamed, dropped or put in another's place.

Iceberg tells columns by their field ids; names change (Iceberg spec, "Schema Evolution"). Topics name their fields as
they were uploaded, and data files have the names of their time. The schemas that the table had in the past lead from
such a name to its id, and the id leads to the column of any file, whatever it is called there.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

ELEMENT, KEY, VALUE = "element", "key", "value"
_CHILD_IDS = {ELEMENT: "element-id", KEY: "key-id", VALUE: "value-id"}

ColumnPath = tuple[str, ...]


class ColumnHistory:
    """The columns of one state of a table, by all names they ever had.

    Args:
        schemas: All schemas of the table as JSON, in the order in which they came.
        current_schema_id: The one that holds now.
    """

    def __init__(self, schemas: Sequence[Mapping[str, Any]], current_schema_id: int) -> None:
        self._schemas = schemas
        self._current = next(each for each in schemas if each["schema-id"] == current_schema_id)

    @cached_property
    def current(self) -> Mapping[ColumnPath, int]:
        """Field id of each column and nested field by its path now."""
        return dict(columns_of(self._current))

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
        if len(self._schemas) == 1:
            return True
        return all(self.current.get(path) == field_id for path, ids in self._ids.items() for field_id in ids)

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
        """The columns that had this path at some time, dropped ones included."""
        return self._ids.get(path, frozenset())

    def is_live(self, field_id: int) -> bool:
        """Whether a column was not dropped."""
        return field_id in self._live

    def field_id(self, path: ColumnPath) -> int | None:
        """The one column that the path can mean; None if it was dropped, was never there, or several had the name."""
        ids = self.ids(path)
        field_id = next(iter(ids)) if len(ids) == 1 else None
        return field_id if field_id in self._live else None

    def is_taken_away(self, path: ColumnPath) -> bool:
        """Whether a column lives on under another name than this."""
        return any(self.is_live(field_id) and self.current.get(path) != field_id for field_id in self.ids(path))


def columns_of(schema: Mapping[str, Any]) -> Iterator[tuple[ColumnPath, int]]:
    """Path and field id of every column and nested field of a schema in JSON (Iceberg spec, Appendix C)."""
    yield from _fields(schema["fields"], ())


def _fields(fields: Sequence[Mapping[str, Any]], parent: ColumnPath) -> Iterator[tuple[ColumnPath, int]]:
    for field in fields:
        path = (*parent, field["name"])
        yield path, field["id"]
        yield from _below(field["type"], path)


def _below(kind: Any, path: ColumnPath) -> Iterator[tuple[ColumnPath, int]]:
    if isinstance(kind, str):
        return
    if kind["type"] == "struct":
        yield from _fields(kind["fields"], path)
        return
    for name in (ELEMENT,) if kind["type"] == "list" else (KEY, VALUE):
        yield (*path, name), kind[_CHILD_IDS[name]]
        yield from _below(kind[name], (*path, name))
