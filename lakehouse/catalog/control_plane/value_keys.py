"""Metadata values as bytes that sort like the values: one column and one index for every type, on every database.

A key begins with the type, so that values of different types never compare equal or fall into one range. Numbers are
exact whatever their size, and 1 and 1.0 have one key. Texts sort by code point.
"""

import math
from typing import Any

BOOL_PREFIX, NUMBER_PREFIX, TEXT_PREFIX = b"\x01", b"\x02", b"\x03"
_NEGATIVE, _ZERO, _POSITIVE = b"\x00", b"\x01", b"\x02"
_EXPONENT_BIAS = 0x8000
_INFINITE_EXPONENT = 0xFFFF
_BITS_PER_BYTE = 7


def value_key(value: Any) -> bytes | None:
    """The key of a scalar; None for what no comparison matches: null, NaN, arrays and objects."""
    if isinstance(value, bool):
        return BOOL_PREFIX + (b"\x01" if value else b"\x00")
    if isinstance(value, str):
        # Lone surrogates are legal in JSON; their three bytes sort where their code point belongs.
        return TEXT_PREFIX + value.encode("utf-8", "surrogatepass")
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return NUMBER_PREFIX + _number_key(value)
    return None


def text_of(key: bytes) -> str | None:
    """The text that a whole key stands for; None if it is of another type."""
    return key[1:].decode("utf-8", "surrogatepass") if key.startswith(TEXT_PREFIX) else None


def _number_key(value: int | float) -> bytes:
    """Sign, binary exponent, then the bits behind the leading one; all but the sign inverted for negative numbers."""
    if value == 0:
        return _ZERO
    if isinstance(value, float) and math.isinf(value):
        magnitude = _INFINITE_EXPONENT.to_bytes(2, "big")
    else:
        numerator, denominator = value.as_integer_ratio()
        numerator = abs(numerator)
        fraction_bits = numerator.bit_length() - 1
        exponent = fraction_bits - (denominator.bit_length() - 1)
        fraction = _fraction_bytes(numerator - (1 << fraction_bits), fraction_bits)
        magnitude = (exponent + _EXPONENT_BIAS).to_bytes(2, "big") + fraction
    if value > 0:
        return _POSITIVE + magnitude
    # The closing byte, an inverted zero, makes a magnitude sort behind longer, larger ones that begin like it.
    return _NEGATIVE + bytes(0xFF - byte for byte in magnitude) + b"\xff"


def _fraction_bytes(fraction: int, bits: int) -> bytes:
    """Seven bits to a byte, whose highest bit is set: more bits than another number's sort behind their end."""
    count = -(-bits // _BITS_PER_BYTE)
    fraction <<= count * _BITS_PER_BYTE - bits
    shifts = range((count - 1) * _BITS_PER_BYTE, -1, -_BITS_PER_BYTE)
    return bytes(0x80 | fraction >> shift & 0x7F for shift in shifts).rstrip(b"\x80")
