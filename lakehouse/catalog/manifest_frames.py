"""Iceberg manifests as columns: one row per live file, bounds and counts addressable by field id.

A manifest is immutable, so a frame is decoded once and may be cached for ever. Bounds stay the bytes of the Iceberg
single-value serialization (Iceberg spec, Appendix D) until somebody asks for a field as a typed column.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.avro.file import AvroFile
from pyiceberg.io import InputFile
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    read_manifest_list,
)

from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN

UNIX_EPOCH = date(1970, 1, 1)


class FieldMap:
    """Per-file values of many fields (`field id -> value` of each file), kept flat.

    Args:
        maps: One mapping per file, in row order; None stands for an empty one.
        value_type: Arrow type of the values.
    """

    def __init__(self, maps: Iterable[Mapping[int, Any] | None], value_type: pa.DataType) -> None:
        present = [each or {} for each in maps]
        self._length = len(present)
        self._rows = np.repeat(np.arange(len(present), dtype=np.int32), [len(each) for each in present])
        self._ids = np.fromiter(chain.from_iterable(present), dtype=np.int32, count=len(self._rows))
        self._values = pa.array(chain.from_iterable(each.values() for each in present), type=value_type)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._ids.nbytes + self._values.nbytes

    def column(self, field_id: int) -> pa.Array:
        """The values of one field, one per file, null where the file has none."""
        entries = np.flatnonzero(self._ids == field_id)
        positions = np.full(self._length, -1, dtype=np.int64)
        positions[self._rows[entries]] = entries
        return self._values.take(pa.array(positions, mask=positions < 0))


@dataclass(frozen=True, slots=True)
class ManifestFrame:
    """The live files of one manifest.

    Attributes:
        paths: URI of each file.
        sequences: Partition value; null where the manifest's partition spec has none.
        days: Partition value in days since 1970-01-01; null where the spec has none.
        sequence_numbers: Data sequence number (Iceberg spec, sequence numbers): orders files against deletes.
        contents: `DataFileContent` values; other than 0 in delete manifests only.
        record_counts, file_sizes: Rows and bytes.
        formats: Upper-case file format names.
        lower_bounds, upper_bounds, value_counts, null_counts, nan_counts: By field id.
    """

    paths: pa.Array
    sequences: pa.Array
    days: pa.Array
    sequence_numbers: np.ndarray
    contents: np.ndarray
    record_counts: np.ndarray
    file_sizes: np.ndarray
    formats: pa.Array
    lower_bounds: FieldMap
    upper_bounds: FieldMap
    value_counts: FieldMap
    null_counts: FieldMap
    nan_counts: FieldMap
    _typed: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def nbytes(self) -> int:
        arrays = (self.paths, self.sequences, self.days, self.formats)
        vectors = (self.sequence_numbers, self.contents, self.record_counts, self.file_sizes)
        maps = (self.lower_bounds, self.upper_bounds, self.value_counts, self.null_counts, self.nan_counts)
        return sum(each.nbytes for each in chain(arrays, vectors, maps))

    def long_bounds(self, field_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of a `long` field as int64; the widest possible where a file has none."""
        if (bounds := self._typed.get(field_id)) is None:
            bounds = self._typed[field_id] = (
                _decode_longs(self.lower_bounds.column(field_id), INT64_MIN),
                _decode_longs(self.upper_bounds.column(field_id), INT64_MAX),
            )
        return bounds


def _decode_longs(column: pa.Array, absent: int) -> np.ndarray:
    # Bounds written while the column was still an `int` have four bytes (Iceberg spec, schema evolution).
    return np.fromiter(
        (absent if value is None else int.from_bytes(value, "little", signed=True) for value in column.to_pylist()),
        dtype=np.int64,
        count=len(column),
    )


class BytesInput(InputFile):
    """An Avro file that is already in memory, in the shape PyIceberg's decoder wants."""

    def __init__(self, location: str, content: bytes) -> None:
        super().__init__(location)
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> Any:
        return BytesIO(self._content)


def decode_manifest_list(location: str, content: bytes) -> list[ManifestFile]:
    """The manifests of one snapshot."""
    return list(read_manifest_list(BytesInput(location, content)))


def decode_manifest(
    manifest: ManifestFile, content: bytes, sequence_position: int | None, day_position: int | None
) -> ManifestFrame:
    """Decode the live entries of one manifest.

    Args:
        manifest: Its entry in the manifest list, from which sequence numbers are inherited.
        content: The Avro file.
        sequence_position: Where the partition spec of the manifest keeps the sequence; None if it does not.
        day_position: The same for the day.
    """
    with AvroFile[ManifestEntry](
        BytesInput(manifest.manifest_path, content),
        MANIFEST_ENTRY_SCHEMAS[DEFAULT_READ_VERSION],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as reader:
        entries = [entry for entry in reader if entry.status != ManifestEntryStatus.DELETED]
    files = [entry.data_file for entry in entries]
    is_data = manifest.content == ManifestContent.DATA
    count = len(files)

    def partition_value(position: int | None) -> list[Any]:
        return [None if position is None else each.partition[position] for each in files]

    return ManifestFrame(
        paths=pa.array([each.file_path for each in files], pa.string()),
        sequences=pa.array(partition_value(sequence_position), pa.string()),
        days=pa.array([_days(value) for value in partition_value(day_position)], pa.int32()),
        sequence_numbers=np.fromiter((_sequence_number(e, manifest) for e in entries), np.int64, count),
        contents=np.fromiter((0 if is_data else int(each.content) for each in files), np.int8, count),
        record_counts=np.fromiter((each.record_count for each in files), np.int64, count),
        file_sizes=np.fromiter((each.file_size_in_bytes for each in files), np.int64, count),
        formats=pa.array([each.file_format.value for each in files], pa.string()),
        lower_bounds=FieldMap((each.lower_bounds for each in files), pa.binary()),
        upper_bounds=FieldMap((each.upper_bounds for each in files), pa.binary()),
        value_counts=FieldMap((each.value_counts for each in files), pa.int64()),
        null_counts=FieldMap((each.null_value_counts for each in files), pa.int64()),
        nan_counts=FieldMap((each.nan_value_counts for each in files), pa.int64()),
    )


def _days(value: Any) -> int | None:
    return (value - UNIX_EPOCH).days if isinstance(value, date) else value


def _sequence_number(entry: ManifestEntry, manifest: ManifestFile) -> int:
    # Iceberg spec, sequence number inheritance: null means "that of the manifest".
    return manifest.sequence_number if entry.sequence_number is None else entry.sequence_number
