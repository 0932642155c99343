"""Values of engines, of Arrow and of the SDK in one form, so that they can be compared."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

# It differs from itself, wherever it comes from.
NOT_A_NUMBER = "NaN"


def plain(value: Any) -> Any:
    """A value in a form that all engines and Arrow can be brought to.

    Structs are tuples, maps are lists of pairs, numbers are Python's own, instants are in UTC, and what has no time
    zone stays without.
    """
    if isinstance(value, dict):
        return tuple(plain(each) for each in value.values())
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    if isinstance(value, (list, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else value
    if isinstance(value, float | np.floating):
        return NOT_A_NUMBER if math.isnan(value) else float(value)
    return int(value)


def plain_rows(rows: Sequence[Any]) -> list[Any]:
    return [plain(row) for row in rows]
