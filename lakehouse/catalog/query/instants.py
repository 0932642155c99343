"""Operands as they come in JSON, turned into exact numbers and instants."""

import math
import re
from datetime import date
from fractions import Fraction
from typing import Any

from lakehouse.catalog.query.value_sets import Number

NANOSECONDS = 10**9
_DAY_NS = 86_400 * NANOSECONDS
_EPOCH = date(1970, 1, 1).toordinal()
_MAX_TEXT = 64

_DATE = r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
_TIME = r"(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?"
_ZONE = r"(?P<zone>Z|z|[+-]\d{2}:?\d{2}(?::\d{2})?)?"
_INSTANT = re.compile(rf"{_DATE}(?:[Tt ]{_TIME}{_ZONE})?", re.ASCII)
_TIME_OF_DAY = re.compile(rf"{_TIME}{_ZONE}", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?", re.ASCII)
_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:[.,](?P<fraction>\d+))?S)?)?",
    re.ASCII,
)


def is_number(operand: Any) -> bool:
    """Whether a JSON value is a number; booleans are not."""
    return isinstance(operand, int | float | Fraction) and not isinstance(operand, bool)


def is_nan(operand: Any) -> bool:
    return isinstance(operand, float) and math.isnan(operand)


def decimal_text(text: str) -> Fraction | None:
    """The number a decimal text such as `-12.50` stands for; None if it is none."""
    return Fraction(text) if len(text) <= _MAX_TEXT and _NUMBER.fullmatch(text) else None


def instant_ns(operand: Any) -> Number | None:
    """Nanoseconds since 1970-01-01 UTC of an ISO 8601 date or date and time; text without offset counts as UTC.

    The official client sends integers, nanoseconds since the epoch, as decimal text. None if the operand is no instant.
    """
    return _time_ns(operand, _instant)


def time_of_day_ns(operand: Any) -> Number | None:
    """Nanoseconds since midnight of an ISO 8601 time of day, or of a number of nanoseconds; None if it is none."""
    return _time_ns(operand, _time_of_day)


def duration_ns(operand: Any) -> Number | None:
    """Nanoseconds of an ISO 8601 duration without years and months, or of a number of them; None if it is none."""
    return _time_ns(operand, _duration)


def _time_ns(operand: Any, parse: Any) -> Number | None:
    if is_number(operand):
        found: Number = operand
        return found
    if not isinstance(operand, str) or len(operand) > _MAX_TEXT:
        return None
    number = decimal_text(operand)
    parsed: Number | None = parse(operand) if number is None else number
    return parsed


def _instant(text: str) -> int | Fraction | None:
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    try:
        days = date(int(found["year"]), int(found["month"]), int(found["day"])).toordinal() - _EPOCH
    except ValueError:
        return None
    clock = _clock(found) if found["hour"] is not None else 0
    return None if clock is None else days * _DAY_NS + clock


def _time_of_day(text: str) -> int | Fraction | None:
    found = _TIME_OF_DAY.fullmatch(text)
    return None if found is None else _clock(found)


def _clock(found: re.Match[str]) -> int | Fraction | None:
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"] or 0)
    # ISO 8601 knows 24:00 and leap seconds; both are the instant that follows.
    if minute > 59 or second > 60 or hour > 24 or (hour == 24 and (minute or second or found["fraction"])):
        return None
    whole = (hour * 3600 + minute * 60 + second) * NANOSECONDS
    return whole + _fraction_ns(found["fraction"]) - _offset_ns(found["zone"])


def _fraction_ns(digits: str | None) -> Fraction:
    return Fraction(int(digits) * NANOSECONDS, 10 ** len(digits)) if digits else Fraction(0)


def _offset_ns(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:6] or 0)
    return (-seconds if zone[0] == "-" else seconds) * NANOSECONDS


def _duration(text: str) -> Fraction | None:
    found = _DURATION.fullmatch(text)
    if found is None or text[-1] in "PT":
        return None
    weeks, days, hours, minutes, seconds = (
        int(found[name] or 0) for name in ("weeks", "days", "hours", "minutes", "seconds")
    )
    whole = ((weeks * 7 + days) * 86_400 + hours * 3600 + minutes * 60 + seconds) * NANOSECONDS
    total = whole + _fraction_ns(found["fraction"])
    return -total if found["sign"] else total
