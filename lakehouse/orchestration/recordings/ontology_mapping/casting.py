"""From the types of ROS fields to the types of ontology fields, exactly or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.catalog.errors import quoted
from lakehouse.orchestration.recordings.ontology_mapping.rows import Owners, UnsuitableFieldError, is_number, list_parts


def cast_column(values: pa.Array, target: pa.DataType, owners: Owners, name: str) -> pa.Array:
    """`values` in the type of the model; messages whose value does not fit are refused.

    Numbers keep their value (float32 widens to float64 exactly), arrays of any length kind become the list kind of the
    model, and an integer flag is true when it is not zero.

    Args:
        values: A decoded column, without nulls.
        target: The type the ontology model wants.
        owners: The messages the values belong to, one each.
        name: The field as the user knows it, for the reason of a refusal.

    Raises:
        UnsuitableFieldError: If no value of this type can be expressed in the target type.
    """
    if values.type == target:
        return values
    if pa.types.is_fixed_size_list(target):
        return _cast_to_fixed_size_list(values, target, owners, name)
    if pa.types.is_list(target):
        offsets, elements = list_parts(values)
        elements = cast_column(elements, target.value_type, owners.of_elements(offsets), name)
        return pa.ListArray.from_arrays(offsets, elements, type=target)
    if is_number(values.type) and is_number(target):
        return _cast_numbers(values, target, owners, name)
    if (_is_text(values.type) and _is_text(target)) or (_is_bytes(values.type) and _is_bytes(target)):
        return values.cast(target)
    raise UnsuitableFieldError(
        f"it has {quoted(values.type)} in field {quoted(name)}, where {quoted(target)} is expected"
    )


def _cast_numbers(values: pa.Array, target: pa.DataType, owners: Owners, name: str) -> pa.Array:
    if pa.types.is_boolean(values.type) or pa.types.is_boolean(target) or pa.types.is_floating(target):
        return values.cast(target, safe=False)
    try:
        return values.cast(target)
    except pa.ArrowInvalid:
        wrapped = values.cast(target, safe=False)
        survives = pc.equal(wrapped.cast(values.type, safe=False), values)
        # Wrapping can survive the way back and still have changed the sign: uint32 -> int32 -> uint32.
        same_sign = pc.equal(pc.less(wrapped, 0), pc.less(values, 0))
        fits = pc.and_(survives, same_sign).to_numpy(zero_copy_only=False)
        owners.refuse(~fits, f"the value of {quoted(name)} does not fit {target}")
        return wrapped


def _cast_to_fixed_size_list(values: pa.Array, target: pa.DataType, owners: Owners, name: str) -> pa.Array:
    offsets, elements = list_parts(values)
    elements = cast_column(elements, target.value_type, owners.of_elements(offsets), name)
    starts = offsets.to_numpy()
    wrong = np.diff(starts) != target.list_size
    if wrong.any():
        owners.refuse(wrong, f"{quoted(name)} must have {target.list_size} elements")
        wanted = starts[:-1, np.newaxis] + np.arange(target.list_size)
        absent = np.broadcast_to(wrong[:, np.newaxis], wanted.shape)
        elements = elements.take(pa.array(wanted.ravel(), mask=absent.ravel()))
    return pa.FixedSizeListArray.from_arrays(elements, type=target)


def _is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))
