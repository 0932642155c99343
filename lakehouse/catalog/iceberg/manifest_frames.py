"""Iceberg manifests as columns: one row per live file, bounds and counts addressable by field id.

A manifest is immutable, so a frame is decoded once and may be kept for ever. Bounds stay the bytes of the Iceberg
single-value serialization (Iceberg spec, Appendix D) until somebody asks for a field as a typed column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN

UNKNOWN_COUNT = -1
_LONG_WIDTH = 8

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LeafMetrics:
    """What manifests say of one field, one entry per file.

    Attributes:
        lower, upper: Serialized bounds; null where there are none.
        value_counts, null_counts, nan_counts: `UNKNOWN_COUNT` where nobody counted.
    """

    lower: pa.Array
    upper: pa.Array
    value_counts: Counts
    null_counts: Counts
    nan_counts: Counts

    def __len__(self) -> int:
        return len(self.lower)

    def part(self, start: int, stop: int) -> "LeafMetrics":
        """Some consecutive files."""
        return LeafMetrics(
            self.lower[start:stop],
            self.upper[start:stop],
            self.value_counts[start:stop],
            self.null_counts[start:stop],
            self.nan_counts[start:stop],
        )

    def overlaid(
        self, lower: pa.Array, upper: pa.Array, value_counts: pa.Array, null_counts: pa.Array, nan_counts: pa.Array
    ) -> "LeafMetrics":
        """With what somebody else knows better; null is where he does not."""
        return LeafMetrics(
            pc.coalesce(lower, self.lower),
            pc.coalesce(upper, self.upper),
            as_counts(pc.coalesce(value_counts, pa.array(self.value_counts))),
            as_counts(pc.coalesce(null_counts, pa.array(self.null_counts))),
            as_counts(pc.coalesce(nan_counts, pa.array(self.nan_counts))),
        )

    @classmethod
    def joined(cls, parts: Sequence["LeafMetrics"]) -> "LeafMetrics":
        """The files of all parts one after another; there must be one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            pa.concat_arrays([part.lower for part in parts]),
            pa.concat_arrays([part.upper for part in parts]),
            np.concatenate([part.value_counts for part in parts]),
            np.concatenate([part.null_counts for part in parts]),
            np.concatenate([part.nan_counts for part in parts]),
        )


class FieldMap:
    """Per-file values of many fields (`field id -> value` of each file), kept flat.

    Args:
        file_count: Number of files.
        rows: Which file each value belongs to.
        field_ids: Which field each value belongs to.
        values: The values.
    """

    __slots__ = ("_field_ids", "_file_count", "_rows", "_values")

    def __init__(self, file_count: int, rows: np.ndarray, field_ids: np.ndarray, values: pa.Array) -> None:
        self._file_count = file_count
        self._rows = rows
        self._field_ids = field_ids
        self._values = values

    @property
    def nbytes(self) -> int:
        return int(self._rows.nbytes + self._field_ids.nbytes + self._values.nbytes)

    def column(self, field_id: int) -> pa.Array:
        """The values of one field, one per file, null where the file has none."""
        found = np.flatnonzero(self._field_ids == field_id)
        positions = np.full(self._file_count, -1, dtype=np.int64)
        positions[self._rows[found]] = found
        return self._values.take(pa.array(positions, mask=positions < 0))

    def fields_above_zero(self, rows: np.ndarray) -> dict[int, frozenset[int]]:
        """For each of some files the fields whose value is a number above zero; files without any are left out."""
        positive = pc.fill_null(pc.greater(self._values, 0), False).to_numpy(zero_copy_only=False)
        chosen = np.flatnonzero(positive & np.isin(self._rows, rows))
        found: dict[int, set[int]] = {}
        for row, field_id in zip(self._rows[chosen].tolist(), self._field_ids[chosen].tolist(), strict=True):
            found.setdefault(row, set()).add(field_id)
        return {row: frozenset(field_ids) for row, field_ids in found.items()}

    def counts(self, field_id: int) -> Counts:
        """`column`, of integers."""
        return as_counts(self.column(field_id))


def as_counts(column: pa.Array) -> Counts:
    """Counts, null where nobody counted."""
    known = pc.fill_null(column, UNKNOWN_COUNT)
    return np.asarray(known.to_numpy(zero_copy_only=False), np.int64)


class FileMetrics(Protocol):
    """Bounds and counts of all fields of the files of a manifest."""

    @property
    def nbytes(self) -> int:
        """Size in memory."""

    def of_field(self, field_id: int) -> LeafMetrics:
        """Those of one field."""

    def fields_with_nan(self, rows: np.ndarray) -> dict[int, frozenset[int]]:
        """For each of some files the fields that hold NaN; files without any are left out."""


@dataclass(frozen=True, slots=True)
class DecodedMetrics:
    """Metrics of a manifest whose entries were decoded completely, one by one."""

    lower_bounds: FieldMap
    upper_bounds: FieldMap
    value_counts: FieldMap
    null_counts: FieldMap
    nan_counts: FieldMap

    @property
    def nbytes(self) -> int:
        maps = (self.lower_bounds, self.upper_bounds, self.value_counts, self.null_counts, self.nan_counts)
        return sum(each.nbytes for each in maps)

    def of_field(self, field_id: int) -> LeafMetrics:
        return LeafMetrics(
            self.lower_bounds.column(field_id),
            self.upper_bounds.column(field_id),
            self.value_counts.counts(field_id),
            self.null_counts.counts(field_id),
            self.nan_counts.counts(field_id),
        )

    def fields_with_nan(self, rows: np.ndarray) -> dict[int, frozenset[int]]:
        return self.nan_counts.fields_above_zero(rows)


@dataclass(frozen=True, slots=True)
class BlobPlaces:
    """Where the deletion vectors of a manifest are (Iceberg spec, "Deletion Vectors"), one entry per file.

    Attributes:
        data_files: URI of the data file whose rows are deleted; null where the entry is no deletion vector.
        offsets, sizes: Place of the vector in its Puffin file, bytes; meaningless where `data_files` is null.
    """

    data_files: pa.Array
    offsets: Counts
    sizes: Counts

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return int(self.data_files.nbytes + self.offsets.nbytes + self.sizes.nbytes)


@dataclass(frozen=True, slots=True)
class ManifestFrame:
    """The live files of one manifest.

    Attributes:
        paths: URI of each file.
        sequences: Partition value; null where the manifest's partition spec has none.
        days: Partition value in days since 1970-01-01; null where the spec has none.
        sequence_numbers: Data sequence number (Iceberg spec, "Sequence Numbers"): orders files and row deletes.
        contents: 0 data, 1 position deletes, 2 equality deletes.
        record_counts: Rows.
        file_sizes: Bytes.
        formats: Upper-case names of file formats.
        metrics: Bounds and counts by field id.
        elements: Bounds of elements of lists and maps as the manifest carries them, empty if it does not; decoded by
            `element_records.decode_records`.
        vectors: Where its deletion vectors are; None if it has none.
    """

    paths: pa.Array
    sequences: pa.Array
    days: pa.Array
    sequence_numbers: np.ndarray
    contents: np.ndarray
    record_counts: np.ndarray
    file_sizes: np.ndarray
    formats: pa.Array
    metrics: FileMetrics
    elements: bytes = b""
    vectors: BlobPlaces | None = None
    _long_bounds: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        """Size in memory, for the bound of a cache."""
        arrays = (self.paths, self.sequences, self.days, self.formats)
        vectors = (self.sequence_numbers, self.contents, self.record_counts, self.file_sizes)
        of_times = 2 * _LONG_WIDTH * len(self)  # what `long_bounds` keeps
        places = 0 if self.vectors is None else self.vectors.nbytes
        own = sum(each.nbytes for each in (*arrays, *vectors)) + places
        return own + self.metrics.nbytes + len(self.elements) + of_times

    def long_bounds(self, field_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of a `long` field as int64; the widest possible where a file has none."""
        bounds = self._long_bounds.get(field_id)
        if bounds is None:
            known = self.metrics.of_field(field_id)
            bounds = self._long_bounds[field_id] = long_bounds(known)
        return bounds


def long_bounds(known: LeafMetrics) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of a `long` field as int64; the widest possible where there are none."""
    return _decode_longs(known.lower, INT64_MIN), _decode_longs(known.upper, INT64_MAX)


def _decode_longs(column: pa.Array, absent: int) -> np.ndarray:
    if column.null_count == 0 and pc.all(pc.equal(pc.binary_length(column), _LONG_WIDTH)).as_py():
        # The values lie side by side in the one data buffer.
        offset = np.frombuffer(column.buffers()[1], np.int32)[column.offset] if len(column) else 0
        return np.frombuffer(column.buffers()[2] or b"", "<i8", count=len(column), offset=int(offset))
    # Bounds written while the column was still an `int` have four bytes (Iceberg spec, schema evolution).
    values = (absent if value is None else int.from_bytes(value, "little", signed=True) for value in column.to_pylist())
    return np.fromiter(values, np.int64, len(column))
