"""How many bytes a column stands for once dictionaries and views are resolved.

Both let many rows share one value, so a message of a few megabytes can stand for terabytes. The size is computed from
lengths alone, before anything is resolved.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.ontology.list_layout import list_elements, list_spans
from lakehouse.ontology.storage_types import is_any_list

Sizes = npt.NDArray[np.float64]


def may_expand(arrow_type: pa.DataType) -> bool:
    """Whether rows of the type can share values."""
    if pat.is_dictionary(arrow_type) or pat.is_string_view(arrow_type) or pat.is_binary_view(arrow_type):
        return True
    if pat.is_list_view(arrow_type) or pat.is_large_list_view(arrow_type):
        return True
    return any(may_expand(arrow_type.field(i).type) for i in range(arrow_type.num_fields))


def expanded_bytes(array: pa.Array) -> int:
    """Size of the values of `array` when each row has its own copy."""
    return int(_row_sizes(array).sum())


def _row_sizes(array: pa.Array) -> Sizes:
    """Bytes per row; floating point, because the sum may exceed 64 bits."""
    sizes = _sizes_ignoring_nulls(array)
    if array.null_count:
        sizes = np.where(np.asarray(array.is_valid()), sizes, 0)
    return sizes


def _sizes_ignoring_nulls(array: pa.Array) -> Sizes:
    arrow_type = array.type
    if pat.is_dictionary(arrow_type):
        indices = array.indices.cast(pa.int64())
        positions = (indices.fill_null(0) if indices.null_count else indices).to_numpy()
        values = _row_sizes(array.dictionary)
        return values[positions] if len(values) else np.zeros(len(array))
    if pat.is_struct(arrow_type):
        return np.sum([_row_sizes(array.field(i)) for i in range(arrow_type.num_fields)], axis=0)
    if pat.is_map(arrow_type) or is_any_list(arrow_type):
        starts, lengths = list_spans(array)
        up_to = np.concatenate([[0.0], np.cumsum(_row_sizes(list_elements(array)))])
        if array.null_count:  # null rows may point anywhere
            valid = np.asarray(array.is_valid())
            starts, lengths = np.where(valid, starts, 0), np.where(valid, lengths, 0)
        return up_to[starts + lengths] - up_to[starts] + 8.0
    if pat.is_string_view(arrow_type) or pat.is_binary_view(arrow_type):
        return view_lengths(array).astype(np.float64)
    if pat.is_string(arrow_type) or pat.is_binary(arrow_type) or pat.is_large_string(arrow_type):
        return _binary_lengths(array)
    if pat.is_large_binary(arrow_type):
        return _binary_lengths(array)
    return np.full(len(array), max(arrow_type.bit_width, 8) / 8)


def _binary_lengths(array: pa.Array) -> Sizes:
    lengths = pc.binary_length(array)
    return (lengths.fill_null(0) if lengths.null_count else lengths).to_numpy().astype(np.float64)


def view_lengths(array: pa.Array) -> npt.NDArray[np.int32]:
    """Lengths of string or binary views (Arrow format: 16 bytes per view, of which the first four are the length)."""
    if len(array) == 0:
        return np.zeros(0, np.int32)
    end = array.offset + len(array)  # the buffer may be longer, by anything
    return np.frombuffer(array.buffers()[1], np.int32, 4 * end).reshape(-1, 4)[array.offset :, 0]
