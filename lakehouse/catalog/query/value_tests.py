"""Conditions on metadata values, compiled to ranges of their sortable keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lakehouse.catalog.control_plane.value_keys import text_of, value_key
from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.globs import Glob


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `low` to `high`, each included or not."""

    low: bytes
    includes_low: bool
    high: bytes
    includes_high: bool

    @classmethod
    def of(cls, key: bytes) -> "KeyRange":
        return cls(key, True, key, True)

    def contains(self, key: bytes) -> bool:
        above = key >= self.low if self.includes_low else key > self.low
        below = key <= self.high if self.includes_high else key < self.high
        return above and below


@dataclass(frozen=True, slots=True)
class ValueTest:
    """What a value has to be.

    Attributes:
        ranges: The key has to lie in one of these.
        glob: The text has to match as well.
    """

    ranges: tuple[KeyRange, ...]
    glob: Glob | None = None

    @classmethod
    def compile(cls, condition: Condition) -> "ValueTest":
        """Compile any condition but `$ex` and `$nex`."""
        if condition.operator is Operator.MATCH:
            return cls._of_glob(Glob.parse(condition.operand))
        return cls(tuple(_ranges(condition.operator, condition.operand)))

    @classmethod
    def _of_glob(cls, glob: Glob) -> "ValueTest":
        if glob.literal is not None:
            return cls((KeyRange.of(_key(glob.literal)),))
        low = _key(glob.prefix)
        ranges = (KeyRange(low, True, _successor(low), False),)
        return cls(ranges, None if glob.is_prefix_only else glob)

    def holds(self, key: bytes | None) -> bool:
        """Whether a whole key passes."""
        if key is None or not any(each.contains(key) for each in self.ranges):
            return False
        text = text_of(key)
        return self.glob is None or (text is not None and self.glob.matches(text))


def _ranges(operator: Operator, operand: Any) -> Sequence[KeyRange]:
    low, high = (operand[0], operand[1]) if operator in (Operator.BETWEEN, Operator.OUTSIDE) else (operand, operand)
    if operator is Operator.IN:
        return [KeyRange.of(key) for key in sorted(set(map(_key, operand)))]
    first, last = _key(low), _key(high)
    # All keys of the operand's type begin with its first byte.
    bottom, top = first[:1], _successor(first[:1])
    match operator:
        case Operator.EQUAL | Operator.BETWEEN:
            return [KeyRange(first, True, last, True)]
        case Operator.NOT_EQUAL | Operator.OUTSIDE:
            return [KeyRange(bottom, True, first, False), KeyRange(last, False, top, False)]
        case Operator.LESS:
            return [KeyRange(bottom, True, first, False)]
        case Operator.LESS_OR_EQUAL:
            return [KeyRange(bottom, True, first, True)]
        case Operator.GREATER:
            return [KeyRange(first, False, top, False)]
        case Operator.GREATER_OR_EQUAL:
            return [KeyRange(first, True, top, False)]
    raise ValueError(f"'{operator}' does not compare values")


def _key(operand: Any) -> bytes:
    key = value_key(operand)
    if key is None:
        raise ValueError("operands are scalars")
    return key


def _successor(prefix: bytes) -> bytes:
    """The smallest key larger than everything that begins with `prefix`, whose last byte is never 0xFF."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
