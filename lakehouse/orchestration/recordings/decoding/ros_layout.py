"""Where in a serialized ROS message each value lies.

CDR (as ROS 2 uses it: OMG CORBA 3.3 part 2, 9.3, "plain CDR" in DDS-XTypes 7.4.1) and the ROS 1 serialization both put
the fields one after the other, with a length before everything that has one. CDR aligns numbers to their size, counted
from behind the four bytes of encapsulation; ROS 1 does not align.

So the lengths alone decide where every value is. `MessageLayout.trace` walks through one message and notes all lengths
and places as a `Placement`; every other message with equal lengths at the same places can then be read without walking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rosbags.interfaces import Nodetype

from lakehouse.orchestration.recordings.decoding.ros_types import (
    OCTETS,
    PLACEHOLDER_FIELD,
    Definitions,
    fields_of,
    scalar_name,
)

_SIZES = {
    "bool": 1,
    "byte": 1,
    "char": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
NUMPY_CODES = {
    "bool": "u1",
    "byte": "u1",
    "char": "u1",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "int64": "i8",
    "uint64": "u8",
    "float64": "f8",
}
_MOST_EMPTY_ELEMENTS = 65_536


class BrokenMessageError(ValueError):
    """The bytes are not a message of the type; the text says why and holds no value of the message."""


@dataclass(eq=False, slots=True)
class Number:
    """A scalar, or with `on_wire` false the placeholder of a ROS 1 message without fields (always 0)."""

    slot: int
    name: str
    size: int
    alignment: int
    on_wire: bool = True
    is_static = True

    @property
    def least_size(self) -> int:
        return self.size if self.on_wire else 0


@dataclass(eq=False, slots=True)
class Text:
    """A string; `is_wide` for a `wstring`, whose length counts characters."""

    slot: int
    is_wide: bool
    alignment: int
    is_static = False
    least_size = 4


@dataclass(eq=False, slots=True)
class Octets:
    """A sequence of bytes."""

    slot: int
    alignment: int
    is_static = False
    least_size = 4


@dataclass(eq=False, slots=True)
class Struct:
    children: list[Node]
    alignment: int
    is_static: bool
    least_size: int


@dataclass(eq=False, slots=True)
class Repeated:
    """An array (`count` given) or a sequence."""

    slot: int
    element: Node
    count: int | None
    alignment: int
    is_static: bool
    least_size: int


Node = Number | Text | Octets | Struct | Repeated


@dataclass(slots=True)
class Placement:
    """Where the values of one message are.

    Attributes:
        places: For each slot: runs `(start, count, stride)` of a number, `(start, bytes)` of a text or bytes, or the
            lengths of a sequence.
        lengths: `(place, value)` of every 32-bit length in the message.
        terminators: Places that must hold a zero byte.
        wide_size: Bytes per character of a `wstring`.
    """

    places: list[list[Any]]
    lengths: list[tuple[int, int]] = field(default_factory=list)
    terminators: list[int] = field(default_factory=list)
    wide_size: int = 4


class MessageLayout:
    """The layout of one message type in one serialization."""

    def __init__(self, message_type: str, definitions: Definitions, *, is_cdr: bool) -> None:
        self._definitions = definitions
        self._is_cdr = is_cdr
        self._slots = 0
        self._has_wide_text = False
        self.header_size = 4 if is_cdr else 0
        self.root = self._struct(message_type)

    def trace(self, data: bytes, byte_order: str) -> Placement:
        """Walk through one message.

        Args:
            data: The payload, encapsulation included.
            byte_order: `<` or `>`.

        Raises:
            BrokenMessageError: If lengths reach beyond the end, or the message ends before the bytes do.
        """
        order = "little" if byte_order == "<" else "big"
        if not self._has_wide_text:
            return _Tracer(self, data, order, 4).run()
        # Fast-CDR before version 2 writes four bytes per wide character, everything else two; a file does not say.
        try:
            return _Tracer(self, data, order, 4).run()
        except BrokenMessageError:
            return _Tracer(self, data, order, 2).run()

    @property
    def is_cdr(self) -> bool:
        return self._is_cdr

    @property
    def slot_count(self) -> int:
        return self._slots

    def _slot(self) -> int:
        self._slots += 1
        return self._slots - 1

    def _struct(self, message_type: str) -> Struct:
        children = [self._field(name, field) for name, field in fields_of(message_type, self._definitions)]
        return Struct(
            children,
            max(child.alignment for child in children),
            all(child.is_static for child in children),
            sum(child.least_size for child in children),
        )

    def _field(self, name: str, description: Any) -> Node:
        node, details = description
        if (scalar := scalar_name(description, self._definitions)) is not None:
            if scalar in ("string", "wstring"):
                self._has_wide_text |= scalar == "wstring"
                return Text(self._slot(), scalar == "wstring", 4 if self._is_cdr else 1)
            size = _SIZES[scalar]
            on_wire = self._is_cdr or name != PLACEHOLDER_FIELD
            return Number(self._slot(), scalar, size, size if self._is_cdr else 1, on_wire)
        if node == Nodetype.NAME:
            return self._struct(details)
        element, size = details
        if node == Nodetype.SEQUENCE and scalar_name(element, self._definitions) in OCTETS:
            return Octets(self._slot(), 4 if self._is_cdr else 1)
        slot = self._slot()
        item = self._field("", element)
        if node == Nodetype.ARRAY:
            is_static = item.is_static and isinstance(item, Number)
            return Repeated(slot, item, size, item.alignment, is_static, item.least_size * size)
        return Repeated(slot, item, None, max(item.alignment, 4 if self._is_cdr else 1), False, 4)


class _Tracer:
    def __init__(self, layout: MessageLayout, data: bytes, order: Any, wide_size: int) -> None:
        self._layout = layout
        self._data = data
        self._order = order
        self._base = layout.header_size
        self._end = len(data)
        self._aligned = layout.is_cdr
        self._placement = Placement([[] for _ in range(layout.slot_count)], wide_size=wide_size)

    def run(self) -> Placement:
        end = self._walk(self._layout.root, self._base)
        # CDR messages may be padded to a multiple of four.
        if self._end - end > (3 if self._aligned else 0):
            raise BrokenMessageError("the message is longer than its type says")
        return self._placement

    def _align(self, position: int, alignment: int) -> int:
        if not self._aligned:
            return position
        return position + (self._base - position) % alignment

    def _check(self, end: int) -> int:
        if end > self._end:
            raise BrokenMessageError("the message ends in the middle of a value")
        return end

    def _length(self, position: int) -> tuple[int, int]:
        start = self._align(position, 4)
        end = self._check(start + 4)
        value = int.from_bytes(self._data[start:end], self._order)
        self._placement.lengths.append((start, value))
        return value, end

    def _walk(self, node: Node, position: int) -> int:
        places = self._placement.places
        if isinstance(node, Struct):
            for child in node.children:
                position = self._walk(child, position)
            return position
        if isinstance(node, Number):
            if not node.on_wire:
                places[node.slot].append((0, 1, 0))
                return position
            start = self._align(position, node.alignment)
            places[node.slot].append((start, 1, node.size))
            return self._check(start + node.size)
        if isinstance(node, Text):
            length, start = self._length(position)
            size = length * self._placement.wide_size if node.is_wide else length
            end = self._check(start + size)
            if self._aligned and not node.is_wide and length:
                if self._data[end - 1]:
                    raise BrokenMessageError("a string does not end with a zero byte")
                self._placement.terminators.append(end - 1)
                size -= 1
            places[node.slot].append((start, size))
            return end
        if isinstance(node, Octets):
            length, start = self._length(position)
            places[node.slot].append((start, length))
            return self._check(start + length)
        return self._walk_elements(node, position)

    def _walk_elements(self, node: Repeated, position: int) -> int:
        element = node.element
        count = node.count
        if count is None:
            count, position = self._length(position)
            self._placement.places[node.slot].append(count)
            if element.least_size == 0 and count > _MOST_EMPTY_ELEMENTS:
                raise BrokenMessageError("a sequence has more elements than the message has bytes")
        if count * element.least_size > self._end - position:
            raise BrokenMessageError("a sequence has more elements than the message has bytes")
        if count == 0:
            return position
        if isinstance(element, Number) and element.on_wire:
            start = self._align(position, element.alignment)
            self._placement.places[element.slot].append((start, count, element.size))
            return self._check(start + count * element.size)
        if count > 2 and element.is_static:
            return self._walk_static(element, count, position)
        for _ in range(count):
            position = self._walk(element, position)
        return position

    def _walk_static(self, element: Node, count: int, position: int) -> int:
        """Elements that all look the same: walk through two, the others follow at the same distance."""
        slots = list(_slots_of(element))
        places = self._placement.places
        before = {slot: len(places[slot]) for slot in slots}
        first_end = self._walk(element, position)
        runs = {slot: places[slot][before[slot] :] for slot in slots}
        second_end = self._walk(element, first_end)
        stride = second_end - first_end
        shift = {slot: places[slot][before[slot] + len(runs[slot])][0] - runs[slot][0][0] for slot in slots}
        in_step = all(distance == stride for slot, distance in shift.items() if runs[slot][0][2])
        if not in_step or stride % element.alignment:
            for _ in range(count - 2):
                second_end = self._walk(element, second_end)
            return second_end
        end = self._check(second_end + (count - 2) * stride)
        for slot in slots:
            del places[slot][before[slot] :]
            if len(runs[slot]) == 1 and runs[slot][0][1] == 1:
                start, _, size = runs[slot][0]
                places[slot].append((start, count, stride if size else 0))
            else:
                places[slot].extend(
                    (start + index * stride, many, size) for index in range(count) for start, many, size in runs[slot]
                )
        return end


def _slots_of(node: Node) -> Iterator[int]:
    """The slots of the numbers in a static element."""
    if isinstance(node, Number):
        yield node.slot
    elif isinstance(node, Struct):
        for child in node.children:
            yield from _slots_of(child)
    elif isinstance(node, Repeated):
        yield from _slots_of(node.element)
