"""Conditions on names, types and creation times, in SQL over the columns of sequences and topics."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, false, not_, or_, true

from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.globs import Glob
from lakehouse.catalog.query.sql_dialect import SqlDialect
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN

_LITERALS_IN_SQL = 3


@dataclass(frozen=True)
class TextFilter:
    """A condition on a text.

    Attributes:
        where: Never leaves out a text that satisfies the condition.
        accepts: Decides about what `where` lets through; None if that is exact.
    """

    where: ColumnElement[bool]
    accepts: Callable[[str], bool] | None = None


def text_filter(
    dialect: SqlDialect, column: ColumnElement[str], condition: Condition, glob: Glob | None = None
) -> TextFilter:
    """Compile a condition on a text column that is never null.

    Args:
        glob: What `$match` stands for; by default its operand, parsed.
    """
    operand = condition.operand
    match condition.operator:
        case Operator.EXISTS:
            return TextFilter(true())
        case Operator.NOT_EXISTS:
            return TextFilter(false())
        case Operator.EQUAL:
            return TextFilter(column == operand if is_storable(operand) else false())
        case Operator.NOT_EQUAL:
            return TextFilter(column != operand if is_storable(operand) else true())
        case Operator.IN:
            return TextFilter(dialect.is_one_of(column, sorted(set(filter(is_storable, operand)))))
        case Operator.MATCH:
            return _glob_filter(dialect, column, glob or Glob.parse(operand))
    raise ValueError(f"'{condition.operator}' does not compare names")


def _glob_filter(dialect: SqlDialect, column: ColumnElement[str], glob: Glob) -> TextFilter:
    if glob.literal is not None:
        return text_filter(dialect, column, Condition(Operator.EQUAL, glob.literal))
    if glob.is_prefix_only:
        return TextFilter(starts_with(dialect, column, glob.prefix))
    where = and_(starts_with(dialect, column, glob.prefix), contains_literals(dialect, column, glob))
    return TextFilter(where, glob.matches)


def starts_with(dialect: SqlDialect, column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Whether a text begins with a prefix, as a range that an index serves."""
    if not prefix:
        return true()
    if not is_storable(prefix):
        return false()
    ordered = dialect.by_code_point(column)
    return and_(ordered >= prefix, ordered < prefix[:-1] + _next_character(prefix[-1]))


def contains_literals(dialect: SqlDialect, text: ColumnElement[str], glob: Glob) -> ColumnElement[bool]:
    """Whether a text contains the longest pieces that everything matching the pattern contains."""
    if not all(map(is_storable, glob.literals)):
        return false()
    return and_(true(), *(dialect.contains_text(text, literal) for literal in glob.literals[:_LITERALS_IN_SQL]))


def _next_character(character: str) -> str:
    # Surrogates are no characters that a database takes.
    return "\ue000" if character == "\ud7ff" else chr(min(ord(character) + 1, 0x10FFFF))


def is_storable(text: str) -> bool:
    """Whether a name can hold the text at all; PostgreSQL does not even take others as parameters."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def integer_clause(column: ColumnElement[int], condition: Condition) -> ColumnElement[bool]:
    """A condition on a 64-bit integer column that is never null; exact for operands of any size."""
    match condition.operator:
        case Operator.EXISTS:
            return true()
        case Operator.NOT_EXISTS | Operator.MATCH:
            return false()
        case Operator.NOT_EQUAL:
            return not_(integer_clause(column, Condition(Operator.EQUAL, condition.operand)))
        case Operator.IN:
            numbers = {int(each) for each in condition.operand if each == int(each) and _fits(int(each))}
            return column.in_(bindparam(None, sorted(numbers), expanding=True, literal_execute=True))
    return or_(false(), *(column.between(low, high) for low, high in _intervals(condition.operator, condition.operand)))


def _intervals(operator: Operator, operand: Any) -> Iterator[tuple[int, int]]:
    """Closed intervals of 64-bit integers."""
    low, high = operand if isinstance(operand, tuple) else (operand, operand)
    below, above = math.ceil(low) - 1, math.floor(high) + 1
    bounds: list[tuple[int, int]] = []
    match operator:
        case Operator.EQUAL | Operator.BETWEEN:
            bounds = [(math.ceil(low), math.floor(high))]
        case Operator.LESS:
            bounds = [(INT64_MIN, below)]
        case Operator.LESS_OR_EQUAL:
            bounds = [(INT64_MIN, math.floor(high))]
        case Operator.GREATER:
            bounds = [(above, INT64_MAX)]
        case Operator.GREATER_OR_EQUAL:
            bounds = [(math.ceil(low), INT64_MAX)]
        case Operator.OUTSIDE:
            bounds = [(INT64_MIN, below), (above, INT64_MAX)]
    for first, last in bounds:
        first, last = max(first, INT64_MIN), min(last, INT64_MAX)
        if first <= last:
            yield first, last


def _fits(number: int) -> bool:
    return INT64_MIN <= number <= INT64_MAX
