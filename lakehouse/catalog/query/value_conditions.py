"""A condition and the type of a column, compiled to the set of stored values that satisfy it (protocol 12.2, 12.7)."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.catalog.query import instants
from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.globs import Glob
from lakehouse.catalog.query.value_sets import (
    Domain,
    FloatDomain,
    IntegerDomain,
    Interval,
    Number,
    NumberSet,
    TextSet,
    ValueSet,
    prefix_end,
    text_successor,
)

_INT64 = IntegerDomain(-(2**63), 2**63 - 1)
_NS_PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NS = 86_400 * 10**9


def value_set(condition: Condition, kind: pa.DataType) -> ValueSet | None:
    """The stored values for which a condition is true.

    Args:
        condition: Any but `$nex`, which is about values that are absent.
        kind: Type of the column as it was uploaded.

    Returns:
        None if no value of the column can ever satisfy the condition: its type has no order, or is another than the
        operand's.
    """
    if pat.is_dictionary(kind):
        return value_set(condition, kind.value_type)
    if is_text(kind):
        return _text_set(condition)
    found = _number_form(kind)
    if found is None:
        return None
    domain, convert = found
    return _number_set(condition, domain, convert)


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text, in any of Arrow's layouts."""
    if pat.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind))


def is_comparable(kind: pa.DataType) -> bool:
    """Whether values of the type can satisfy any condition at all."""
    return is_text(kind) or _number_form(kind.value_type if pat.is_dictionary(kind) else kind) is not None


def _number_form(kind: pa.DataType) -> tuple[Domain, Callable[[Any], Number | None]] | None:
    """What a column is stored as, and how operands become comparable with it."""
    if pat.is_boolean(kind):
        return IntegerDomain(0, 1), _boolean_or_number
    if pat.is_uint64(kind):
        return IntegerDomain(0, 2**64 - 1), _number
    if pat.is_integer(kind):
        return _INT64, _number
    if pat.is_floating(kind):
        return FloatDomain(), _number
    if pat.is_decimal(kind):
        scale = max(kind.scale, 0)
        widest = 10 ** (kind.precision + max(-kind.scale, 0)) - 1
        return IntegerDomain(-widest, widest, Fraction(10**scale)), _number_or_decimal_text
    return _temporal_form(kind)


def _temporal_form(kind: pa.DataType) -> tuple[Domain, Callable[[Any], Number | None]] | None:
    if pat.is_date32(kind):
        return _counting(_DAY_NS), instants.instant_ns
    if pat.is_date64(kind):
        return _counting(_NS_PER_UNIT["ms"]), instants.instant_ns
    if pat.is_timestamp(kind):
        # Other units than nanoseconds are stored in microseconds.
        return _counting(1 if kind.unit == "ns" else _NS_PER_UNIT["us"]), instants.instant_ns
    if pat.is_time(kind):
        return _counting(_NS_PER_UNIT[kind.unit]), instants.time_of_day_ns
    if pat.is_duration(kind):
        return _counting(_NS_PER_UNIT[kind.unit]), instants.duration_ns
    return None


def _counting(unit_ns: int) -> IntegerDomain:
    return IntegerDomain(_INT64.smallest, _INT64.largest, Fraction(1, unit_ns))


def _number(operand: Any) -> Number | None:
    return operand if instants.is_number(operand) else None


def _boolean_or_number(operand: Any) -> Number | None:
    return int(operand) if isinstance(operand, bool) else _number(operand)


def _number_or_decimal_text(operand: Any) -> Number | None:
    return instants.decimal_text(operand) if isinstance(operand, str) else _number(operand)


def _operands(condition: Condition) -> tuple[Any, ...]:
    if condition.operator in (Operator.BETWEEN, Operator.OUTSIDE, Operator.IN):
        return tuple(condition.operand)
    return (condition.operand,)


def _number_set(condition: Condition, domain: Domain, convert: Callable[[Any], Number | None]) -> NumberSet | None:
    everything = (domain.smallest, domain.largest)
    operator = condition.operator
    if operator is Operator.EXISTS:
        return NumberSet(domain, [everything], includes_nan=True)
    if operator is Operator.MATCH:
        return None
    operands = [convert(operand) for operand in _operands(condition)]
    if operator is Operator.IN:
        known = [operand for operand in operands if operand is not None and not instants.is_nan(operand)]
        return NumberSet(domain, [(domain.at_least(each), domain.at_most(each)) for each in known])
    if None in operands:
        return None
    if any(map(instants.is_nan, operands)):
        # IEEE 754: NaN differs from everything and is neither above nor below anything.
        return NumberSet(domain, [everything], includes_nan=True) if operator is Operator.NOT_EQUAL else None
    low, high = operands[0], operands[-1]
    assert low is not None
    assert high is not None
    below: Interval = (domain.smallest, domain.below(low))
    above: Interval = (domain.above(high), domain.largest)
    match operator:
        case Operator.EQUAL | Operator.BETWEEN:
            return NumberSet(domain, [(domain.at_least(low), domain.at_most(high))])
        case Operator.NOT_EQUAL:
            return NumberSet(domain, [below, above], includes_nan=True)
        case Operator.OUTSIDE:
            return NumberSet(domain, [below, above])
        case Operator.LESS:
            return NumberSet(domain, [below])
        case Operator.LESS_OR_EQUAL:
            return NumberSet(domain, [(domain.smallest, domain.at_most(high))])
        case Operator.GREATER:
            return NumberSet(domain, [above])
        case Operator.GREATER_OR_EQUAL:
            return NumberSet(domain, [(domain.at_least(low), domain.largest)])
    return None


def _text_set(condition: Condition) -> TextSet | None:
    operator = condition.operator
    if operator is Operator.EXISTS:
        return TextSet([(b"", None)])
    if operator is Operator.MATCH:
        return _glob_set(Glob.parse(condition.operand))
    operands = _operands(condition)
    if operator is Operator.IN:
        known = [_encoded(each) for each in operands if isinstance(each, str)]
        return TextSet([(each, text_successor(each)) for each in known])
    if not all(isinstance(each, str) for each in operands):
        return None
    low, high = _encoded(operands[0]), _encoded(operands[-1])
    match operator:
        case Operator.EQUAL | Operator.BETWEEN:
            return TextSet([(low, text_successor(high))])
        case Operator.NOT_EQUAL | Operator.OUTSIDE:
            return TextSet([(b"", low), (text_successor(high), None)])
        case Operator.LESS:
            return TextSet([(b"", low)])
        case Operator.LESS_OR_EQUAL:
            return TextSet([(b"", text_successor(high))])
        case Operator.GREATER:
            return TextSet([(text_successor(low), None)])
        case Operator.GREATER_OR_EQUAL:
            return TextSet([(low, None)])
    return None


def _glob_set(glob: Glob) -> TextSet:
    if glob.literal is not None:
        literal = _encoded(glob.literal)
        return TextSet([(literal, text_successor(literal))])
    prefix = _encoded(glob.prefix)
    return TextSet([(prefix, prefix_end(prefix))], None if glob.is_prefix_only else glob.matches)


def _encoded(text: str) -> bytes:
    # A lone surrogate is in no stored text, but has its place in the order of code points.
    return text.encode("utf-8", "surrogatepass")
