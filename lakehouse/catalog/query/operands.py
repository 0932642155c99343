"""Reading operator objects such as `{"$between": [1, 2]}` into conditions (protocol section 12.2)."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.globs import Glob

MAX_LIST_OPERAND = 1024
# Wider than any number a column can hold, and what JSON text can: about 4,200 digits.
_MAX_NUMBER_BITS = 14_000

_ORDERING = {Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL}
_RANGES = {Operator.BETWEEN, Operator.OUTSIDE}
_EXISTENCE = {Operator.EXISTS, Operator.NOT_EXISTS}
_ISO_DURATION = re.compile(r"-?P[\dT]")


def parse_operators(field: str, operators: object, *, on_rows: bool = False) -> list[Condition]:
    """Read what a request asks of one field; several operators mean all of them.

    Args:
        field: Name for error texts.
        operators: The operator object, or one of the bare strings `"$ex"` and `"$nex"`.
        on_rows: Whether the field is a column. Then `$eq` and `$neq` also take a list, and texts may stand for moments
            or numbers, so that only the column can tell their order.

    Raises:
        BadRequestError: If there is no operator, an unknown one, or an operand does not fit its operator.
    """
    if isinstance(operators, str) and operators in (Operator.EXISTS, Operator.NOT_EXISTS):
        operators = {operators: None}
    if not isinstance(operators, Mapping) or not operators:
        raise BadRequestError(f"{quoted(field)} needs an object with an operator, such as {{'$eq': 1}}")
    return [_condition(field, name, operand, on_rows) for name, operand in operators.items()]


def kind_of(operand: object) -> str:
    """`number`, `text`, `bool`, or `other`; as in JSON, integers and decimals are one kind."""
    if isinstance(operand, bool):
        return "bool"
    if isinstance(operand, int | float):
        return "number"
    return "text" if isinstance(operand, str) else "other"


def _condition(field: str, name: object, operand: Any, on_rows: bool) -> Condition:
    try:
        operator = Operator(name)  # type: ignore[arg-type]
    except ValueError:
        allowed = ", ".join(Operator)
        raise BadRequestError(f"{quoted(name, 40)} on {quoted(field)} is no operator; allowed: {allowed}") from None
    if operator in _EXISTENCE:
        if operand is not None:
            raise BadRequestError(f"the operand of '{operator}' on {quoted(field)} must be null")
    elif operator is Operator.MATCH:
        Glob.parse(operand)
    elif operator in _RANGES:
        operand = _range(field, operator, operand, on_rows)
    elif operator is Operator.IN:
        operand = _alternatives(field, operand)
    elif isinstance(operand, list | tuple) and on_rows and operator not in _ORDERING:
        operand = _list(field, operand)
    elif operator in _ORDERING:
        _check_scalar(field, operator, operand, ("number", "text"))
    else:
        _check_scalar(field, operator, operand, ("number", "text", "bool"))
    return Condition(operator, operand)


def _check_scalar(field: str, operator: Operator, operand: object, allowed: Iterable[str]) -> None:
    if kind_of(operand) not in allowed:
        raise BadRequestError(f"the operand of '{operator}' on {quoted(field)} must be a {' or '.join(allowed)}")
    if isinstance(operand, int) and operand.bit_length() > _MAX_NUMBER_BITS:
        raise BadRequestError(f"the number on {quoted(field)} is too large")
    if isinstance(operand, float) and not math.isfinite(operand):
        raise BadRequestError(f"the number on {quoted(field)} must be finite")


def _range(field: str, operator: Operator, operand: object, on_rows: bool) -> tuple[Any, Any]:
    if not isinstance(operand, list | tuple) or len(operand) != 2:
        raise BadRequestError(f"the operand of '{operator}' on {quoted(field)} must be a list [min, max]")
    low, high = operand
    for bound in operand:
        _check_scalar(field, operator, bound, ("number", "text"))
    if kind_of(low) != kind_of(high):
        raise BadRequestError(f"min and max of '{operator}' on {quoted(field)} must be of one type")
    if low > high and not (on_rows and kind_of(low) == "text" and _may_be_ascending(low, high)):
        raise BadRequestError(f"min of '{operator}' on {quoted(field)} is larger than max")
    return low, high


def _may_be_ascending(low: str, high: str) -> bool:
    """Whether texts that are not in order as texts may be so as numbers, moments or durations."""
    if _ISO_DURATION.match(low) and _ISO_DURATION.match(high):
        return True
    return any(
        left is not None and right is not None and left <= right
        for left, right in ((read(low), read(high)) for read in _READINGS)
    )


def _as_decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _as_moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_READINGS: tuple[Callable[[str], Any], ...] = (_as_decimal, _as_moment)


def _alternatives(field: str, operand: object) -> tuple[Any, ...]:
    if not isinstance(operand, list | tuple) or not operand:
        raise BadRequestError(f"the operand of '$in' on {quoted(field)} must be a non-empty list")
    for alternative in operand:
        _check_scalar(field, Operator.IN, alternative, ("number", "text", "bool"))
    if len(set(map(kind_of, operand))) > 1:
        raise BadRequestError(f"the alternatives of '$in' on {quoted(field)} must be of one type")
    return tuple(operand)


def _list(field: str, operand: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    if len(operand) > MAX_LIST_OPERAND:
        raise BadRequestError(f"the list on {quoted(field)} has more than {MAX_LIST_OPERAND} elements")
    for element in operand:
        _check_scalar(field, Operator.EQUAL, element, ("number", "text", "bool"))
    return tuple(operand)
