"""Which rows do not meet an expectation, found on whole columns at once.

The answers are those of Great Expectations, value by value (the tests compare them), without what it does per batch
and expectation: copies of the rows that have a value, lists of Python objects for those that fail. On a million rows
that is the difference between milliseconds and seconds. It also judges where Great Expectations is not loaded.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Marks = npt.NDArray[np.bool_]


def can_screen(kind: str, arguments: Mapping[str, Any], *, of_text: bool) -> bool:
    """Whether an expectation with these arguments, about texts or about numbers, is one that is known here."""
    if kind not in _SCREENS or not set(arguments) <= _SCREENS[kind][0]:
        return False
    if kind in (_ONLY_OF_NUMBERS if of_text else _ONLY_OF_TEXTS):
        return False
    if not all(_has_type_known(name, value, of_text=of_text) for name, value in arguments.items()):
        return False
    # Without any limit there it is an error.
    return _SCREENS[kind][0] != _LIMITS or any(arguments.get(name) is not None for name in ("min_value", "max_value"))


def _has_type_known(name: str, value: Any, *, of_text: bool) -> bool:
    if name in ("strict_min", "strict_max"):
        return isinstance(value, bool)
    if name == "regex":
        return isinstance(value, str) and _is_regex(value)
    if name == "value_set":
        is_known = _is_text if of_text else _is_double
        return isinstance(value, list | tuple | set | frozenset) and all(map(is_known, value))
    return _is_double(value) or (value is None and name != "value")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_double(value: Any) -> bool:
    """Whether it is a number that can be compared with doubles as it is: whole ones above 2^53 may not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(value) == value
    except OverflowError:
        return False


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def failing_rows(kind: str, arguments: Mapping[str, Any], values: Values) -> npt.NDArray[np.int64]:
    """Numbers of the rows that do not meet an expectation, rising.

    Args:
        kind: Name of the expectation in Great Expectations.
        arguments: Of the expectation, without the column.
        values: One per row: doubles, NaN where there is nothing to judge; or objects, None there.

    Raises:
        KeyError: If it is not known here; see `can_screen`.
    """
    _, screen = _SCREENS[kind]
    return np.flatnonzero(screen(values, **arguments))


def is_there(values: Values) -> Marks:
    """Which rows have a value to judge."""
    if values.dtype.hasobject:
        return np.fromiter((value is not None for value in values), bool, len(values))
    return ~np.isnan(values)


def _outside(
    values: Values, min_value: Any = None, max_value: Any = None, strict_min: bool = False, strict_max: bool = False
) -> Marks:
    marks = np.zeros(len(values), dtype=bool)
    # NaN compares with nothing, and so fails nothing.
    if min_value is not None:
        marks |= values <= min_value if strict_min else values < min_value
    if max_value is not None:
        marks |= values >= max_value if strict_max else values > max_value
    return marks


def _not_in(values: Values, value_set: Any) -> Marks:
    return is_there(values) & ~_is_in(values, value_set)


def _in(values: Values, value_set: Any) -> Marks:
    return is_there(values) & _is_in(values, value_set)


def _is_in(values: Values, value_set: Any) -> Marks:
    if values.dtype.hasobject:
        wanted = set(value_set)
        return _per_text(values, lambda text: text in wanted)
    return np.isin(values, np.array(list(value_set), dtype=np.float64))


def _no_match(values: Values, regex: str) -> Marks:
    search = re.compile(regex).search
    return is_there(values) & ~_per_text(values, lambda text: search(text) is not None)


def _match(values: Values, regex: str) -> Marks:
    search = re.compile(regex).search
    return is_there(values) & _per_text(values, lambda text: search(text) is not None)


def _length_outside(
    values: Values, min_value: Any = None, max_value: Any = None, strict_min: bool = False, strict_max: bool = False
) -> Marks:
    return _outside(_lengths(values), min_value, max_value, strict_min, strict_max)


def _length_other(values: Values, value: Any) -> Marks:
    return _outside(_lengths(values), value, value)


def _lengths(values: Values) -> npt.NDArray[np.float64]:
    return np.fromiter((np.nan if text is None else len(text) for text in values), np.float64, len(values))


def _missing(values: Values) -> Marks:
    return ~is_there(values)


def _per_text(values: Values, test: Callable[[str], bool]) -> Marks:
    """One test per distinct text: modes and frame ids repeat."""
    known = {text: test(text) for text in set(values.tolist()) if text is not None}
    return np.fromiter((known.get(text, False) for text in values), bool, len(values))


_LIMITS = frozenset({"min_value", "max_value", "strict_min", "strict_max"})
_SCREENS: Mapping[str, tuple[frozenset[str], Callable[..., Marks]]] = {
    "expect_column_values_to_be_between": (_LIMITS, _outside),
    "expect_column_values_to_be_in_set": (frozenset({"value_set"}), _not_in),
    "expect_column_values_to_not_be_in_set": (frozenset({"value_set"}), _in),
    "expect_column_values_to_match_regex": (frozenset({"regex"}), _no_match),
    "expect_column_values_to_not_match_regex": (frozenset({"regex"}), _match),
    "expect_column_value_lengths_to_be_between": (_LIMITS, _length_outside),
    "expect_column_value_lengths_to_equal": (frozenset({"value"}), _length_other),
    "expect_column_values_to_not_be_null": (frozenset(), _missing),
}
_ONLY_OF_NUMBERS = frozenset({"expect_column_values_to_be_between"})
_ONLY_OF_TEXTS = frozenset(kind for kind in _SCREENS if "regex" in kind or "lengths" in kind)
