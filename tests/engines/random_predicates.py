"""Random conditions on rows full of what breaks comparisons: as queries of the lake take them, and as SQL of an engine.

The rows are those of tests/catalog/query/odd_rows.py. Operands are such that every engine compares them exactly.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.grammar import parse_field_conditions
from tests.catalog.query.odd_rows import FLOATS, LONGS, TEXTS

INTEGERS = [*LONGS, 127, 128, 2**63, 2**64 - 1, 2**64, -(2**70)]
FINITE = [value for value in FLOATS if math.isfinite(value)]
# Binary fractions, that are the same in decimals.
MONEY = [0, 3, 12.5, -1.5, -9_999_999, 0.125]
DAYS = ["1970-01-01", "1969-12-31", "2022-01-08", "2024-10-04", "2024-10-05"]
INSTANTS = ["1970-01-01 00:00:00.000", "1969-12-31 23:59:59.999", "2023-11-14 22:13:20.000", "2023-11-14 22:13:20.001"]
MOMENTS = [0, -1, 1, 1_700_000_000_000_000_001, 1_700_000_000_000_000_000]
LIKE = {
    "a*": "a%",
    "*b": "%b",
    "cat-1?": "cat-1_",
    "*é*": "%é%",
    "?": "_",
    "*\n*": "%\n%",
    "a" * 16 + "*": "a" * 16 + "%",
}
COMPARISONS = {"$eq": "=", "$neq": "<>", "$lt": "<", "$leq": "<=", "$gt": ">", "$geq": ">="}


@dataclass(frozen=True)
class Dialect:
    """What engines spell differently; braces stand for operands.

    Attributes:
        text: A text from its bytes in hexadecimal digits.
        instant: An instant from its text in UTC.
        any_of, all_of: Whether a condition on `e` holds for elements of a list.
        element: One element of a list, by its number from 0.
    """

    text: Callable[[str], str]
    instant: str
    is_nan: str
    any_of: str
    all_of: str
    element: Callable[[str, int], str]


DIALECTS = {
    "spark": Dialect(
        lambda digits: f"CAST(X'{digits}' AS string)",
        "TIMESTAMP '{} UTC'",
        "isnan({})",
        "exists({list}, e -> {holds})",
        "forall({list}, e -> coalesce({holds}, false))",
        lambda name, number: f"get({name}, {number})",
    ),
    "trino": Dialect(
        lambda digits: f"from_utf8(X'{digits}')",
        "TIMESTAMP '{} UTC'",
        "is_nan({})",
        "any_match({list}, e -> {holds})",
        "all_match({list}, e -> coalesce({holds}, false))",
        lambda name, number: f"element_at({name}, {number + 1})",
    ),
    "duckdb": Dialect(
        lambda digits: "decode('" + "".join(f"\\x{digits[i : i + 2]}" for i in range(0, len(digits), 2)) + "'::BLOB)",
        "TIMESTAMPTZ '{}+00'",
        "isnan({})",
        "list_bool_or(list_transform({list}, lambda e: {holds}))",
        "({list} IS NOT NULL AND "
        "coalesce(list_bool_and(list_transform({list}, lambda e: coalesce({holds}, false))), true))",
        lambda name, number: f"{name}[{number + 1}]",
    ),
}


@dataclass(frozen=True)
class Column:
    """A field of the rows, and what to compare it with.

    Attributes:
        path: As in queries, without the tag.
        kind: How values compare: int, bigint, decimal(20,0), double, money, text, day, instant, moment or flag.
        pool: Operands.
    """

    path: str
    kind: str
    pool: list[Any]


COLUMNS = [
    Column("tiny", "int", INTEGERS),
    Column("long", "bigint", INTEGERS),
    Column("huge", "decimal(20,0)", INTEGERS),
    *(Column(path, "double", FINITE) for path in ("half", "single", "double", "state.x", "triple[2]")),
    Column("state.n", "int", INTEGERS),
    *(Column(path, "text", TEXTS) for path in ("text", "label", "words[?]", "words[!]", "items[?].name")),
    Column("money", "money", MONEY),
    Column("day", "day", DAYS),
    Column("instant", "instant", INSTANTS),
    Column("moment", "moment", MOMENTS),
    Column("flag", "flag", [True, False]),
    *(Column(path, "bigint", INTEGERS) for path in ("items[?].v", "items[!].v", "items[0].v")),
    *(Column(path, "double", FINITE) for path in ("state.readings[?]", "state.readings[!]")),
]
# What is cut off, rounded, or has two zeros.
WITH_TRAPS = ("text", "long", "double", "state.x", "items[?].name", "items[?].v")


@dataclass(frozen=True)
class Predicate:
    """A condition on one column.

    Attributes:
        operator: Of queries, such as `$gt`.
        operand: As JSON would bring it.
    """

    column: Column
    operator: str
    operand: Any

    def ontology(self, tag: str) -> dict[str, Any]:
        """The condition as the `ontology` section of a query."""
        operand = self.operand
        if self.column.kind == "moment":
            operand = [str(each) for each in operand] if isinstance(operand, list) else operand and str(operand)
            operand = "0" if self.operand == 0 else operand
        elif self.column.kind == "instant":
            operand = [f"{each}Z" for each in operand] if isinstance(operand, list) else operand and f"{operand}Z"
        return {f"{tag}.{self.column.path}": {self.operator: operand}}

    def condition(self, tag: str) -> FieldCondition:
        """The same, read."""
        (condition,) = parse_field_conditions(self.ontology(tag))
        return condition

    def sql(self, dialect: Dialect) -> str:
        """The same in SQL: true, false or null, where null means no."""
        name, bracket, rest = self.column.path.partition("[")
        if not bracket:
            return self._holds(name, dialect)
        specifier, _, below = rest.partition("]")
        if specifier.isdigit():
            return self._holds(dialect.element(name, int(specifier)) + below, dialect)
        form = dialect.any_of if specifier == "?" else dialect.all_of
        return form.format(list=name, holds=self._holds(f"e{below}", dialect))

    def _holds(self, value: str, dialect: Dialect) -> str:
        operator, operand = self.operator, self.operand
        if operator in ("$ex", "$nex"):
            return f"({value} IS {'NOT ' if operator == '$ex' else ''}NULL)"
        if operator == "$match":
            return f"({value} LIKE {dialect.text(LIKE[operand].encode().hex())})"
        operands = operand if isinstance(operand, list) else [operand]
        if self.column.kind == "double":
            if operator == "$in":
                alternatives = [Predicate(self.column, "$eq", each) for each in operands]
                return f"({' OR '.join(each._holds(value, dialect) for each in alternatives)})"
            operator, operands = _meeting_both_zeros(operator, operands)
        literals = [self._literal(each, dialect) for each in operands]
        if operator == "$in":
            found = f"{value} IN ({', '.join(literals)})"
        elif operator == "$between":
            found = f"{value} BETWEEN {literals[0]} AND {literals[1]}"
        elif operator == "$outside":
            found = f"({value} < {literals[0]} OR {value} > {literals[1]})"
        else:
            found = f"{value} {COMPARISONS[operator]} {literals[0]}"
        if self.column.kind != "double":
            return f"({found})"
        # NaN equals itself and exceeds everything in some engines; in queries it only differs.
        is_nan = dialect.is_nan.format(value)
        return f"({is_nan} OR {found})" if operator == "$neq" else f"(NOT {is_nan} AND {found})"

    def _literal(self, operand: Any, dialect: Dialect) -> str:
        kind = self.column.kind
        if kind == "text":
            return dialect.text(str(operand).encode().hex())
        if kind == "instant":
            return dialect.instant.format(operand)
        if kind == "day":
            return f"DATE '{operand}'"
        if kind == "flag":
            return str(operand).lower()
        if kind == "double":
            return f"CAST('{float(operand)!r}' AS double)"
        if kind == "money":
            return f"CAST('{operand}' AS decimal(12,3))"
        return f"CAST('{operand}' AS {_integer_type(kind, operand)})"


def _meeting_both_zeros(operator: str, operands: list[float]) -> tuple[str, list[float]]:
    """The same condition for readers that take -0.0 for smaller than 0.0, as Iceberg's does in Spark when it looks into
    the dictionary of a column (docs/sql.md).
    """
    first, last = operands[0], operands[-1]
    if operator == "$eq" and first == 0:
        return "$between", [-0.0, 0.0]
    if operator in ("$between", "$outside"):
        return operator, [first or -0.0, last or 0.0]
    return operator, [first or (-0.0 if operator in ("$geq", "$lt") else 0.0)]


def _integer_type(kind: str, operand: int) -> str:
    """The column's own type where the operand fits into it: conditions of two types may not be handed down to files."""
    if kind == "int" and -(2**31) <= operand < 2**31:
        return "int"
    if kind != "decimal(20,0)" and -(2**63) <= operand < 2**63:
        return "bigint"
    return "decimal(20,0)" if abs(operand) < 10**20 else "decimal(38,0)"


def some_predicates(generator: random.Random, files: list[list[dict[str, Any]]]) -> list[Predicate]:
    """Conditions on each column: one of any kind, and one or two about the smallest or largest value of a file, which
    nobody finds any more if its bound is wrong by the least.

    Args:
        files: The rows of each.
    """
    found = [_some_predicate(column, generator) for column in COLUMNS]
    for column in COLUMNS:
        edges = list({repr(each): each for file in files for each in _edges(column, file)}.values())
        found += generator.sample(edges, min(2 if column.path in WITH_TRAPS else 1, len(edges)))
    return found


def _edges(column: Column, file: list[dict[str, Any]]) -> list[Predicate]:
    values = [value for row in file for value in _values(row, column.path) if _can_be_operand(column, value)]
    if not values or column.kind == "flag":
        return []
    ends = [("$leq", min(values)), ("$geq", max(values))]
    # Zeros are equal, whatever their signs.
    written = [
        (operator, _operand(column, -value if column.kind == "double" and not value else value))
        for operator, value in ends
    ]
    return [Predicate(column, each, operand) for operator, operand in written for each in (operator, "$eq")]


def _values(row: dict[str, Any], path: str) -> list[Any]:
    """What a row has at a path: one value, or those of a list; nothing for null."""
    whole, bracket, rest = path.partition("[")
    value: Any = row
    for name in whole.split("."):
        value = None if value is None else value[name]
    if not bracket:
        return [] if value is None else [value]
    specifier, _, below = rest.partition("]")
    elements = (value or [])[int(specifier) : int(specifier) + 1] if specifier.isdigit() else value or []
    if below:
        elements = [each and each[below.removeprefix(".")] for each in elements]
    return [each for each in elements if each is not None]


def _can_be_operand(column: Column, value: Any) -> bool:
    """Whether JSON has it, exactly."""
    if column.kind == "money":
        return bool(value * 8 == int(value * 8))
    return column.kind != "double" or math.isfinite(value)


def _operand(column: Column, value: Any) -> Any:
    if column.kind == "day":
        return str(date(1970, 1, 1) + timedelta(days=value))
    if column.kind == "instant":
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=value)
        return moment.isoformat(" ", "milliseconds")
    return float(value) if column.kind == "money" else value


def _some_predicate(column: Column, generator: random.Random) -> Predicate:
    operators = [*COMPARISONS, "$between", "$outside", "$in"]
    if "[" not in column.path:
        operators += ["$ex", "$nex"]
    if column.kind == "text":
        operators += ["$match", "$match"]
    if column.kind == "flag":
        operators = ["$eq", "$neq", "$nex"]
    operator = generator.choice(operators)
    pool = column.pool
    operand: Any = generator.choice(pool)
    if operator in ("$ex", "$nex"):
        operand = None
    elif operator == "$match":
        operand = generator.choice(list(LIKE))
    elif operator in ("$between", "$outside"):
        operand = sorted(generator.sample(pool, 2))
    elif operator == "$in":
        operand = generator.sample(pool, min(3, len(pool)))
    return Predicate(column, operator, operand)
