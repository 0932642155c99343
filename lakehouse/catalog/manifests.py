"""Iceberg manifests and manifest lists of format version 2, read and written as bytes.

Iceberg spec, "Manifests" and "Manifest Lists". Every entry is written as an Avro block of its own: merging manifests
and deleting files from them then copies the untouched part of an entry (path, partition, counts, bounds) verbatim and
encodes only its head (status, snapshot, sequence numbers). Manifests of other writers that do not look like this are
decoded by PyIceberg and encoded anew.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.file import AvroFile
from pyiceberg.avro.resolver import construct_writer
from pyiceberg.conversions import to_bytes
from pyiceberg.io import InputFile
from pyiceberg.manifest import (
    MANIFEST_ENTRY_SCHEMAS,
    MANIFEST_LIST_FILE_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    data_file_with_partition,
    manifest_entry_schema_with_data_file,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, NestedField, PrimitiveType, StringType, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse.catalog.avro_encoding import (
    ContainerFile,
    Decoder,
    encode_block,
    encode_bytes,
    encode_header,
    encode_long,
    encode_optional_long,
    encode_text,
    new_sync_marker,
)

EXISTING, ADDED, DELETED = (int(status) for status in (0, 1, 2))
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest entry whose data file is kept in its Avro encoding.

    Attributes:
        data_file: The encoded `data_file` record.
        partition: Decoded partition values, in the order of the partition spec.
    """

    status: int
    snapshot_id: int
    sequence_number: int | None
    file_sequence_number: int | None
    data_file: bytes
    partition: tuple[Any, ...]
    path: str
    record_count: int
    file_size: int

    def as_existing(self) -> "Entry":
        return replace(self, status=EXISTING)

    def as_deleted_by(self, snapshot_id: int) -> "Entry":
        return replace(self, status=DELETED, snapshot_id=snapshot_id)


class ManifestFormat:
    """How manifests of one partition spec of one table schema are encoded; use `manifest_format` to get one."""

    def __init__(self, schema: Schema, schema_json: str, spec: PartitionSpec) -> None:
        self.spec_id = spec.spec_id
        # Optional even where the source column is required, as the Java implementation writes them.
        partition_type = StructType(
            *(
                NestedField(field.field_id, field.name, field.field_type, required=False)
                for field in spec.partition_type(schema).fields
            )
        )
        self.partition_types: list[PrimitiveType] = [field.field_type for field in partition_type.fields]  # type: ignore[misc]
        avro_schema = AvroSchemaConversion().iceberg_to_avro(
            manifest_entry_schema_with_data_file(2, data_file_with_partition(partition_type, 2)),
            schema_name="manifest_entry",
        )
        self.avro_schema = json.dumps(avro_schema)
        self.header = encode_header(
            {
                "schema": schema_json,
                "partition-spec": json.dumps([field.model_dump(by_alias=True, mode="json") for field in spec.fields]),
                "partition-spec-id": str(spec.spec_id),
                "format-version": "2",
                "content": "data",
                "avro.codec": "deflate",
                "avro.schema": self.avro_schema,
            }
        )

    def encode_partition(self, values: Sequence[Any]) -> bytes:
        parts = []
        for kind, value in zip(self.partition_types, values, strict=True):
            if value is None:
                parts.append(b"\x00")
            elif isinstance(kind, StringType):
                parts.append(b"\x02" + encode_text(value))
            elif isinstance(kind, DateType):
                parts.append(b"\x02" + encode_long(value))
            else:
                buffer = io.BytesIO()
                construct_writer(kind).write(BinaryEncoder(buffer), value)
                parts.append(b"\x02" + buffer.getvalue())
        return b"".join(parts)

    @property
    def decodes_partitions(self) -> bool:
        return all(isinstance(kind, StringType | DateType) for kind in self.partition_types)

    def decode_partition(self, decoder: Decoder) -> tuple[Any, ...]:
        return tuple(
            (decoder.text() if isinstance(kind, StringType) else decoder.long()) if decoder.is_present() else None
            for kind in self.partition_types
        )


@lru_cache(maxsize=512)
def parse_schema(schema_json: str) -> Schema:
    """A table schema from its JSON; equal texts share one object."""
    return Schema.model_validate_json(schema_json)


@lru_cache(maxsize=512)
def manifest_format(schema_json: str, spec_json: str) -> ManifestFormat:
    return ManifestFormat(parse_schema(schema_json), schema_json, PartitionSpec.model_validate_json(spec_json))


def added_entry(form: ManifestFormat, data_file: DataFile, snapshot_id: int) -> Entry:
    """The entry of a file that `snapshot_id` adds; its sequence numbers are inherited when it is committed."""
    partition = tuple(data_file.partition[i] for i in range(len(form.partition_types)))
    encoded = _encode_data_file(form, data_file, partition)
    return Entry(
        ADDED,
        snapshot_id,
        None,
        None,
        encoded,
        partition,
        data_file.file_path,
        data_file.record_count,
        data_file.file_size_in_bytes,
    )


def _encode_data_file(form: ManifestFormat, file: DataFile, partition: tuple[Any, ...]) -> bytes:
    return b"".join(
        (
            encode_long(int(file.content)),
            encode_text(file.file_path),
            encode_text(FileFormat(file.file_format).value),
            form.encode_partition(partition),
            encode_long(file.record_count),
            encode_long(file.file_size_in_bytes),
            _encode_counts(file.column_sizes),
            _encode_counts(file.value_counts),
            _encode_counts(file.null_value_counts),
            _encode_counts(file.nan_value_counts),
            _encode_bounds(file.lower_bounds),
            _encode_bounds(file.upper_bounds),
            b"\x00" if file.key_metadata is None else b"\x02" + encode_bytes(file.key_metadata),
            _encode_longs(file.split_offsets),
            _encode_longs(file.equality_ids),
            encode_optional_long(file.sort_order_id),
        )
    )


def _encode_counts(counts: Mapping[int, int] | None) -> bytes:
    if counts is None:
        return b"\x00"
    if not counts:
        return b"\x02\x00"
    items = b"".join([encode_long(key) + encode_long(value) for key, value in counts.items()])
    return b"\x02" + encode_long(len(counts)) + items + b"\x00"


def _encode_bounds(bounds: Mapping[int, bytes] | None) -> bytes:
    if bounds is None:
        return b"\x00"
    if not bounds:
        return b"\x02\x00"
    items = b"".join([encode_long(key) + encode_bytes(value) for key, value in bounds.items()])
    return b"\x02" + encode_long(len(bounds)) + items + b"\x00"


def _encode_longs(values: Sequence[int] | None) -> bytes:
    if values is None:
        return b"\x00"
    if not values:
        return b"\x02\x00"
    return b"\x02" + encode_long(len(values)) + b"".join(map(encode_long, values)) + b"\x00"


def encode_manifest(
    form: ManifestFormat, path: str, entries: Iterable[Entry], snapshot_id: int, sequence_number: int
) -> tuple[bytes, ManifestRecord]:
    """A data manifest written by `snapshot_id`, and its line for the manifest list.

    Args:
        form: Encoding of the partition spec all entries belong to.
        path: URI the manifest will be stored under.
        entries: At least one.
        snapshot_id: Snapshot that writes the manifest.
        sequence_number: Sequence number of that snapshot.
    """
    sync = new_sync_marker()
    parts = [form.header, sync]
    files, rows = [0, 0, 0], [0, 0, 0]
    min_sequence_number = sequence_number
    partitions: set[tuple[Any, ...]] = set()
    for entry in entries:
        files[entry.status] += 1
        rows[entry.status] += entry.record_count
        partitions.add(entry.partition)
        if entry.status != DELETED and entry.sequence_number is not None:
            min_sequence_number = min(min_sequence_number, entry.sequence_number)
        head = (
            encode_long(entry.status)
            + encode_optional_long(entry.snapshot_id)
            + encode_optional_long(entry.sequence_number)
            + encode_optional_long(entry.file_sequence_number)
        )
        parts.append(encode_block(head + entry.data_file, 1, sync, deflate=True))
    data = b"".join(parts)
    record = ManifestRecord(
        path=path,
        length=len(data),
        spec_id=form.spec_id,
        content=DATA_CONTENT,
        sequence_number=sequence_number,
        min_sequence_number=min_sequence_number,
        added_snapshot_id=snapshot_id,
        added_files=files[ADDED],
        existing_files=files[EXISTING],
        deleted_files=files[DELETED],
        added_rows=rows[ADDED],
        existing_rows=rows[EXISTING],
        deleted_rows=rows[DELETED],
        partitions=_summarize(form.partition_types, partitions),
    )
    return data, record


def _summarize(kinds: Sequence[PrimitiveType], partitions: set[tuple[Any, ...]]) -> tuple[FieldSummary, ...]:
    summaries = []
    for index, kind in enumerate(kinds):
        values = [partition[index] for partition in partitions]
        present = [value for value in values if value is not None and value == value]
        summaries.append(
            FieldSummary(
                contains_null=any(value is None for value in values),
                contains_nan=any(value is not None and value != value for value in values),
                lower_bound=to_bytes(kind, min(present)) if present else None,
                upper_bound=to_bytes(kind, max(present)) if present else None,
            )
        )
    return tuple(summaries)


def decode_manifest(form: ManifestFormat, data: bytes, record: ManifestRecord) -> list[Entry]:
    """All entries of a data manifest, deleted ones included, sequence numbers and snapshot ids inherited."""
    container = ContainerFile(data)
    carries_over = (
        form.decodes_partitions
        and container.codec in ("null", "deflate")
        and container.metadata.get("avro.schema", b"").decode() == form.avro_schema
    )
    if carries_over:
        entries = []
        for count, content in container.blocks():
            if count != 1:
                break
            entries.append(_carried_entry(form, content, record))
        else:
            return entries
    return _decode_foreign_manifest(form, data, record)


def _carried_entry(form: ManifestFormat, content: bytes, record: ManifestRecord) -> Entry:
    decoder = Decoder(content)
    status = decoder.long()
    snapshot_id = decoder.optional_long()
    sequence_number = decoder.optional_long()
    file_sequence_number = decoder.optional_long()
    start = decoder.position
    decoder.long()  # content: a data manifest holds data files only
    path = decoder.text()
    decoder.text()  # file format
    partition = form.decode_partition(decoder)
    record_count = decoder.long()
    file_size = decoder.long()
    inherits = status == ADDED
    return Entry(
        status,
        record.added_snapshot_id if snapshot_id is None else snapshot_id,
        record.sequence_number if sequence_number is None and inherits else sequence_number,
        record.sequence_number if file_sequence_number is None and inherits else file_sequence_number,
        content[start:],
        partition,
        path,
        record_count,
        file_size,
    )


def _decode_foreign_manifest(form: ManifestFormat, data: bytes, record: ManifestRecord) -> list[Entry]:
    entries = []
    for entry in read_avro_entries(data):
        partition = tuple(entry.data_file.partition[i] for i in range(len(form.partition_types)))
        inherits = entry.status == ManifestEntryStatus.ADDED
        sequence_number, file_sequence_number = entry.sequence_number, entry.file_sequence_number
        entries.append(
            Entry(
                int(entry.status),
                record.added_snapshot_id if entry.snapshot_id is None else entry.snapshot_id,
                record.sequence_number if sequence_number is None and inherits else sequence_number,
                record.sequence_number if file_sequence_number is None and inherits else file_sequence_number,
                _encode_data_file(form, entry.data_file, partition),
                partition,
                entry.data_file.file_path,
                entry.data_file.record_count,
                entry.data_file.file_size_in_bytes,
            )
        )
    return entries


def read_avro_entries(data: bytes) -> list[ManifestEntry]:
    """Fully decoded entries of any manifest, nothing inherited."""
    with AvroFile[ManifestEntry](
        _MemoryFile(data),
        MANIFEST_ENTRY_SCHEMAS[2],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as reader:
        return list(reader)


class _MemoryFile(InputFile):
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
    with AvroFile[Any](_MemoryFile(data), MANIFEST_LIST_FILE_SCHEMAS[2]) as reader:
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
