"""The conditions of a query, parsed and checked (protocol section 12)."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any


class Operator(StrEnum):
    """Every comparison of the query grammar (protocol section 12.2)."""

    EQUAL = "$eq"
    NOT_EQUAL = "$neq"
    LESS = "$lt"
    LESS_OR_EQUAL = "$leq"
    GREATER = "$gt"
    GREATER_OR_EQUAL = "$geq"
    BETWEEN = "$between"
    OUTSIDE = "$outside"
    IN = "$in"
    MATCH = "$match"
    EXISTS = "$ex"
    NOT_EXISTS = "$nex"


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator with its operand, as it came in JSON: a scalar, `(low, high)`, a tuple of alternatives, or None."""

    operator: Operator
    operand: Any


class Quantifier(Enum):
    """Which elements of a list have to satisfy a condition."""

    ANY = "?"
    ALL = "!"


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A column below an ontology tag: `IMU.acceleration.x`, `Joy.axes[0]`, `RobotPath.poses[?].pose.position.x`.

    Attributes:
        tag: Ontology tag.
        segments: Field names, without specifier.
        list_segment: Which segment carries a list specifier; None if none does.
        specifier: Zero-based element, or a quantifier; None without specifier.
    """

    tag: str
    segments: tuple[str, ...]
    list_segment: int | None = None
    specifier: int | Quantifier | None = None

    def __str__(self) -> str:
        names = list(self.segments)
        if self.list_segment is not None:
            shown = self.specifier.value if isinstance(self.specifier, Quantifier) else self.specifier
            names[self.list_segment] += f"[{shown}]"
        return ".".join((self.tag, *names))


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """A condition on the rows of topics of one tag."""

    path: FieldPath
    condition: Condition
