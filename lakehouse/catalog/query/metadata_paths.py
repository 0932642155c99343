"""Paths into user metadata, as queries write them (protocol section 12.5).

Arrays are transparent: a key applied to an array is applied to its elements, at any depth. Only the explicit steps
`[*]` and `[i]` see an array itself, and they need one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from lakehouse.catalog.control_plane.metadata_index import Step
from lakehouse.catalog.errors import BadRequestError, quoted

MAX_PATH_LENGTH = 1024
MAX_STEPS = 64
_COMPONENT = re.compile(r"(?P<key>[^\[\]]+)(?P<positions>(?:\[(?:\*|\d{1,9})\])*)")
_POSITION = re.compile(r"\[(\*|\d+)\]")


class Wildcard(Enum):
    """Steps that stand for more than one."""

    ANY_KEY = "*"
    ANY_DEPTH = "**"
    ANY_POSITION = "[*]"


@dataclass(frozen=True, slots=True)
class MetadataPath:
    """A parsed path.

    Attributes:
        text: As it was written.
        steps: Keys, positions and wildcards.
    """

    text: str
    steps: tuple[Step | Wildcard, ...]

    @classmethod
    def parse(cls, text: str) -> "MetadataPath":
        """Read `vehicle.id`, `tags[*]`, `logs[0].id`, `*.rate`, `a.**.b`.

        Raises:
            BadRequestError: If it is too long, or a component is empty or malformed.
        """
        if len(text) > MAX_PATH_LENGTH:
            raise BadRequestError(f"the metadata path {quoted(text, 80)} is longer than {MAX_PATH_LENGTH} characters")
        steps: list[Step | Wildcard] = []
        for component in text.split("."):
            found = _COMPONENT.fullmatch(component)
            if found is None:
                raise BadRequestError(
                    f"the metadata path {quoted(text)} has an empty or malformed component {quoted(component, 80)}"
                )
            key: Step | Wildcard = found["key"]
            if key in ("*", "**"):
                key = Wildcard(key)
            # `**.**` means what `**` means.
            if key is not Wildcard.ANY_DEPTH or not steps or steps[-1] is not key:
                steps.append(key)
            for position in _POSITION.findall(found["positions"]):
                steps.append(Wildcard.ANY_POSITION if position == "*" else int(position))
        if len(steps) > MAX_STEPS:
            raise BadRequestError(f"the metadata path {quoted(text, 80)} has more than {MAX_STEPS} steps")
        return cls(text, tuple(steps))

    @property
    def leading_keys(self) -> tuple[str, ...]:
        """The keys before the first wildcard among keys."""
        keys: list[str] = []
        for step in self.steps:
            if step in (Wildcard.ANY_KEY, Wildcard.ANY_DEPTH):
                break
            if isinstance(step, str):
                keys.append(step)
        return tuple(keys)

    @property
    def names_every_key(self) -> bool:
        """Whether no key is a wildcard."""
        return Wildcard.ANY_KEY not in self.steps and Wildcard.ANY_DEPTH not in self.steps

    @property
    def names_positions(self) -> bool:
        """Whether it has an explicit array step."""
        return any(isinstance(step, int) or step is Wildcard.ANY_POSITION for step in self.steps)

    def begin(self) -> set[int]:
        """How many steps of the path may be behind the root of a document."""
        return self._closure({0})

    def advance(self, reached: Iterable[int], step: Step) -> set[int]:
        """How many steps of the path may be behind a node, given how many may be behind the one above it.

        A node is what the path addresses, or an element of an array that is, where all of them may be.
        """
        return self._closure({state for number in reached for state in self._after(number, step)})

    def _after(self, number: int, step: Step) -> list[int]:
        expected = self.steps[number] if number < len(self.steps) else None
        following = []
        if expected is Wildcard.ANY_DEPTH:
            following.append(number)
        if isinstance(step, int):
            if expected is Wildcard.ANY_POSITION or expected == step:
                following.append(number + 1)
            # Transparent, unless the path names positions here.
            if expected is None or isinstance(expected, str) or expected in (Wildcard.ANY_KEY, Wildcard.ANY_DEPTH):
                following.append(number)
        elif expected is Wildcard.ANY_KEY or expected == step:
            following.append(number + 1)
        return following

    def _closure(self, numbers: set[int]) -> set[int]:
        """With those reached by letting `**` stand for nothing."""
        for number in sorted(numbers):
            if number < len(self.steps) and self.steps[number] is Wildcard.ANY_DEPTH:
                numbers.add(number + 1)
        return numbers
