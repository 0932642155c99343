"""The same rows in DuckDB, and conditions on them as SQL: what a search has to find.

Shares no code with the search. Every operand is turned into its two neighbours among the values that the column can
have, with Python's exact arithmetic; SQL then compares values of one type with each other, and rounds nothing.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from typing import Any

import duckdb
import pyarrow as pa

from lakehouse.catalog.query.conditions import FieldCondition, FieldPath, Operator, Quantifier
from tests.catalog.query.odd_rows import SCHEMA, UNIT_NS, nanoseconds


class Kind(Enum):
    """How values of a column compare."""

    INTEGER = auto()
    FLOAT = auto()
    BOOLEAN = auto()
    CENTS = auto()
    NANOSECONDS = auto()
    TEXT = auto()


KINDS = {
    **dict.fromkeys(["tiny", "long", "huge", "timestamp_ns", "state.n", "items.v"], Kind.INTEGER),
    **dict.fromkeys(["half", "single", "double", "state.x", "state.readings", "triple"], Kind.FLOAT),
    **dict.fromkeys(["text", "label", "words", "items.name"], Kind.TEXT),
    **dict.fromkeys(UNIT_NS, Kind.NANOSECONDS),
    "flag": Kind.BOOLEAN,
    "money": Kind.CENTS,
}
WITHOUT_ORDER = ("state", "facts", "blob", "items")
AS_COMPARED = {
    Kind.INTEGER: "({})::HUGEINT",
    Kind.FLOAT: "({})::DOUBLE",
    Kind.BOOLEAN: "({})::INTEGER::HUGEINT",
    Kind.CENTS: "(({}) * 100)::HUGEINT",
    Kind.NANOSECONDS: "({})::HUGEINT",
    Kind.TEXT: "({})",
}
# Beyond every integer a column holds.
FAR = 2**100


@dataclass(frozen=True)
class Operand:
    """An operand between two values of the column's kind: the largest up to it, and the smallest from it on, as SQL."""

    up_to: str
    from_on: str

    @property
    def is_a_value(self) -> bool:
        return self.up_to == self.from_on


class RowsInDuckDB:
    """Rows of several topics in one table of an embedded database."""

    def __init__(self, rows: Mapping[int, list[dict[str, Any]]]) -> None:
        self._connection = duckdb.connect()
        self._connection.register("rows", _table(rows))

    def timestamps(self, conditions: list[FieldCondition]) -> dict[int, list[int]]:
        """Timestamps of the rows that satisfy all conditions, ascending, of each topic that has one."""
        where = " AND ".join(f"({_holds(each)})" for each in conditions)
        query = f"SELECT topic, list(timestamp_ns ORDER BY timestamp_ns) FROM rows WHERE {where} GROUP BY topic"
        return dict(self._connection.execute(query).fetchall())


def _table(rows: Mapping[int, list[dict[str, Any]]]) -> pa.Table:
    """As they were made, temporal columns as nanoseconds."""
    topics = [topic for topic, made in rows.items() for _ in made]
    every = [row for made in rows.values() for row in made]
    columns = {"topic": pa.array(topics, pa.int64())}
    for field in SCHEMA:
        values = [row[field.name] for row in every]
        kind = field.type
        if field.name in UNIT_NS:
            values = [None if value is None else value * UNIT_NS[field.name] for value in values]
            kind = pa.int64()
        elif field.name == "half":
            kind = pa.float32()
        elif field.name == "label":
            kind = pa.string()
        elif field.name == "triple":
            kind = pa.list_(pa.float64())
        columns[field.name] = pa.array(values, kind)
    return pa.table(columns)


def _holds(condition: FieldCondition) -> str:
    """SQL that is true or false, never NULL."""
    path, operator = condition.path, condition.condition.operator
    name = ".".join(path.segments)
    if path.segments[0] == "facts" and len(path.segments) > 1:
        entry = f"list_extract(map_extract(facts, {_text(name.removeprefix('facts.'))}), 1)"
        return _value_holds(entry, Kind.FLOAT, condition)
    kind = KINDS.get(name)
    if kind is None:
        return "true" if operator is Operator.NOT_EXISTS and name not in WITHOUT_ORDER else "false"
    if path.list_segment is not None:
        return _element_holds(path, kind, condition)
    if name in ("state.readings", "triple", "words"):
        return _list_holds(name, kind, condition)
    return _value_holds(name, kind, condition)


def _element_holds(path: FieldPath, kind: Kind, condition: FieldCondition) -> str:
    assert path.list_segment is not None
    if not _is_of_one_kind(kind, condition):
        return "false"
    whole = ".".join(path.segments[: path.list_segment + 1])
    below = path.segments[path.list_segment + 1 :]

    def of(element: str) -> str:
        for name in below:
            element = f"struct_extract({element}, '{name}')"
        return _value_holds(element, kind, condition)

    if isinstance(path.specifier, int):
        return f"coalesce(len({whole}) > {path.specifier}, false) AND ({of(f'{whole}[{path.specifier + 1}]')})"
    held = f"list_transform({whole}, lambda element: {of('element')})"
    if path.specifier is Quantifier.ANY:
        return f"coalesce(list_bool_or({held}), false)"
    return f"{whole} IS NOT NULL AND coalesce(list_bool_and({held}), true)"


def _is_of_one_kind(kind: Kind, condition: FieldCondition) -> bool:
    """Whether the operand compares with what the list holds, be it empty."""
    operator, operand = condition.condition.operator, condition.condition.operand
    if operator is Operator.MATCH:
        return kind is Kind.TEXT
    if operator in (Operator.IN, Operator.EXISTS, Operator.NOT_EXISTS):
        return True
    return all(_operand(kind, each) is not None for each in _as_tuple(operand))


def _list_holds(name: str, kind: Kind, condition: FieldCondition) -> str:
    operator, wanted = condition.condition.operator, condition.condition.operand
    if operator in (Operator.EXISTS, Operator.NOT_EXISTS):
        return _value_holds(name, kind, condition)
    operands = [_operand(kind, each) for each in wanted]
    known = [each for each in operands if each is not None]
    if len(known) < len(operands):
        return "false"
    alike = [_compared(f"{name}[{number}]", kind, Operator.EQUAL, [each]) for number, each in enumerate(known, 1)]
    is_equal = " AND ".join([f"len({name}) = {len(known)}", *alike])
    return f"{name} IS NOT NULL AND {'' if operator is Operator.EQUAL else 'NOT'} ({is_equal})"


def _value_holds(value: str, kind: Kind, condition: FieldCondition) -> str:
    operator, wanted = condition.condition.operator, condition.condition.operand
    if operator is Operator.EXISTS:
        return f"{value} IS NOT NULL"
    if operator is Operator.NOT_EXISTS:
        return f"{value} IS NULL"
    if operator is Operator.MATCH:
        matches = f"regexp_full_match({value}, {_text(_regular_expression(wanted))}, 's')"
        return f"coalesce({matches}, false)" if kind is Kind.TEXT else "false"
    operands = [_operand(kind, each) for each in _as_tuple(wanted)]
    known = [each for each in operands if each is not None]
    if not known or (len(known) < len(operands) and operator is not Operator.IN):
        return "false"
    return _compared(value, kind, operator, known)


def _compared(value: str, kind: Kind, operator: Operator, operands: list[Operand]) -> str:
    typed = AS_COMPARED[kind].format(value)
    first, last = operands[0], operands[-1]
    if operator in (Operator.EQUAL, Operator.IN):
        found = " OR ".join(f"{typed} = {each.up_to}" for each in operands if each.is_a_value) or "false"
    elif operator is Operator.NOT_EQUAL:
        found = f"{typed} <> {first.up_to}" if first.is_a_value else "true"
    else:
        found = {
            Operator.LESS: f"{typed} < {first.from_on}",
            Operator.LESS_OR_EQUAL: f"{typed} <= {first.up_to}",
            Operator.GREATER: f"{typed} > {first.up_to}",
            Operator.GREATER_OR_EQUAL: f"{typed} >= {first.from_on}",
            Operator.BETWEEN: f"{typed} >= {first.from_on} AND {typed} <= {last.up_to}",
            Operator.OUTSIDE: f"{typed} < {first.from_on} OR {typed} > {last.up_to}",
        }[operator]
    if kind is Kind.FLOAT:
        # In DuckDB NaN equals itself and is larger than all others; in queries it only differs.
        found = (
            f"isnan({typed}) OR ({found})" if operator is Operator.NOT_EQUAL else f"NOT isnan({typed}) AND ({found})"
        )
    return f"({value} IS NOT NULL AND ({found}))"


def _as_tuple(operand: Any) -> tuple[Any, ...]:
    return operand if isinstance(operand, tuple) else (operand,)


def _operand(kind: Kind, operand: Any) -> Operand | None:
    """None if it does not compare with values of the kind."""
    if operand is None or (isinstance(operand, bool) and kind is not Kind.BOOLEAN):
        return None
    if isinstance(operand, str):
        if kind is Kind.TEXT:
            return Operand(_text(operand), _text(operand))
        operand = nanoseconds(operand) if kind is Kind.NANOSECONDS else None
        if operand is None:
            return None
    if kind is Kind.TEXT:
        return None
    if operand != operand:
        return Operand(*_written(kind, -math.inf, math.inf))
    if operand in (math.inf, -math.inf):
        return Operand(*_written(kind, operand, operand))
    exact = Fraction(operand) * (100 if kind is Kind.CENTS else 1)
    if kind is Kind.FLOAT:
        return Operand(*_written(kind, *_doubles_around(exact)))
    return Operand(*_written(kind, math.floor(exact), math.ceil(exact)))


def _doubles_around(exact: Fraction) -> tuple[float, float]:
    try:
        nearest = float(exact)
    except OverflowError:
        nearest = math.inf if exact > 0 else -math.inf
    if nearest == exact:
        return nearest, nearest
    if nearest < exact:
        return nearest, math.nextafter(nearest, math.inf)
    return math.nextafter(nearest, -math.inf), nearest


def _written(kind: Kind, low: float, high: float) -> tuple[str, str]:
    if kind is Kind.FLOAT:
        return f"'{low!r}'::DOUBLE", f"'{high!r}'::DOUBLE"
    within = [FAR if each > FAR else -FAR if each < -FAR else each for each in (low, high)]
    return f"'{within[0]}'::HUGEINT", f"'{within[1]}'::HUGEINT"


def _text(text: str) -> str:
    """A text as SQL; the zero character cannot stand in a statement."""
    return "(" + " || chr(0) || ".join("'" + part.replace("'", "''") + "'" for part in text.split("\0")) + ")"


def _regular_expression(glob: str) -> str:
    meaning = {"*": ".*", "?": ".", "#": "[0-9]", "[a-z]": "[a-z]"}
    parts = re.findall(r"\[a-z\]|.", glob, re.DOTALL)
    return "".join(meaning.get(part) or re.escape(part) for part in parts)
