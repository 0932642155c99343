"""The few things that SQLite and PostgreSQL say differently; everything else in a compiled query is common to both."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import BigInteger, ColumnElement, Connection, String, bindparam, collate, false, func, select
from sqlalchemy.dialects.postgresql import ARRAY


class SqlDialect(Protocol):
    """Expressions of one database."""

    def by_code_point(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """The text with an order of code points, for comparisons with `<` and `>`."""

    def contains_text(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]: ...

    def contains_bytes(self, data: ColumnElement[bytes], part: bytes) -> ColumnElement[bool]: ...

    def is_one_of(self, column: ColumnElement[Any], values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
        """Membership in a list of any length, sent as one parameter."""

    def without_index(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """The same text for a planner that takes any index on it for the best, for want of statistics."""


class _Sqlite:
    def by_code_point(self, text: ColumnElement[str]) -> ColumnElement[str]:
        # SQLite compares the bytes of UTF-8, which is the order of code points.
        return text

    def contains_text(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        return func.instr(text, part) > 0

    def contains_bytes(self, data: ColumnElement[bytes], part: bytes) -> ColumnElement[bool]:
        return func.instr(data, part) > 0

    def is_one_of(self, column: ColumnElement[Any], values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
        return column.in_(select(func.json_each(json.dumps(list(values))).table_valued("value").c.value))

    def without_index(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return text + ""


class _Postgresql:
    def by_code_point(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return collate(text, "C")

    def contains_text(self, text: ColumnElement[str], part: str) -> ColumnElement[bool]:
        return func.strpos(text, part) > 0

    def contains_bytes(self, data: ColumnElement[bytes], part: bytes) -> ColumnElement[bool]:
        return func.pg_catalog.position(data, part) > 0

    def is_one_of(self, column: ColumnElement[Any], values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
        kind = BigInteger if values and isinstance(values[0], int) else String
        array: Any = bindparam(None, list(values), type_=ARRAY(kind))
        return column == func.any(array) if values else false()

    def without_index(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return text


def dialect_of(connection: Connection) -> SqlDialect:
    """The dialect that the connection speaks."""
    return _Sqlite() if connection.dialect.name == "sqlite" else _Postgresql()
