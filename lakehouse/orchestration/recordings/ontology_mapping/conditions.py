"""Conditions that decide whether an optional ontology field is set."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.orchestration.recordings.ontology_mapping.expressions import Condition
from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows, list_parts


def is_positive(path: str) -> Condition:
    """The number is greater than zero; NaN is not."""
    return lambda rows: rows.numbers(path) > 0


def is_not_nan(path: str) -> Condition:
    """The number is known; ROS drivers write NaN where they did not measure."""
    return lambda rows: ~np.isnan(rows.numbers(path))


def is_not_empty(path: str) -> Condition:
    """The string or array has at least one element."""

    def condition(rows: Rows) -> BooleanMask:
        values = rows.column(path)
        if not pa.types.is_string(values.type):
            return np.diff(list_parts(values)[0].to_numpy()) > 0
        return pc.greater(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)

    return condition


def any_is_positive(path: str) -> Condition:
    """At least one element of the array is greater than zero: a covariance that says something."""

    def condition(rows: Rows) -> BooleanMask:
        if not rows.has(path):
            return np.zeros(len(rows), dtype=np.bool_)
        starts, values = rows.arrays(path)
        positives_before = np.concatenate([[0], np.cumsum(values > 0)])
        return positives_before[starts[1:]] > positives_before[starts[:-1]]

    return condition


def first_is_not(path: str, value: float) -> Condition:
    """The array starts with another value than this one; an empty or missing array does not."""

    def condition(rows: Rows) -> BooleanMask:
        if not rows.has(path):
            return np.zeros(len(rows), dtype=np.bool_)
        starts, values = rows.arrays(path)
        holds = np.zeros(len(rows), dtype=np.bool_)
        filled = np.diff(starts) > 0
        holds[filled] = values[starts[:-1][filled]] != value
        return holds

    return condition
