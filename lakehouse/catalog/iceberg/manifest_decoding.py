"""From the Avro bytes of manifests to frames: all of our own at once, those of other writers entry by entry.

For the latter, the layout is taken from the Avro schema inside the file, field by field by Iceberg field id, so that
manifests of any writer and format version decode. What the frame does not need is skipped without building Python
objects.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.avro.decoder import BinaryDecoder, new_decoder
from pyiceberg.avro.reader import OptionReader, Reader
from pyiceberg.avro.resolver import construct_reader
from pyiceberg.types import NestedField, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse.catalog.iceberg.avro_encoding import ContainerFile
from lakehouse.catalog.iceberg.element_records import HEADER_KEY
from lakehouse.catalog.iceberg.encoded_entries import EncodedManifest, decode_entries
from lakehouse.catalog.iceberg.entry_layout import EntryBytes, find_entries
from lakehouse.catalog.iceberg.manifest_frames import BlobPlaces, DecodedMetrics, FieldMap, ManifestFrame

# Field ids: Iceberg spec, "Manifests" and "Data File Fields".
_STATUS, _SEQUENCE_NUMBER, _DATA_FILE = 0, 3, 2
_CONTENT, _PATH, _FORMAT, _PARTITION, _RECORD_COUNT, _FILE_SIZE = 134, 100, 101, 102, 103, 104
_COLUMN_SIZES, _VALUE_COUNTS, _NULL_COUNTS, _NAN_COUNTS, _LOWER_BOUNDS, _UPPER_BOUNDS = 108, 109, 110, 137, 125, 128
_COUNT_MAPS = (_VALUE_COUNTS, _NULL_COUNTS, _NAN_COUNTS)
_BOUND_MAPS = (_LOWER_BOUNDS, _UPPER_BOUNDS)
# Of deletion vectors: the data file, and where in the Puffin file (format version 3).
_VECTOR_OF, _VECTOR_OFFSET, _VECTOR_SIZE = 143, 144, 145
_SCALARS = (
    *(_STATUS, _SEQUENCE_NUMBER, _CONTENT, _PATH, _FORMAT, _PARTITION, _RECORD_COUNT, _FILE_SIZE),
    *(_VECTOR_OF, _VECTOR_OFFSET, _VECTOR_SIZE),
)

_DELETED = 2
_DATA = 0
_UNIX_EPOCH = date(1970, 1, 1)


@dataclass(slots=True)
class _MapColumn:
    """Values of one map field of all files, growing as entries are read."""

    sizes: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def freeze(self, value_type: pa.DataType) -> FieldMap:
        rows = np.repeat(np.arange(len(self.sizes), dtype=np.int32), self.sizes)
        return FieldMap(
            len(self.sizes), rows, np.array(self.keys, dtype=np.int32), pa.array(self.values, type=value_type)
        )


_Row = dict[int, Any]
_Step = Callable[[BinaryDecoder, _Row], None]


@lru_cache(maxsize=256)
def _steps(avro_schema: bytes) -> tuple[_Step, ...]:
    """How to read one entry, in the order in which its fields lie in the file."""
    steps: list[_Step] = []
    for entry_field in AvroSchemaConversion().avro_to_iceberg(json.loads(avro_schema)).fields:
        kind = entry_field.field_type
        if entry_field.field_id == _DATA_FILE and isinstance(kind, StructType):
            steps.extend(map(_step, kind.fields))
        else:
            steps.append(_step(entry_field))
    return tuple(steps)


def _step(layout: NestedField) -> _Step:
    field_id = layout.field_id
    if field_id in _COUNT_MAPS:
        return _optional(_read_counts, field_id, layout.required)
    if field_id in _BOUND_MAPS:
        return _optional(_read_bounds, field_id, layout.required)
    if field_id == _COLUMN_SIZES:  # reading all at once and forgetting is faster than skipping one by one
        return _optional(_read_counts, field_id, layout.required)
    reader: Reader = construct_reader(layout.field_type)
    if not layout.required:
        reader = OptionReader(reader)
    if field_id in _SCALARS:
        read = reader.read

        def keep(decoder: BinaryDecoder, row: _Row) -> None:
            row[field_id] = read(decoder)

        return keep
    skip = reader.skip
    return lambda decoder, _row: skip(decoder)


def _optional(read: Callable[[BinaryDecoder], Any], field_id: int, is_required: bool) -> _Step:
    def keep(decoder: BinaryDecoder, row: _Row) -> None:
        # A union with null has null first (Iceberg spec, Avro).
        row[field_id] = read(decoder) if is_required or decoder.read_int() else None

    return keep


def _read_counts(decoder: BinaryDecoder) -> list[int]:
    """Keys and values in turn."""
    pairs: list[int] = []
    while (size := decoder.read_int()) != 0:
        if size < 0:  # Avro: a negative count is followed by the block's size in bytes
            decoder.skip_int()
            size = -size
        pairs.extend(decoder.read_ints(2 * size))
    return pairs


def _read_bounds(decoder: BinaryDecoder) -> dict[int, bytes]:
    bounds: dict[int, bytes] = {}
    while (size := decoder.read_int()) != 0:
        if size < 0:
            decoder.skip_int()
            size = -size
        decoder.read_int_bytes_dict(size, bounds)
    return bounds


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest as it was read.

    Attributes:
        content: The Avro file.
        sequence_number: That of the manifest in its manifest list; entries inherit it.
        sequence_position: Where the partition spec of the manifest keeps the sequence; None if it does not.
        day_position: The same for the day.
    """

    content: bytes
    sequence_number: int
    sequence_position: int | None
    day_position: int | None


def decode_frames(manifests: Sequence[ManifestFile]) -> list[ManifestFrame]:
    """Decode the live entries of each manifest.

    Raises:
        ValueError, IndexError, KeyError: If one is damaged or of an unknown form; decoders fail in any way.
    """
    frames: list[ManifestFrame | None] = []
    encoded: list[EncodedManifest] = []
    for each in manifests:
        container = ContainerFile(each.content)
        entries = find_entries(container)
        if entries is None or not _fits(entries, each):
            position = each.sequence_position, each.day_position
            frames.append(decode_frame(container, each.sequence_number, *position))
            continue
        frames.append(None)
        encoded.append(
            EncodedManifest(
                entries,
                each.sequence_number,
                each.sequence_position,
                each.day_position,
                container.metadata.get(HEADER_KEY, b""),
            )
        )
    decoded = iter(decode_entries(encoded))
    return [next(decoded) if frame is None else frame for frame in frames]


def _fits(entries: EntryBytes, manifest: ManifestFile) -> bool:
    """Whether the sequence is text and the day a number."""
    sequence, day = manifest.sequence_position, manifest.day_position
    return (sequence is None or entries.partition[sequence]) and (day is None or not entries.partition[day])


def decode_frame(
    container: ContainerFile, sequence_number: int, sequence_position: int | None, day_position: int | None
) -> ManifestFrame:
    """Decode the live entries of one manifest.

    Args:
        container: The Avro file.
        sequence_number: That of the manifest in its manifest list; entries inherit it.
        sequence_position: Where the partition spec of the manifest keeps the sequence; None if it does not.
        day_position: The same for the day.

    Raises:
        ValueError: If the file is compressed in a way nobody writes manifests.
    """
    steps = _steps(container.metadata["avro.schema"])
    rows: list[_Row] = []
    maps = {field_id: _MapColumn() for field_id in (*_COUNT_MAPS, *_BOUND_MAPS)}
    for entry_count, block in container.blocks():
        decoder = new_decoder(block)
        for _ in range(entry_count):
            row: _Row = {}
            for step in steps:
                step(decoder, row)
            if row[_STATUS] != _DELETED:
                _split_maps(row, maps)
                rows.append(row)
    count = len(rows)
    partitions = [row[_PARTITION] for row in rows]
    return ManifestFrame(
        paths=pa.array([row[_PATH] for row in rows], pa.string()),
        sequences=_partition_column(partitions, sequence_position, pa.string()),
        days=_partition_column(partitions, day_position, pa.int32()),
        sequence_numbers=np.fromiter((_inherited(row, sequence_number) for row in rows), np.int64, count),
        # Format version 1 has no such field: all its files hold data.
        contents=np.fromiter((row.get(_CONTENT, _DATA) or _DATA for row in rows), np.int8, count),
        record_counts=np.fromiter((row[_RECORD_COUNT] for row in rows), np.int64, count),
        file_sizes=np.fromiter((row[_FILE_SIZE] for row in rows), np.int64, count),
        formats=pa.array([row[_FORMAT].upper() for row in rows], pa.string()),
        metrics=DecodedMetrics(
            lower_bounds=maps[_LOWER_BOUNDS].freeze(pa.binary()),
            upper_bounds=maps[_UPPER_BOUNDS].freeze(pa.binary()),
            value_counts=maps[_VALUE_COUNTS].freeze(pa.int64()),
            null_counts=maps[_NULL_COUNTS].freeze(pa.int64()),
            nan_counts=maps[_NAN_COUNTS].freeze(pa.int64()),
        ),
        elements=container.metadata.get(HEADER_KEY, b""),
        vectors=_vectors(rows),
    )


def _vectors(rows: Sequence[_Row]) -> BlobPlaces | None:
    is_vector = [row.get(_VECTOR_OFFSET) is not None for row in rows]
    if not any(is_vector):
        return None
    data_files = [row[_VECTOR_OF] if is_one else None for row, is_one in zip(rows, is_vector, strict=True)]
    return BlobPlaces(
        pa.array(data_files, pa.string()),
        np.array([row.get(_VECTOR_OFFSET) or 0 for row in rows], np.int64),
        np.array([row.get(_VECTOR_SIZE) or 0 for row in rows], np.int64),
    )


def _split_maps(row: _Row, maps: dict[int, _MapColumn]) -> None:
    row.pop(_COLUMN_SIZES, None)
    for field_id in _COUNT_MAPS:
        pairs = row.pop(field_id, None) or ()
        column = maps[field_id]
        column.sizes.append(len(pairs) // 2)
        column.keys.extend(pairs[0::2])
        column.values.extend(pairs[1::2])
    for field_id in _BOUND_MAPS:
        bounds = row.pop(field_id, None) or {}
        column = maps[field_id]
        column.sizes.append(len(bounds))
        column.keys.extend(bounds)
        column.values.extend(bounds.values())


def _partition_column(partitions: list[Any], position: int | None, value_type: pa.DataType) -> pa.Array:
    if position is None:
        return pa.nulls(len(partitions), value_type)
    return pa.array([_plain(partition[position]) for partition in partitions], value_type)


def _plain(value: Any) -> Any:
    return (value - _UNIX_EPOCH).days if isinstance(value, date) else value


def _inherited(row: _Row, manifest_sequence_number: int) -> int:
    # Iceberg spec, "Sequence Number Inheritance": null means "that of the manifest"; version 1 has no numbers.
    value = row.get(_SEQUENCE_NUMBER)
    return manifest_sequence_number if value is None else value
