"""What is known of the values of one leaf column in each of many files, or row groups, as columns."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.catalog.iceberg.manifest_frames import UNKNOWN_COUNT, LeafMetrics
from lakehouse.catalog.query.value_sets import BEYOND_TEXT

UNKNOWN = UNKNOWN_COUNT
_WIDEST_DECIMAL = 10**39
_INT64 = np.iinfo(np.int64)

Values = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LeafBounds:
    """Bounds and counts, one of each per file or row group.

    Attributes:
        lower, upper: Every value that is neither null nor NaN lies between them; the widest possible where unknown.
        value_counts: Values, null and NaN included; `UNKNOWN` where nobody counted.
        null_counts, nan_counts: How many of them are null, and NaN; `UNKNOWN` where nobody counted.
    """

    lower: Values
    upper: Values
    value_counts: Counts
    null_counts: Counts
    nan_counts: Counts

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        # Objects are texts of at most 16 characters, or large integers.
        per_object = 56 if self.lower.dtype == object else 0
        arrays = (self.lower, self.upper, self.value_counts, self.null_counts, self.nan_counts)
        return int(sum(array.nbytes for array in arrays) + 2 * per_object * len(self.lower))

    @classmethod
    def unknown(cls, kind: pa.DataType, count: int) -> "LeafBounds":
        """Nothing known of any file."""
        lowest, highest, dtype = _widest(kind)
        nobody = np.full(count, UNKNOWN, np.int64)
        return cls(np.full(count, lowest, dtype), np.full(count, highest, dtype), nobody, nobody, nobody)

    @classmethod
    def joined(cls, parts: Sequence["LeafBounds"]) -> "LeafBounds":
        """The files of all parts one after another; there must be one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.lower for part in parts]),
            np.concatenate([part.upper for part in parts]),
            np.concatenate([part.value_counts for part in parts]),
            np.concatenate([part.null_counts for part in parts]),
            np.concatenate([part.nan_counts for part in parts]),
        )

    @classmethod
    def decode(cls, kind: pa.DataType, known: LeafMetrics) -> "LeafBounds":
        """Read what manifests say, in Iceberg's single-value serialization (Iceberg spec, appendix D).

        Args:
            kind: Type the values are stored as.
            known: Serialized bounds, and counts.
        """
        lowest, highest, _ = _widest(kind)
        return cls(
            _decoded(kind, known.lower, lowest),
            _decoded(kind, known.upper, highest),
            known.value_counts,
            known.null_counts,
            known.nan_counts,
        )

    def part(self, start: int, stop: int) -> "LeafBounds":
        """Some consecutive files, copied: a part may be kept when the whole is not."""
        if start == 0 and stop == len(self):
            return self
        arrays = (self.lower, self.upper, self.value_counts, self.null_counts, self.nan_counts)
        return LeafBounds(*(array[start:stop].copy() for array in arrays))

    @classmethod
    def of_values(cls, kind: pa.DataType, rows: Iterable[tuple[Any, Any, int, int, int]]) -> "LeafBounds":
        """From (lower, upper, values, nulls, NaNs) of each file; bounds that are None are unknown."""
        known = list(rows)
        lowest, highest, dtype = _widest(kind)
        columns = list(zip(*known, strict=True)) if known else [()] * 5
        lower = np.array([lowest if value is None else value for value in columns[0]], dtype)
        upper = np.array([highest if value is None else value for value in columns[1]], dtype)
        counts = [np.array(column, np.int64) for column in columns[2:]]
        return cls(_without_nan(lower, lowest), _without_nan(upper, highest), *counts)


def _widest(kind: pa.DataType) -> tuple[Any, Any, Any]:
    """What stands for unknown bounds, and the type of the columns of bounds."""
    if pat.is_string(kind) or pat.is_large_string(kind):
        return b"", BEYOND_TEXT, object
    if pat.is_decimal(kind):
        return -_WIDEST_DECIMAL, _WIDEST_DECIMAL, object
    if pat.is_floating(kind):
        return -np.inf, np.inf, np.float64
    return _INT64.min, _INT64.max, np.int64


def _decoded(kind: pa.DataType, column: pa.Array, absent: Any) -> Values:
    if pat.is_string(kind) or pat.is_large_string(kind):
        return np.array([absent if value is None else value for value in column.to_pylist()], object)
    if pat.is_decimal(kind):
        values = (
            absent if value is None else int.from_bytes(value, "big", signed=True) for value in column.to_pylist()
        )
        return np.fromiter(values, object, len(column))
    # Bounds written before a column was widened are shorter than those written after (Iceberg spec, schema evolution).
    widths = {4: "<f4", 8: "<f8"} if pat.is_floating(kind) else {1: "<u1", 4: "<i4", 8: "<i8"}
    _, _, dtype = _widest(kind)
    result = np.full(len(column), absent, dtype)
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset) if len(column) else None
    for width, form in widths.items():
        rows = np.flatnonzero(lengths == width)
        if len(rows) and offsets is not None:
            content = np.frombuffer(column.buffers()[2], np.uint8)
            gathered = content[offsets[rows, None] + np.arange(width)]
            result[rows] = gathered.view(form).ravel()
    return _without_nan(result, absent)


def _without_nan(bounds: Values, absent: Any) -> Values:
    return np.where(np.isnan(bounds), absent, bounds) if bounds.dtype == np.float64 else bounds


def decode_bound(kind: pa.DataType, value: bytes | None) -> Any:
    """One serialized bound; None if it is absent or of a length its type never has."""
    if value is None or pat.is_string(kind) or pat.is_large_string(kind):
        return value
    if pat.is_decimal(kind):
        return int.from_bytes(value, "big", signed=True)
    forms = {4: "<f", 8: "<d"} if pat.is_floating(kind) else {1: "<B", 4: "<i", 8: "<q"}
    form = forms.get(len(value))
    return None if form is None else struct.unpack(form, value)[0]
