"""Lists of every Arrow layout in one common form: lengths, one gapless run of values, and which rows are null.

Arrow has six ways to lay out lists (list, large list, fixed size, two views, map). Converting between them moves only
offsets; the values are sliced, never copied, unless rows that are null hide values in between.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.ontology.storage_types import UnstorableValueError

_LARGEST_SMALL_OFFSET = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ListLayout:
    """The rows of a list array.

    Attributes:
        offsets: n + 1 positions into `values`, starting at 0; a null row is empty.
        values: The elements of all rows, in order, without gaps. For a map: structs of key and value.
        validity: Bitmap of the rows that are not null; None if all are valid.
        null_count: Number of null rows.
    """

    offsets: npt.NDArray[np.int64]
    values: pa.Array
    validity: pa.Buffer | None
    null_count: int

    @property
    def row_count(self) -> int:
        return len(self.offsets) - 1


def validity_buffer(array: pa.Array) -> pa.Buffer | None:
    """The validity bitmap of `array`, starting at bit 0 whatever slice of a larger array it is."""
    if array.null_count == 0:
        return None
    return _bitmap(pc.invert(pc.is_null(array)))


def _bitmap(flags: pa.BooleanArray) -> pa.Buffer:
    assert flags.offset == 0
    return flags.buffers()[1]


def read_list(array: pa.Array) -> ListLayout:
    """Take any list-like array apart."""
    validity, null_count = validity_buffer(array), array.null_count
    lengths = _lengths(array)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    if pat.is_list_view(array.type) or pat.is_large_list_view(array.type) or pat.is_fixed_size_list(array.type):
        # Views may be out of order or overlap, and fixed-size lists keep room for null rows: `flatten` knows both.
        return ListLayout(offsets, array.flatten(), validity, null_count)
    start, stop = _span(array)
    if stop - start != total:
        # Null rows that are not empty: `take` drops what they hide.
        rows = pa.array(np.arange(len(array)), mask=np.asarray(array.is_null()))
        array = array.take(rows)
        start, stop = _span(array)
    return ListLayout(offsets, _elements(array).slice(start, stop - start), validity, null_count)


def _lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    if pat.is_map(array.type):
        if len(array) == 0:
            return np.zeros(0, np.int64)
        lengths = np.diff(array.offsets.to_numpy()).astype(np.int64)
        if array.null_count:
            lengths[np.asarray(array.is_null())] = 0
        return lengths
    lengths = pc.list_value_length(array)
    if lengths.null_count:
        lengths = lengths.fill_null(0)
    return lengths.to_numpy().astype(np.int64)


def _span(array: pa.Array) -> tuple[int, int]:
    """First and one-past-last element that the rows refer to."""
    if len(array) == 0:
        return 0, 0
    offsets = array.offsets
    return offsets[0].as_py(), offsets[len(array)].as_py()


def _elements(array: pa.Array) -> pa.Array:
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
    if layout.null_count == 0:
        valid = np.ones(layout.row_count, bool)
    else:
        bits = pa.Array.from_buffers(pa.bool_(), layout.row_count, [None, layout.validity])
        valid = np.asarray(bits)
    if not np.all(lengths[valid] == size):
        raise UnstorableValueError(f"a stored list does not have the {size} elements its type demands")
    if layout.null_count == 0:
        return layout
    rows = np.repeat(valid, size)
    positions = np.zeros(len(rows), np.int64)
    positions[rows] = np.arange(int(rows.sum()))
    values = layout.values.take(pa.array(positions, mask=~rows))
    offsets = np.arange(layout.row_count + 1, dtype=np.int64) * size
    return ListLayout(offsets, values, layout.validity, layout.null_count)
