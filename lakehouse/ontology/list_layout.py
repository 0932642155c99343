"""Lists of every Arrow layout in one common form: lengths, one gapless run of values, and which rows are null.

Arrow has six ways to lay out lists (list, large list, fixed size, two views, map). Converting between them moves only
offsets; the values are sliced, never copied, unless rows that are null hide values in between.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.ontology.storage_types import UnstorableValueError

# A place in a selection that holds nothing.
NO_ELEMENT = -1

_LARGEST_SMALL_OFFSET = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ListLayout:
    """The rows of a list array.

    Attributes:
        offsets: n + 1 positions, starting at 0, into the elements of all rows in order; a null row is empty.
        values: What the elements are taken from. For a map: structs of key and value.
        selection: Positions of the elements in `values`; None if they are all of `values` in order.
        validity: Bitmap of the rows that are not null; None if all are valid.
        null_count: Number of null rows.
    """

    offsets: npt.NDArray[np.int64]
    values: pa.Array
    selection: npt.NDArray[np.int64] | None
    validity: pa.Buffer | None
    null_count: int

    @property
    def row_count(self) -> int:
        return len(self.offsets) - 1

    def is_valid(self) -> npt.NDArray[np.bool_]:
        """Per row, whether it is not null."""
        if self.validity is None:
            return np.ones(self.row_count, np.bool_)
        return np.asarray(pa.Array.from_buffers(pa.bool_(), self.row_count, [None, self.validity]))


def validity_buffer(array: pa.Array) -> pa.Buffer | None:
    """The validity bitmap of `array`, starting at bit 0 whatever slice of a larger array it is."""
    if array.null_count == 0:
        return None
    flags = pc.invert(pc.is_null(array))
    assert flags.offset == 0
    return flags.buffers()[1]


def read_list(array: pa.Array) -> ListLayout:
    """Take any list-like array apart."""
    starts, lengths = list_spans(array)
    if array.null_count:
        lengths = np.where(np.asarray(array.is_valid()), lengths, 0)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = list_elements(array)
    # Rows without elements say nothing about where the elements are.
    starts, filled = starts[lengths > 0], lengths[lengths > 0]
    selection = None
    if len(starts) == 0:
        values = values.slice(0, 0)
    else:
        first = int(starts.min())
        values = values.slice(first, int((starts + filled).max()) - first)
        starts = starts - first
        if not np.array_equal(starts, np.cumsum(filled) - filled):
            selection = np.repeat(starts - (np.cumsum(filled) - filled), filled) + np.arange(offsets[-1])
    return ListLayout(offsets, values, selection, validity_buffer(array), array.null_count)


def list_spans(array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First element and number of elements of each row; arbitrary for null rows."""
    if len(array) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if pat.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = (array.offset + np.arange(len(array), dtype=np.int64)) * size
        return starts, np.full(len(array), size, np.int64)
    offsets = array.offsets.to_numpy().astype(np.int64)
    if pat.is_list_view(array.type) or pat.is_large_list_view(array.type):
        return offsets, array.sizes.to_numpy().astype(np.int64)
    return offsets[:-1], np.diff(offsets)


def list_elements(array: pa.Array) -> pa.Array:
    """The elements all rows refer to, also those outside a slice."""
    if pat.is_map(array.type):
        entry_type = pa.struct([array.type.key_field, array.type.item_field])
        keys, items = array.keys, array.items
        return pa.Array.from_buffers(entry_type, len(keys), [None], 0, 0, [keys, items])
    return array.values


def build_list(list_type: pa.DataType, layout: ListLayout, values: pa.Array) -> pa.Array:
    """Put `values`, converted from `layout.values`, back into rows of `list_type`.

    Raises:
        UnstorableValueError: If the type counts with 32 bits and there are more elements than that.
    """
    count = layout.row_count
    if pat.is_fixed_size_list(list_type):
        return pa.Array.from_buffers(list_type, count, [layout.validity], layout.null_count, 0, [values])
    is_large = pat.is_large_list(list_type) or pat.is_large_list_view(list_type)
    if not is_large and layout.offsets[-1] > _LARGEST_SMALL_OFFSET:
        raise UnstorableValueError("a batch holds more than 2,147,483,647 list elements in one column; send less rows")
    offsets = np.ascontiguousarray(layout.offsets, np.int64 if is_large else np.int32)
    buffers = [layout.validity, pa.py_buffer(offsets)]
    if pat.is_list_view(list_type) or pat.is_large_list_view(list_type):
        buffers = [layout.validity, pa.py_buffer(offsets[:-1].copy()), pa.py_buffer(np.diff(offsets))]
    return pa.Array.from_buffers(list_type, count, buffers, layout.null_count, 0, [values])


def pad_null_rows(layout: ListLayout, size: int) -> ListLayout:
    """The same rows with room for `size` elements in each null row, as fixed-size lists need.

    Raises:
        UnstorableValueError: If a row that is not null has another length.
    """
    lengths = np.diff(layout.offsets)
    valid = layout.is_valid()
    if not np.all(lengths[valid] == size):
        raise UnstorableValueError(f"a stored list does not have the {size} elements its type demands")
    if layout.null_count == 0:
        return layout
    rows = np.repeat(valid, size)
    selection = np.full(len(rows), NO_ELEMENT, np.int64)
    selection[rows] = np.arange(int(rows.sum())) if layout.selection is None else layout.selection
    offsets = np.arange(layout.row_count + 1, dtype=np.int64) * size
    return replace(layout, offsets=offsets, selection=selection)


def select(values: pa.Array, selection: npt.NDArray[np.int64] | None) -> pa.Array:
    """The elements at the positions of `selection`, null at `NO_ELEMENT`; all of them if it is None."""
    if selection is None:
        return values
    return values.take(pa.array(selection, mask=selection == NO_ELEMENT))
