"""Arrays between their uploaded Arrow type and their storage type, without loss and without copying what is equal.

`encode` goes to storage, `decode` comes back and also accepts what other writers and readers make of storage types:
wider numbers, large offsets, other child names and orders, dictionary encoding.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from lakehouse.ontology.expansion import expanded_bytes, may_expand
from lakehouse.ontology.list_layout import ListLayout, build_list, pad_null_rows, read_list, select, validity_buffer
from lakehouse.ontology.storage_types import (
    ColumnPlan,
    UnstorableValueError,
    can_be_taken,
    is_any_list,
    is_temporal_number,
)


class DictionaryOverflowError(UnstorableValueError):
    """Rows of several uploaded batches, each with its own dictionary, have more values than one dictionary may."""


# Views and dictionaries let a small message stand for a huge column. What a batch may grow to when they are resolved.
MAX_EXPANDED_BYTES = 1 << 30


def encode_column(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    """`encode` for a whole column of an upload: refuses values that would outgrow memory, and reports all else alike.

    Raises:
        UnstorableValueError: See `encode`; or if the column stands for more than `MAX_EXPANDED_BYTES`.
    """
    if may_expand(array.type):
        size = expanded_bytes(array)
        if size > MAX_EXPANDED_BYTES:
            raise UnstorableValueError(
                f"column '{plan.storage.name}' stands for {size} bytes in one batch, at most {MAX_EXPANDED_BYTES} "
                "are accepted; send smaller batches"
            )
    try:
        return encode(array, plan)
    except (pa.ArrowInvalid, pa.ArrowCapacityError) as error:
        raise UnstorableValueError(f"column '{plan.storage.name}': {error}") from None


def encode(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Convert `array` to `plan.storage`; subtrees that need no change share their buffers.

    Raises:
        UnstorableValueError: If a map key is null.
        pyarrow.ArrowInvalid: If a value has no exact counterpart, such as a time outside the microsecond range.
    """
    if array.type == plan.storage.type:
        return array
    if pat.is_dictionary(array.type):
        return _encode_dictionary(array, plan)
    if pat.is_struct(array.type):
        # Below a null struct a child may hold anything; `flatten` hides it, or it would be cast and counted.
        parts = array.flatten() if array.null_count else [array.field(i) for i in range(array.type.num_fields)]
        children = [encode(part, child) for part, child in zip(parts, plan.children, strict=True)]
        return _build_struct(plan.storage.type, array, children)
    if pat.is_map(array.type) or is_any_list(array.type):
        layout = read_list(array)
        return build_list(plan.storage.type, layout, _encode_elements(layout, plan))
    return _encode_leaf(array, plan)


def decode(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Convert `array`, read from storage, to exactly `plan.arrow.type` (metadata of nested fields excepted).

    Raises:
        UnstorableValueError: If `array` cannot have come from `encode`, such as a missing struct child, or if a
            dictionary has more distinct values than its index type can number.
    """
    target = plan.arrow.type
    if array.type == target:
        return array
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pat.is_dictionary(target):
        return _decode_dictionary(array, plan)
    if pat.is_struct(target):
        _expect(pat.is_struct(array.type), array, plan)
        positions = [array.type.get_field_index(child.storage.name) for child in plan.children]
        _expect(-1 not in positions, array, plan)
        children = [decode(array.field(i), child) for i, child in zip(positions, plan.children, strict=True)]
        return _build_struct(target, array, children)
    if pat.is_map(target):
        _expect(pat.is_map(array.type), array, plan)
        layout = read_list(array)
        elements = select(layout.values, layout.selection)
        return build_list(target, layout, _map_entries(elements, plan, target, decode))
    if is_any_list(target):
        _expect(is_any_list(array.type), array, plan)
        layout = read_list(array)
        if pat.is_fixed_size_list(target):
            layout = pad_null_rows(layout, target.list_size)
        return build_list(target, layout, decode(select(layout.values, layout.selection), plan.children[0]))
    return _decode_leaf(array, plan)


def _expect(condition: bool, array: pa.Array, plan: ColumnPlan) -> None:
    if not condition:
        raise UnstorableValueError(f"stored column '{plan.storage.name}' is {array.type}, expected {plan.storage.type}")


def _build_struct(struct_type: pa.StructType, like: pa.Array, children: list[pa.Array]) -> pa.Array:
    return pa.Array.from_buffers(struct_type, len(like), [validity_buffer(like)], like.null_count, 0, children)


def _encode_elements(layout: ListLayout, plan: ColumnPlan) -> pa.Array:
    """The elements of all rows, in order, in their storage type."""

    def convert(values: pa.Array) -> pa.Array:
        if pat.is_map(plan.arrow.type):
            return _map_entries(values, plan, plan.storage.type, encode)
        return encode(values, plan.children[0])

    if can_be_taken(layout.values.type):
        return convert(select(layout.values, layout.selection))
    return select(convert(layout.values), layout.selection)


def _map_entries(
    entries: pa.StructArray, plan: ColumnPlan, map_type: pa.MapType, convert: Callable[[pa.Array, ColumnPlan], pa.Array]
) -> pa.Array:
    keys, items = (convert(entries.field(i), plan.children[i]) for i in (0, 1))
    if keys.null_count:
        # Arrow aborts the whole process when it meets such a map. A dictionary can smuggle null keys in.
        raise UnstorableValueError(f"column '{plan.storage.name}' has a map with a null key")
    entry_type = pa.struct([map_type.key_field, map_type.item_field])
    return pa.Array.from_buffers(entry_type, len(entries), [None], 0, 0, [keys, items])


def _encode_dictionary(array: pa.DictionaryArray, plan: ColumnPlan) -> pa.Array:
    values = encode(array.dictionary, plan.children[0])
    return values.take(array.indices)


def _decode_dictionary(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    target = plan.arrow.type
    encoded = array.dictionary_encode()
    values = decode(encoded.dictionary, plan.children[0])
    try:
        indices = encoded.indices.cast(target.index_type)
    except pa.ArrowInvalid:
        raise DictionaryOverflowError(
            f"column '{plan.storage.name}' has {len(values)} distinct values, more than {target.index_type} can number"
        ) from None
    return pa.DictionaryArray.from_arrays(indices, values, ordered=target.ordered)


def _encode_leaf(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    source = array.type
    if is_temporal_number(source):
        number = pa.int32() if pat.is_time32(source) else pa.int64()
        return array.view(number).cast(plan.storage.type)
    if (pat.is_string_view(source) or pat.is_binary_view(source)) and array.null_count:
        array = _without_views_of_nulls(array)
    return array.cast(plan.storage.type)


def _without_views_of_nulls(array: pa.Array) -> pa.Array:
    """The same values. Null rows may hold any bytes, which validation skips, but Arrow's cast follows them as pointers
    and ends the process."""
    _, views, *data = array.buffers()
    rows = np.frombuffer(views, np.uint64, 2 * (array.offset + len(array))).reshape(-1, 2)[array.offset :].copy()
    rows[np.asarray(array.is_null())] = 0
    buffers = [validity_buffer(array), pa.py_buffer(rows), *data]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count)


def _decode_leaf(array: pa.Array, plan: ColumnPlan) -> pa.Array:
    target = plan.arrow.type
    try:
        if is_temporal_number(target):
            number = pa.int32() if pat.is_time32(target) else pa.int64()
            return array.cast(number).view(target)
        return array.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnstorableValueError(f"stored column '{plan.storage.name}': {error}") from None
