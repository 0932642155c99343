"""Conditions as people type them, `IMU.acceleration.y > 4`, turned into the JSON of the query grammar."""

import json
import re
from collections.abc import Iterable
from typing import Any

from lakehouse.catalog.errors import BadRequestError, quoted

_SYMBOLS = {
    "=": "$eq",
    "==": "$eq",
    "!=": "$neq",
    "<": "$lt",
    "<=": "$leq",
    ">": "$gt",
    ">=": "$geq",
    "~": "$match",
}
# All neighbouring signs are the operator, known or not: `>> 4` is no comparison with the text `> 4`.
_COMPARISON = re.compile(r"(?P<field>.+?)\s*(?P<symbol>(?:!=|[=<>~])[=!<>~]*)\s*(?P<value>.+)", re.DOTALL)
_MEANT = {
    "=>": ">=",
    "=<": "<=",
    "<>": "!=",
    "=!": "!=",
    ">>": ">",
    "<<": "<",
    "===": "=",
    "!==": "!=",
    "=~": "~",
    "~=": "~",
    "~~": "~",
}
_WORDS = {
    "$between": "between",
    "$outside": "outside",
    "$in": "in",
    "$ex": "exists",
    "$nex": "missing",
} | {operator: symbol for symbol, operator in _SYMBOLS.items() if symbol != "=="}
_OPERATOR = re.compile(r"\$[a-z]+\b")
_RANGE = re.compile(r"(?P<field>.+?)\s+(?P<word>between|outside)\s+(?P<low>.+?)\s+and\s+(?P<high>.+)", re.DOTALL)
_ALTERNATIVES = re.compile(r"(?P<field>.+?)\s+in\s+(?P<values>.+)", re.DOTALL)
_EXISTENCE = re.compile(r"(?P<field>.+?)\s+(?P<word>exists|missing)", re.DOTALL)


def parse_conditions(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read conditions; several on one field all have to hold.

    Forms: `FIELD = VALUE` (also `!=`, `<`, `<=`, `>`, `>=`, `~` for patterns), `FIELD between LOW and HIGH`,
    `FIELD outside LOW and HIGH`, `FIELD in A, B, C`, `FIELD exists`, `FIELD missing`. A value is a number, `true`,
    `false`, a JSON text in double quotes, a JSON list, or else text as it stands.

    Returns:
        From field to operators and operands.

    Raises:
        BadRequestError: If a condition has none of these forms, or says the same of a field twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        field, operator, operand = _parse(text.strip())
        if operator in found.setdefault(field, {}):
            raise BadRequestError(f"two conditions compare {quoted(field)} with '{operator}'")
        found[field][operator] = operand
    return found


def _parse(text: str) -> tuple[str, str, Any]:
    if each := _EXISTENCE.fullmatch(text):
        return each["field"], "$ex" if each["word"] == "exists" else "$nex", None
    if each := _RANGE.fullmatch(text):
        return each["field"], f"${each['word']}", [_value(each["low"]), _value(each["high"])]
    comparison, alternatives = _COMPARISON.fullmatch(text), _ALTERNATIVES.fullmatch(text)
    if comparison and not (alternatives and len(alternatives["field"]) < len(comparison["field"])):
        operator = _operator(comparison["symbol"])
        # A pattern is text even if it looks like a number or a list.
        value = comparison["value"] if operator == "$match" else _value(comparison["value"])
        return comparison["field"], operator, value
    if alternatives:
        values = alternatives["values"].strip()
        listed = _value(values) if values.startswith("[") else [_value(part) for part in values.split(",")]
        return alternatives["field"], "$in", listed
    raise BadRequestError(
        f"{quoted(text)} is no condition: expected for example 'FIELD > 4', 'FIELD between 1 and 2', "
        "'FIELD ~ pattern*', 'FIELD in a, b' or 'FIELD exists'"
    )


def in_words(text: str) -> str:
    """A text about a query with operators as people type them: `>` for `$gt`."""
    return _OPERATOR.sub(lambda found: _WORDS.get(found.group(), found.group()), text)


def _operator(symbol: str) -> str:
    if symbol in _SYMBOLS:
        return _SYMBOLS[symbol]
    if symbol in _MEANT:
        raise BadRequestError(f"{quoted(symbol)} is no operator; did you mean '{_MEANT[symbol]}'?")
    known = ", ".join(f"'{each}'" for each in _SYMBOLS if each != "==")
    raise BadRequestError(f"{quoted(symbol, 40)} is no operator; there are {known}, and the words in --help")


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return text.strip() if value is None or isinstance(value, dict) else value
