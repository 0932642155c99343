"""A thread-safe, least-recently-used cache bounded by the weight of its values."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Keeps values of immutable things until their total weight exceeds a bound, then drops the least recently used.

    Two threads that miss the same key at the same time both load it; the values are immutable, so either may stay.

    Args:
        capacity: Largest total weight kept. A single value heavier than this is returned but never kept.
        weigh: Weight of one value, in the unit of `capacity`.
    """

    def __init__(self, capacity: int, weigh: Callable[[Value], int] = lambda _value: 1) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    @property
    def weight(self) -> int:
        """Total weight of what is kept now."""
        return self._weight

    def peek(self, key: Key) -> Value | None:
        """The value of `key` if it is kept."""
        with self._lock:
            if (entry := self._entries.get(key)) is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def get(self, key: Key, load: Callable[[], Value]) -> Value:
        """The value of `key`, loaded when it is not kept. Errors of `load` pass through and nothing is kept."""
        with self._lock:
            if (entry := self._entries.get(key)) is not None:
                self._entries.move_to_end(key)
                return entry[0]
        value = load()
        self.keep(key, value)
        return value

    def keep(self, key: Key, value: Value) -> None:
        """Take in a value that was made elsewhere, unless one is kept already."""
        weight = self._weigh(value)
        with self._lock:
            if key not in self._entries and weight <= self._capacity:
                self._entries[key] = (value, weight)
                self._weight += weight
                while self._weight > self._capacity:
                    _, (_, dropped) = self._entries.popitem(last=False)
                    self._weight -= dropped
