"""What a SQL statement reads, found out by DuckDB itself: which tables, and which of their rows at most.

DuckDB hands filters on top-level columns to whatever it reads, filters on fields of structs not. So a statement is
planned once over empty tables. In that plan every filter stands right above the scan it belongs to, with all that the
optimizer knows, equalities that follow from joins included.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from pyiceberg.expressions import (
    AlwaysTrue,
    And,
    BooleanExpression,
    EqualTo,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNaN,
    LessThan,
    LessThanOrEqual,
    Or,
    Reference,
)

from lakehouse.catalog.errors import BadRequestError

_COMPARISONS = {
    "COMPARE_EQUAL": EqualTo,
    "COMPARE_GREATERTHAN": GreaterThan,
    "COMPARE_GREATERTHANOREQUALTO": GreaterThanOrEqual,
    "COMPARE_LESSTHAN": LessThan,
    "COMPARE_LESSTHANOREQUALTO": LessThanOrEqual,
}
# Their types in PyIceberg are those of its pydantic fields, not of its own constructors.
_in: Any = In
_is_nan: Any = IsNaN
_MIRRORED = {
    EqualTo: EqualTo,
    GreaterThan: LessThan,
    GreaterThanOrEqual: LessThanOrEqual,
    LessThan: GreaterThan,
    LessThanOrEqual: GreaterThanOrEqual,
}
# In the plan, columns are called `t3__name`, which tells the table.
_MARK = re.compile(r"^t(\d+)__(.*)$", re.DOTALL)


class TableName(NamedTuple):
    """A table as a statement names it."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PastTable:
    """A table as it was: `TABLE AT (VERSION => ...)`, or `AT (TIMESTAMP => ...)`.

    Attributes:
        version: Id of a snapshot, or name of a tag or branch; None if it is told by a moment.
        moment: Instant; None if it is told by a version.
    """

    table: TableName
    version: int | str | None
    moment: datetime | None


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """A DuckDB without tables, in which moments without a time zone are in UTC wherever it runs."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def without_past(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, dict[TableName, PastTable]]:
    """A SELECT in which every table as it was has a name of its own, and what these names stand for.

    DuckDB understands `AT` of tables that it keeps itself only.

    Raises:
        BadRequestError: If what follows AT is neither a version nor a moment, or what precedes it has no namespace.
    """
    tree = _parsed(connection, sql)
    past: dict[TableName, PastTable] = {}
    for node in _nodes(tree):
        if node.get("type") == "BASE_TABLE" and (clause := node.get("at_clause")):
            table = TableName(node["schema_name"], node["table_name"])
            if not table.namespace:
                raise BadRequestError(f"{table.name}: AT takes a table with its namespace, as in imu.imu_front")
            own = table._replace(name=f"{table.name} at {len(past)}")
            past[own] = _past_table(connection, table, clause)
            node["at_clause"] = None
            node["table_name"] = own.name
            node["qualified_name"] = {"path": list(own)}
            node["alias"] = node["alias"] or table.name
    if not past:
        return sql, {}
    (rewritten,) = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
    return str(rewritten[0]), past


def _past_table(connection: duckdb.DuckDBPyConnection, table: TableName, clause: dict[str, Any]) -> PastTable:
    value = _value(connection, clause["expr"])
    if clause["unit"].upper() == "VERSION" and isinstance(value, int | str):
        return PastTable(table, value, None)
    if clause["unit"].upper() == "TIMESTAMP" and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return PastTable(table, None, moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    raise BadRequestError(
        f"{'.'.join(table)}: AT takes (VERSION => snapshot id or tag), or (TIMESTAMP => '2026-03-14 09:00:00+00')"
    )


def tables_in(connection: duckdb.DuckDBPyConnection, sql: str) -> set[TableName]:
    """Namespace and name of every qualified table that a SELECT mentions.

    Raises:
        BadRequestError: If it is not one SELECT.
    """
    tree = _parsed(connection, sql)
    if tree.get("error"):
        message = str(tree.get("error_message", ""))
        if "SELECT statements can be serialized" in message:
            # DuckDB tells how the statement is looked at; what matters here is what may be asked.
            raise BadRequestError("one SELECT statement is wanted: statements that change something are refused")
        raise BadRequestError(f"the statement cannot be parsed: {message[:300]}")
    if len(tree["statements"]) != 1:
        raise BadRequestError("one SELECT statement is wanted at a time")
    return {
        TableName(node["schema_name"], node["table_name"])
        for node in _nodes(tree)
        if node.get("type") == "BASE_TABLE" and node.get("schema_name")
    }


def row_filters(sql: str, schemas: Mapping[TableName, pa.Schema]) -> dict[TableName, BooleanExpression]:
    """For each table a condition that all rows meet which can matter to the result.

    Args:
        sql: A SELECT over these tables.
        schemas: Columns of the tables.

    Raises:
        duckdb.Error: If the statement does not fit the tables.
    """
    connection = open_duckdb()
    tables = list(schemas)
    for number, table in enumerate(tables):
        marked = pa.schema([field.with_name(f"t{number}__{field.name}") for field in schemas[table]])
        connection.register(f"_empty_{number}", marked.empty_table())
        columns = ", ".join(f"{quoted(f't{number}__{name}')} AS {quoted(name)}" for name in schemas[table].names)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table[0])}")
        connection.execute(
            f"CREATE VIEW {quoted(table[0])}.{quoted(table[1])} AS SELECT {columns} FROM _empty_{number}"
        )
    rows = connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    plan = json.loads(rows[0][1])
    found: dict[int, BooleanExpression] = {}
    for filters, scan in _scans(plan, ""):
        names = scan.get("extra_info", {}).get("Projections") or []
        marks = {
            match.group(1) for name in ([names] if isinstance(names, str) else names) if (match := _MARK.match(name))
        }
        if len(marks) != 1:
            return {}  # a scan of no columns tells not of which table
        number = int(marks.pop())
        condition = _condition(connection, filters) if filters else AlwaysTrue()
        found[number] = Or(found[number], condition) if number in found else condition
    return {tables[number]: condition for number, condition in found.items()}


def quoted(name: str) -> str:
    """A name as SQL takes it literally."""
    return '"' + name.replace('"', '""') + '"'


def _scans(nodes: list[dict[str, Any]], filters: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for node in nodes:
        if node["name"].strip() == "PYTHON_ARROW_SCAN":
            yield filters, node
        else:
            own = node.get("extra_info", {}).get("Expression", "") if node["name"].strip() == "FILTER" else ""
            yield from _scans(node["children"], own if isinstance(own, str) else " AND ".join(own))


def _condition(connection: duckdb.DuckDBPyConnection, text: str) -> BooleanExpression:
    tree = _parsed(connection, f"SELECT 1 WHERE {text}")
    if tree.get("error"):
        return AlwaysTrue()
    return _translated(connection, tree["statements"][0]["node"]["where_clause"])


def _translated(connection: duckdb.DuckDBPyConnection, node: dict[str, Any]) -> BooleanExpression:
    """The condition, or a weaker one where its form is not known here."""
    kind = node.get("type", "")
    if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
        parts = [_translated(connection, child) for child in node["children"]]
        return And(*parts) if kind == "CONJUNCTION_AND" else Or(*parts)
    if kind in _COMPARISONS:
        comparison = _COMPARISONS[kind]
        column, operand = _column(node["left"]), node["right"]
        if column is None:
            column, operand, comparison = _column(node["right"]), node["left"], _MIRRORED[comparison]
        return _compared(connection, comparison, column, operand)
    if kind == "COMPARE_BETWEEN":
        column = _column(node["input"])
        lower = _compared(connection, GreaterThanOrEqual, column, node["lower"])
        return And(lower, _compared(connection, LessThanOrEqual, column, node["upper"]))
    if kind == "COMPARE_IN":
        column, *operands = node["children"]
        name = _column(column)
        values = [_value(connection, operand) for operand in operands]
        if name is not None and all(value is not None for value in values):
            return _in(name, set(values))
    return AlwaysTrue()


def _compared(
    connection: duckdb.DuckDBPyConnection, comparison: Any, column: str | None, operand: dict[str, Any]
) -> BooleanExpression:
    value = None if column is None else _value(connection, operand)
    if column is None or value is None:
        return AlwaysTrue()
    condition: BooleanExpression = comparison(column, value)
    # To DuckDB NaN is the largest number of all; the bounds of files leave it out.
    return Or(condition, _is_nan(Reference(column))) if comparison in (GreaterThan, GreaterThanOrEqual) else condition


def _column(node: dict[str, Any]) -> str | None:
    """Dotted path of a column or of a field of a struct, without the mark of its table."""
    if node.get("type") == "COLUMN_REF" and len(node["column_names"]) == 1:
        match = _MARK.match(node["column_names"][0])
        return match.group(2) if match else None
    if node.get("type") == "FUNCTION" and node.get("function_name") == "struct_extract":
        parent, field = (argument["expression"] for argument in node["arguments"])
        path, name = _column(parent), field.get("literal", {})
        return f"{path}.{name['text']}" if path is not None and name.get("kind") == "STRING" else None
    return None


def _value(connection: duckdb.DuckDBPyConnection, node: dict[str, Any]) -> Any:
    """What an expression without columns comes to, as PyIceberg takes it; None if it is anything else."""
    select = _parsed(connection, "SELECT 1")
    select["statements"][0]["node"]["select_list"] = [node]
    try:
        rows = connection.execute("SELECT * FROM json_execute_serialized_sql(?)", [json.dumps(select)]).fetchall()
    except duckdb.Error:
        return None
    value: Any = rows[0][0] if rows else None
    if isinstance(value, bool | str | int | float):
        return value
    if hasattr(value, "as_tuple"):
        return float(value)
    return value.isoformat() if hasattr(value, "isoformat") else None


def _parsed(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    rows = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)
