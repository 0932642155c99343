"""Which files, or row groups, may hold a row that satisfies a condition, by bounds and counts alone.

Every doubt keeps the file. What is excluded here is never opened, so an error would lose results.
"""

from dataclasses import dataclass

import numpy as np

from lakehouse.catalog.query.conditions import Quantifier
from lakehouse.catalog.query.leaf_bounds import LeafBounds
from lakehouse.catalog.query.predicates import RowCondition
from lakehouse.catalog.query.value_sets import Mask, ValueSet


@dataclass(frozen=True, slots=True)
class _Counts:
    """What counts say: true where the fact is certain."""

    all_null: Mask
    all_null_or_nan: Mask
    no_nan: Mask
    no_null: Mask

    @classmethod
    def of(cls, bounds: LeafBounds) -> "_Counts":
        are_counted = (bounds.value_counts >= 0) & (bounds.null_counts >= 0)
        present = bounds.value_counts - bounds.null_counts
        nans_are_counted = bounds.nan_counts >= 0
        return cls(
            are_counted & (present <= 0),
            are_counted & nans_are_counted & (present - bounds.nan_counts <= 0),
            bounds.nan_counts == 0,
            bounds.null_counts == 0,
        )


def can_exclude(condition: RowCondition) -> bool:
    """Whether bounds can ever exclude a file."""
    column = condition.column
    if column.is_map and condition.wants_absent:
        return False  # a map without the key leaves no trace in the counts
    if column.specifier is Quantifier.ALL:
        return False  # true for every empty list, whatever the elements of the others
    if column.is_whole_list:
        return condition.elements is not None and len(condition.elements) > 0 and not condition.is_negated
    return True


def may_match(condition: RowCondition, bounds: LeafBounds) -> Mask:
    """Per file whether a row may satisfy the condition.

    Args:
        condition: One with `can_exclude`.
        bounds: Of the leaf `condition.column.leaf_path`.
    """
    counts = _Counts.of(bounds)
    if condition.wants_absent:
        return ~counts.no_null
    if condition.elements is not None:
        result = np.ones(len(bounds), np.bool_)
        for allowed in condition.elements:
            result &= _may_hold(allowed, bounds, counts)
        return result
    assert condition.values is not None
    return _may_hold(condition.values, bounds, counts)


def _may_hold(values: ValueSet, bounds: LeafBounds, counts: _Counts) -> Mask:
    found = values.overlaps(bounds.lower, bounds.upper) & ~counts.all_null_or_nan
    if values.includes_nan:
        found |= ~counts.no_nan
    return found & ~counts.all_null
