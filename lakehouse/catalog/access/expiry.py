"""When a key ends, as an administrator says it: after a duration, or at an instant."""

import re
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from lakehouse.catalog.errors import BadRequestError, quoted

# ISO 8601 durations as everybody writes them. Months count 30 days and years 365: a key needs no calendar.
_DURATION = re.compile(
    r"P(?=[\dT])(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?", re.ASCII | re.IGNORECASE
)
# RFC 3339, section 5.6: date-time, or full-date.
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d))?",
    re.ASCII,
)
_durations = TypeAdapter(timedelta)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 2**63 - 1


def expires_in(text: str, now_ns: int) -> int:
    """The end of a duration such as `P30D`, `PT12H` or `P1Y2M` that begins now; Unix nanoseconds.

    Raises:
        BadRequestError: If it is no ISO 8601 duration, or its end is beyond all clocks.
    """
    try:
        if not _DURATION.fullmatch(text):
            raise ValueError
        length = _durations.validate_python(text.upper())
    except (ValueError, ValidationError):
        raise BadRequestError(f"{quoted(text)} is no ISO 8601 duration such as P30D, PT12H or P1Y6M") from None
    return _checked(now_ns + length // timedelta(microseconds=1) * 1000, now_ns)


def expires_at(text: str, now_ns: int) -> int:
    """An instant such as `2027-01-31T12:00:00Z`, or the beginning of a UTC day such as `2027-01-31`; Unix nanoseconds.

    Raises:
        BadRequestError: If it is no RFC 3339 instant, or has passed.
    """
    try:
        if not _INSTANT.fullmatch(text):
            raise ValueError
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        raise BadRequestError(
            f"{quoted(text)} is no RFC 3339 instant such as 2027-01-31T12:00:00Z, nor a date such as 2027-01-31"
        ) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return _checked((instant - _EPOCH) // timedelta(microseconds=1) * 1000, now_ns)


def _checked(at_ns: int, now_ns: int) -> int:
    if at_ns <= now_ns:
        raise BadRequestError("a key must expire in the future")
    if at_ns > _LAST_NS:
        raise BadRequestError("a key may not live beyond the year 2262; leave the expiry away for one that never ends")
    return at_ns
