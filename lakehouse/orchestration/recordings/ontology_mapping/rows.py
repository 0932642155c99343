"""What a mapping is evaluated on: messages as a struct array, and a note of every message that cannot be mapped.

Nested messages and elements of arrays are `Rows` too. They know which recorded message owns them, so that a bad value
anywhere inside a message refuses that message and no other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.catalog.errors import quoted
from lakehouse.orchestration.recordings.decoding.decoded import Indices

BooleanMask = npt.NDArray[np.bool_]


class UnsuitableFieldError(ValueError):
    """A message definition lacks a field, or has it as something else. The mapping says of which message type."""


@dataclass(frozen=True)
class RefusedMessages:
    """Messages that cannot be expressed in the ontology model, for one reason.

    Attributes:
        reason: Text for the user.
        rows: Positions in the decoded batch, ascending, without duplicates.
    """

    reason: str
    rows: Indices


@dataclass(frozen=True)
class Owners:
    """For each row of some column, the recorded message it belongs to; takes note of the refused ones.

    Attributes:
        messages: Position of the owning message in the decoded batch, one per row.
        refused: Reason -> positions, shared by everything that is evaluated for one batch.
    """

    messages: Indices
    refused: dict[str, list[Indices]] = field(default_factory=dict)

    @staticmethod
    def of_messages(count: int) -> Owners:
        """Rows that are the recorded messages themselves."""
        return Owners(np.arange(count, dtype=np.int64))

    def of_elements(self, offsets: pa.Array) -> Owners:
        """Rows that are the elements of one array per row of these; the arrays start at `offsets`."""
        return Owners(np.repeat(self.messages, np.diff(offsets.to_numpy())), self.refused)

    def refuse(self, bad: BooleanMask, reason: str) -> None:
        """Leave out every recorded message that owns a marked row."""
        if bad.any():
            self.refused.setdefault(reason, []).append(self.messages[bad])

    def refusals(self) -> tuple[RefusedMessages, ...]:
        """All refused messages; one with several flaws is listed under the first that was found."""
        listed: Indices = np.empty(0, dtype=np.int64)
        refusals: list[RefusedMessages] = []
        for reason, rows in self.refused.items():
            new = np.setdiff1d(np.concatenate(rows), listed)
            listed = np.concatenate([listed, new])
            if new.size:
                refusals.append(RefusedMessages(reason, new))
        return tuple(refusals)


@dataclass(frozen=True)
class Rows:
    """Messages of one type, evaluated together. ROS knows no absent values: neither rows nor their fields are null."""

    messages: pa.StructArray
    owners: Owners

    def __len__(self) -> int:
        return len(self.messages)

    def has(self, path: str) -> bool:
        """Whether the message definition has the field; `path` is dotted for fields of nested messages."""
        return self._find(path) is not None

    def column(self, path: str) -> pa.Array:
        """The values of a field.

        Raises:
            UnsuitableFieldError: If the message definition of the recording has no such field.
        """
        found = self._find(path)
        if found is None:
            raise UnsuitableFieldError(f"it has no field {quoted(path)}")
        return found

    def numbers(self, path: str) -> npt.NDArray[Any]:
        """The values of a numeric or boolean field as a NumPy array."""
        return _as_numbers(self.column(path), path)

    def arrays(self, path: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Where the array of each row starts, and all elements of an array field of numbers."""
        offsets, values = list_parts(self.column(path))
        return offsets.to_numpy(), _as_numbers(values, path)

    def texts(self, path: str) -> pa.StringArray:
        """The values of a string field."""
        return self._of_type(path, pa.string())

    def blobs(self, path: str) -> pa.BinaryArray:
        """The values of a field of bytes."""
        return self._of_type(path, pa.binary())

    def inside(self, path: str) -> Rows:
        """The nested messages in a field, one per row."""
        nested = self.column(path)
        if not pa.types.is_struct(nested.type):
            raise UnsuitableFieldError(f"field {quoted(path)} is not a message")
        return Rows(nested, self.owners)

    def elements(self, path: str) -> tuple[pa.Array, Rows]:
        """Where the array of each row starts (int32 offsets), and all elements of an array of messages as rows."""
        offsets, values = list_parts(self.column(path))
        if not pa.types.is_struct(values.type):
            raise UnsuitableFieldError(f"field {quoted(path)} is not an array of messages")
        return offsets, Rows(values, self.owners.of_elements(offsets))

    def _of_type(self, path: str, wanted: pa.DataType) -> pa.Array:
        values = self.column(path)
        if values.type != wanted:
            raise UnsuitableFieldError(f"field {quoted(path)} is no {wanted}")
        return values

    def _find(self, path: str) -> pa.Array | None:
        current: pa.Array = self.messages
        for name in path.split("."):
            if not pa.types.is_struct(current.type) or current.type.get_field_index(name) < 0:
                return None
            current = current.field(name)
        return current


def list_parts(lists: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Offsets (int32, starting at 0) and values of a list array of any kind without nulls.

    Raises:
        UnsuitableFieldError: If it is not a list.
    """
    if pa.types.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        return pa.array(np.arange(len(lists) + 1, dtype=np.int32) * np.int32(size)), lists.flatten()
    if pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type):
        offsets = lists.offsets.to_numpy()
        return pa.array((offsets - offsets[0]).astype(np.int32)), lists.flatten()
    raise UnsuitableFieldError(f"it has {quoted(lists.type)} where an array is expected")


def is_number(data_type: pa.DataType) -> bool:
    """Whether values of the type are numbers; `bool` counts, as 0 and 1."""
    return bool(pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_boolean(data_type))


def _as_numbers(values: pa.Array, path: str) -> npt.NDArray[Any]:
    if not is_number(values.type):
        raise UnsuitableFieldError(f"field {quoted(path)} holds no numbers")
    return values.to_numpy(zero_copy_only=False)


def null_where(unset: BooleanMask, values: pa.Array) -> pa.Array:
    """`values` with nulls at the marked rows."""
    if not unset.any():
        return values
    if unset.all():
        return pa.nulls(len(values), values.type)
    mask = pa.array(unset)
    # if_else copies structs and lists element by element, some twenty times slower than this.
    if pa.types.is_struct(values.type) and values.null_count == 0:
        children = [values.field(index) for index in range(values.type.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(values.type), mask=mask)
    if pa.types.is_list(values.type) and values.null_count == 0:
        offsets, elements = list_parts(values)
        lengths = np.diff(offsets.to_numpy())
        starts = np.concatenate([[0], np.cumsum(np.where(unset, 0, lengths))]).astype(np.int32)
        set_elements = elements.filter(pa.array(np.repeat(~unset, lengths)))
        return pa.ListArray.from_arrays(pa.array(starts), set_elements, type=values.type, mask=mask)
    return pc.if_else(mask, pa.scalar(None, values.type), values)
