"""What JSON values look like: the union of all values seen, as far as choosing a column type needs it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_MOST_FIELDS = 20_000
_DEEPEST_NESTING = 64


class JsonShape:
    """The kinds of values seen in one place.

    Attributes:
        kinds: Of `null`, `boolean`, `integer`, `number` (not whole), `string`, `object`, `array`.
        least: Smallest integer seen, at most 0.
        most: Largest integer seen, at least 0.
        properties: Shapes of the properties of objects, in order of appearance.
        items: Shape of the elements of arrays.
        is_unbounded: Whether there are too many different properties or levels to have columns.
    """

    __slots__ = ("is_unbounded", "items", "kinds", "least", "most", "properties")

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.least = 0
        self.most = 0
        self.properties: dict[str, JsonShape] = {}
        self.items: JsonShape | None = None
        self.is_unbounded = False

    def add(self, value: Any, budget: list[int], depth: int = 0) -> None:
        """Take one value into account; `budget` holds how many properties may still be discovered."""
        if value is None:
            self.kinds.add("null")
        elif value is True or value is False:
            self.kinds.add("boolean")
        elif isinstance(value, int):
            self.kinds.add("integer")
            if value < self.least:
                self.least = value
            elif value > self.most:
                self.most = value
        elif isinstance(value, float):
            self.kinds.add("number")
        elif isinstance(value, str):
            self.kinds.add("string")
        elif depth >= _DEEPEST_NESTING:
            self.is_unbounded = True
        elif isinstance(value, dict):
            self.kinds.add("object")
            for key, child in value.items():
                shape = self.properties.get(key)
                if shape is None:
                    budget[0] -= 1
                    if budget[0] < 0:
                        self.is_unbounded = True
                        return
                    shape = self.properties[key] = JsonShape()
                shape.add(child, budget, depth + 1)
        else:
            self.kinds.add("array")
            if self.items is None:
                self.items = JsonShape()
            for child in value:
                self.items.add(child, budget, depth + 1)


class JsonSurvey:
    """Looks at all messages of a channel before any is stored: JSON does not say what comes later."""

    def __init__(self) -> None:
        self.shape = JsonShape()
        self._budget = [_MOST_FIELDS]

    def observe(self, payloads: Iterable[bytes]) -> None:
        """Take messages into account; those that are no JSON are passed over."""
        for payload in payloads:
            try:
                value = parse_json(payload)
            except ValueError:
                continue
            self.shape.add(value, self._budget)


def parse_json(payload: bytes) -> Any:
    """Read one message.

    Raises:
        ValueError: If it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(payload)
    except RecursionError:
        raise ValueError("nested too deeply") from None
