"""Conditions as sets of values: what a stored value must lie in, exactly.

Every comparison of the grammar is a union of intervals over the ordered values a column can hold. The same intervals
decide about single values and about the bounds of files and row groups, so the two can never disagree. Ends are
computed with exact arithmetic: a 64-bit integer compared with a JSON decimal, or a float compared with an integer
beyond 2^53, meets no rounding.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

Number = int | float | Fraction
Mask = npt.NDArray[np.bool_]
# Above every UTF-8 text: no byte of UTF-8 is 0xff.
BEYOND_TEXT = b"\xff"


class ValueSet(Protocol):
    """A set of values of one column type.

    Attributes:
        includes_nan: Whether NaN belongs to the set.
    """

    @property
    def includes_nan(self) -> bool: ...

    def contains(self, values: pa.Array) -> Mask:
        """Per value whether it belongs to the set; null never does."""
        ...

    def overlaps(self, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> Mask:
        """Per pair of bounds whether a value of the set, NaN aside, may lie between them."""
        ...


@dataclass(frozen=True, slots=True)
class IntegerDomain:
    """Whole numbers: integers, booleans, unscaled decimals, counts of a time unit.

    Attributes:
        smallest, largest: Range of what the type holds.
        scale: Stored value of the operand 1.
    """

    smallest: int
    largest: int
    scale: Fraction = Fraction(1)

    def at_most(self, operand: Number) -> int:
        """The largest stored value that is not above the operand, or something below `smallest`."""
        if isinstance(operand, float) and math.isinf(operand):
            return self.largest if operand > 0 else self.smallest - 1
        return max(min(math.floor(Fraction(operand) * self.scale), self.largest), self.smallest - 1)

    def at_least(self, operand: Number) -> int:
        if isinstance(operand, float) and math.isinf(operand):
            return self.smallest if operand < 0 else self.largest + 1
        return min(max(math.ceil(Fraction(operand) * self.scale), self.smallest), self.largest + 1)

    def below(self, operand: Number) -> int:
        # The largest value below x is one less than the smallest that is not below x.
        return self.at_least(operand) - 1

    def above(self, operand: Number) -> int:
        return self.at_most(operand) + 1


@dataclass(frozen=True, slots=True)
class FloatDomain:
    """Doubles; narrower floats are compared by their exact value as doubles."""

    smallest: float = -math.inf
    largest: float = math.inf

    def at_most(self, operand: Number) -> float:
        nearest = _nearest_double(operand)
        return math.nextafter(nearest, -math.inf) if nearest > operand else nearest

    def at_least(self, operand: Number) -> float:
        nearest = _nearest_double(operand)
        return math.nextafter(nearest, math.inf) if nearest < operand else nearest

    def below(self, operand: Number) -> float | None:
        found = self.at_least(operand)
        return None if found == -math.inf else math.nextafter(found, -math.inf)

    def above(self, operand: Number) -> float | None:
        found = self.at_most(operand)
        return None if found == math.inf else math.nextafter(found, math.inf)


def _nearest_double(operand: Number) -> float:
    try:
        return float(operand)
    except OverflowError:
        return math.inf if operand > 0 else -math.inf


Domain = IntegerDomain | FloatDomain
Interval = tuple[Any, Any]


class NumberSet:
    """A union of closed intervals of a number domain.

    Args:
        domain: What the column holds.
        intervals: First and last value of each; those with an end that is None, or out of order, are empty.
        includes_nan: Whether NaN belongs to the set.
    """

    def __init__(self, domain: Domain, intervals: Iterable[Interval], *, includes_nan: bool = False) -> None:
        self.includes_nan = includes_nan and isinstance(domain, FloatDomain)
        merged = _merged((low, high) for low, high in intervals if low is not None and high is not None and low <= high)
        self._is_whole = isinstance(domain, IntegerDomain)
        kind: Any = object if _is_wide(domain) else np.int64 if self._is_whole else np.float64
        self._lows = np.array([low for low, _ in merged], kind)
        self._highs = np.array([high for _, high in merged], kind)

    def contains(self, values: pa.Array) -> Mask:
        if pat.is_decimal(values.type):
            return self._contains_decimals(values)
        raw = plain_numbers(values)
        found = np.zeros(len(raw), np.bool_)
        if len(self._lows) <= 2:
            for low, high in zip(self._lows, self._highs, strict=True):
                found |= (raw >= low) & (raw <= high)
        else:
            place = np.searchsorted(self._lows, raw, side="right") - 1
            found = (place >= 0) & (raw <= self._highs[place])
        if self.includes_nan and raw.dtype.kind == "f":
            found |= np.isnan(raw)
        return found & validity(values) if values.null_count else found

    def _contains_decimals(self, values: pa.Array) -> Mask:
        found = np.zeros(len(values), np.bool_)
        kind = values.type
        widest = 10**kind.precision - 1
        ends = [
            (max(int(low), -widest), min(int(high), widest)) for low, high in zip(self._lows, self._highs, strict=True)
        ]
        singles = [first for first, last in ends if first == last]
        if singles:
            found |= flags(pc.is_in(values, value_set=_decimals(singles, kind)))
        for first, last in ends:
            if first >= last:
                continue
            bounds = _decimals([first, last], kind)
            inside = pc.and_(pc.greater_equal(values, bounds[0]), pc.less_equal(values, bounds[1]))
            found |= flags(inside)
        return found

    def overlaps(self, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> Mask:
        return _overlaps(self._lows, self._highs, lower, upper, is_closed=True)


class TextSet:
    """A union of half-open intervals of text, compared by code point, which is how UTF-8 compares by bytes.

    Args:
        intervals: First text inside and first text behind each; None for no end.
        matches: A further test of each text; None if there is none.
    """

    includes_nan = False

    def __init__(
        self, intervals: Iterable[tuple[bytes, bytes | None]], matches: Callable[[str], bool] | None = None
    ) -> None:
        ends = ((low, BEYOND_TEXT if high is None else high) for low, high in intervals)
        merged = _merged(each for each in ends if each[0] < each[1])
        self._lows = np.array([low for low, _ in merged], object)
        self._highs = np.array([high for _, high in merged], object)
        self._matches = matches

    def contains(self, values: pa.Array) -> Mask:
        encoded = values.dictionary_encode() if not pat.is_dictionary(values.type) else values
        distinct = encoded.dictionary
        inside = self._lie_inside(
            distinct.cast(pa.large_binary() if pat.is_large_string(distinct.type) else pa.binary())
        )
        if self._matches is not None:
            for position in np.flatnonzero(inside).tolist():
                inside[position] = self._matches(distinct[position].as_py())
        if len(distinct) == 0:
            return np.zeros(len(values), np.bool_)
        codes = plain_numbers(encoded.indices)
        return inside[np.where(validity(encoded), codes, 0)] & validity(encoded)

    def _lie_inside(self, texts: pa.Array) -> Mask:
        inside = np.zeros(len(texts), np.bool_)
        if len(self._lows) <= 2:
            for low, high in zip(self._lows, self._highs, strict=True):
                bounds = pa.scalar(low, texts.type), pa.scalar(high, texts.type)
                inside |= flags(pc.and_(pc.greater_equal(texts, bounds[0]), pc.less(texts, bounds[1])))
            return inside
        plain = np.array(texts.to_pylist(), object)
        place = np.searchsorted(self._lows, plain, side="right") - 1
        return np.asarray((place >= 0) & (plain < self._highs[place]), np.bool_)

    def overlaps(self, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> Mask:
        return _overlaps(self._lows, self._highs, lower, upper, is_closed=False)


def _is_wide(domain: Domain) -> bool:
    """Whether values of the domain do not fit 64-bit integers."""
    return isinstance(domain, IntegerDomain) and not (domain.smallest >= -(2**63) and domain.largest < 2**63)


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Intervals in order; those that overlap are joined."""
    joined: list[Interval] = []
    for low, high in sorted(intervals):
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def _overlaps(
    lows: npt.NDArray[Any],
    highs: npt.NDArray[Any],
    lower: npt.NDArray[Any],
    upper: npt.NDArray[Any],
    *,
    is_closed: bool,
) -> Mask:
    if len(lows) == 0:
        return np.zeros(len(lower), np.bool_)
    if len(lows) == 1:
        # Arrays of one, not scalars: NumPy takes the zero bytes off the end of a single byte string.
        ends_behind = (lower <= highs) if is_closed else (lower < highs)
        return np.asarray(ends_behind & (upper >= lows), np.bool_)
    # The first interval that ends at or behind the lower bound is the only one to look at.
    place = np.searchsorted(highs, lower, side="left" if is_closed else "right")
    exists = place < len(highs)
    return np.asarray(exists & (lows[np.where(exists, place, 0)] <= upper), np.bool_)


def text_successor(text: bytes) -> bytes:
    """The first text behind `text`."""
    return text + b"\x00"


def prefix_end(prefix: bytes) -> bytes | None:
    """The first byte string behind all that begin with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def plain_numbers(values: pa.Array) -> npt.NDArray[Any]:
    """Numbers, times and booleans as the numbers they are stored as; arbitrary where null."""
    kind = values.type
    if pat.is_boolean(kind):
        return plain_numbers(values.cast(pa.uint8()))
    width = kind.bit_width // 8
    letter = "f" if pat.is_floating(kind) else "u" if pat.is_unsigned_integer(kind) else "i"
    buffer = values.buffers()[1]
    if buffer is None or len(values) == 0:
        return np.zeros(len(values), np.dtype(f"{letter}{width}"))
    return np.frombuffer(buffer, np.dtype(f"{letter}{width}"), len(values), values.offset * width)


def validity(values: pa.Array) -> Mask:
    """Per value whether it is not null."""
    if values.null_count == 0:
        return np.ones(len(values), np.bool_)
    return flags(values.is_valid())


def flags(values: pa.Array) -> Mask:
    """A boolean column as a mask; null is false."""
    if values.null_count:
        values = pc.fill_null(values, False)
    return np.asarray(values.to_numpy(zero_copy_only=False), np.bool_)


def _decimals(unscaled: Sequence[int], kind: pa.DataType) -> pa.Array:
    """Decimals of exactly `kind` from their digits without point."""
    words = b"".join(each.to_bytes(kind.bit_width // 8, "little", signed=True) for each in unscaled)
    return pa.Array.from_buffers(kind, len(unscaled), [None, pa.py_buffer(words)])
