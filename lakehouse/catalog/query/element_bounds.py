"""Bounds of list elements and map values of files that other engines wrote, learned from footers once they were opened.

Manifests of our own carry such bounds (`iceberg/element_records.py`), those of other engines do not. A data file never
changes, so what its footer said holds for ever; a file never opened so far has no bounds here and is not excluded.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.query.leaf_bounds import UNKNOWN, LeafBounds

DEFAULT_CACHE_BYTES = 64 << 20
_BYTES_PER_ENTRY = 600

LeafPath = tuple[str, ...]
_Summary = tuple[Any, Any, int, int, int]
_NOT_LEARNED: _Summary = (None, None, UNKNOWN, UNKNOWN, UNKNOWN)


class _NotLearnedError(Exception):
    pass


class ElementBounds:
    """Bounds of repeated leaves by file, least recently used ones forgotten.

    Args:
        cache_bytes: Largest total size kept in memory.
    """

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._known: BoundedCache[tuple[str, LeafPath], _Summary] = BoundedCache(
            cache_bytes, lambda _summary: _BYTES_PER_ENTRY
        )

    @property
    def cached_bytes(self) -> int:
        """Size of what is kept in memory, estimated."""
        return self._known.weight

    def learn(self, path: str, leaf_path: LeafPath, row_groups: LeafBounds) -> None:
        """Keep what all row groups of a file together say of a leaf."""
        if len(row_groups):
            self._known.get((path, leaf_path), lambda: _summarized(row_groups))

    def bounds(self, paths: Sequence[str], leaf_path: LeafPath, kind: pa.DataType) -> LeafBounds:
        """What is known of a leaf, one entry per file; nothing of files never opened."""
        return LeafBounds.of_values(kind, [self._summary(path, leaf_path) for path in paths])

    def _summary(self, path: str, leaf_path: LeafPath) -> _Summary:
        try:
            return self._known.get((path, leaf_path), _fail)
        except _NotLearnedError:
            return _NOT_LEARNED


def _fail() -> _Summary:
    raise _NotLearnedError


def _summarized(row_groups: LeafBounds) -> _Summary:
    counts = (row_groups.value_counts, row_groups.null_counts, row_groups.nan_counts)
    sums = (UNKNOWN if (count == UNKNOWN).any() else int(count.sum()) for count in counts)
    values, nulls, nans = sums
    return min(row_groups.lower.tolist()), max(row_groups.upper.tolist()), values, nulls, nans
