"""Iceberg manifest lists of format version 2, read and written as bytes (Iceberg spec, "Manifest Lists")."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.avro.file import AvroFile
from pyiceberg.io import InputFile
from pyiceberg.manifest import MANIFEST_LIST_FILE_SCHEMAS
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse.catalog.iceberg.avro_encoding import (
    ContainerFile,
    Decoder,
    encode_block,
    encode_bytes,
    encode_header,
    encode_long,
    encode_text,
    new_sync_marker,
)

DATA_CONTENT = 0


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """Range of one partition field over the entries of a manifest, Iceberg single-value serialization."""

    contains_null: bool
    contains_nan: bool | None
    lower_bound: bytes | None
    upper_bound: bytes | None


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """One line of a manifest list. Field names and meaning: Iceberg spec, "Manifest Lists"."""

    path: str
    length: int
    spec_id: int
    content: int
    sequence_number: int
    min_sequence_number: int
    added_snapshot_id: int
    added_files: int
    existing_files: int
    deleted_files: int
    added_rows: int
    existing_rows: int
    deleted_rows: int
    partitions: tuple[FieldSummary, ...] | None
    key_metadata: bytes | None = None

    @property
    def live_files(self) -> int:
        return self.added_files + self.existing_files


_LIST_SCHEMA = json.dumps(
    AvroSchemaConversion().iceberg_to_avro(MANIFEST_LIST_FILE_SCHEMAS[2], schema_name="manifest_file")
)


def encode_manifest_list(
    records: Sequence[ManifestRecord], snapshot_id: int, parent_snapshot_id: int | None, sequence_number: int
) -> bytes:
    """The manifest list of a snapshot."""
    header = encode_header(
        {
            "snapshot-id": str(snapshot_id),
            "parent-snapshot-id": "null" if parent_snapshot_id is None else str(parent_snapshot_id),
            "sequence-number": str(sequence_number),
            "format-version": "2",
            "avro.codec": "deflate",
            "avro.schema": _LIST_SCHEMA,
        }
    )
    sync = new_sync_marker()
    if not records:
        return header + sync
    content = b"".join(map(_encode_record, records))
    return header + sync + encode_block(content, len(records), sync, deflate=True)


def _encode_record(record: ManifestRecord) -> bytes:
    numbers = (
        record.length,
        record.spec_id,
        record.content,
        record.sequence_number,
        record.min_sequence_number,
        record.added_snapshot_id,
        record.added_files,
        record.existing_files,
        record.deleted_files,
        record.added_rows,
        record.existing_rows,
        record.deleted_rows,
    )
    parts = [encode_text(record.path), *map(encode_long, numbers)]
    if record.partitions is None:
        parts.append(b"\x00")
    else:
        parts.append(b"\x02")
        if record.partitions:
            parts.append(encode_long(len(record.partitions)))
            parts.extend(map(_encode_summary, record.partitions))
        parts.append(b"\x00")
    parts.append(_encode_optional_bytes(record.key_metadata))
    return b"".join(parts)


def _encode_summary(summary: FieldSummary) -> bytes:
    nan = summary.contains_nan
    return (
        bytes([summary.contains_null])
        + (b"\x00" if nan is None else b"\x02" + bytes([nan]))
        + _encode_optional_bytes(summary.lower_bound)
        + _encode_optional_bytes(summary.upper_bound)
    )


def _encode_optional_bytes(value: bytes | None) -> bytes:
    return b"\x00" if value is None else b"\x02" + encode_bytes(value)


def decode_manifest_list(data: bytes) -> list[ManifestRecord]:
    """The lines of a manifest list of any writer."""
    container = ContainerFile(data)
    is_ours = container.metadata.get("avro.schema", b"").decode() == _LIST_SCHEMA
    if not is_ours or container.codec not in ("null", "deflate"):
        return _decode_foreign_list(data)
    records = []
    for count, content in container.blocks():
        decoder = Decoder(content)
        records += [_decode_record(decoder) for _ in range(count)]
    return records


def _decode_record(decoder: Decoder) -> ManifestRecord:
    path = decoder.text()
    numbers = [decoder.long() for _ in range(12)]
    partitions = None
    if decoder.is_present():
        summaries: list[FieldSummary] = []
        while (count := decoder.long()) != 0:
            if count < 0:
                decoder.long()
                count = -count
            for _ in range(count):
                contains_null = decoder.boolean()
                contains_nan = decoder.boolean() if decoder.is_present() else None
                summaries.append(
                    FieldSummary(contains_null, contains_nan, decoder.optional_bytes(), decoder.optional_bytes())
                )
        partitions = tuple(summaries)
    key_metadata = decoder.optional_bytes()
    return _record(path, numbers, partitions, key_metadata)


def _record(
    path: str, numbers: Sequence[int], partitions: tuple[FieldSummary, ...] | None, key_metadata: bytes | None
) -> ManifestRecord:
    return ManifestRecord(path, *numbers, partitions=partitions, key_metadata=key_metadata)  # type: ignore[arg-type,misc]


def _decode_foreign_list(data: bytes) -> list[ManifestRecord]:
    with AvroFile[Any](MemoryFile(data), MANIFEST_LIST_FILE_SCHEMAS[2]) as reader:
        return [_foreign_record(record) for record in reader]


def _foreign_record(record: Any) -> ManifestRecord:
    values = [record[i] for i in range(15)]
    summaries = values[13]
    partitions = None if summaries is None else tuple(FieldSummary(s[0], s[1], s[2], s[3]) for s in summaries)
    numbers = [int(value) for value in values[1:13]]
    return _record(values[0], numbers, partitions, values[14])


def partition_may_contain(record: ManifestRecord, field_index: int, value: bytes) -> bool:
    """Whether a manifest may hold an entry with this partition value (single-value serialization, byte order)."""
    if record.partitions is None or field_index >= len(record.partitions):
        return True
    summary = record.partitions[field_index]
    if summary.lower_bound is None or summary.upper_bound is None:
        return False
    return summary.lower_bound <= value <= summary.upper_bound


class MemoryFile(InputFile):
    """Bytes as the input file PyIceberg's Avro reader wants."""

    def __init__(self, data: bytes) -> None:
        super().__init__("memory:")
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> Any:
        return io.BytesIO(self._data)
