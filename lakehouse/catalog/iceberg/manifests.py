"""Iceberg manifests of format version 2, read and written as bytes (Iceberg spec, "Manifests").

Every entry is written as an Avro block of its own: merging manifests
and deleting files from them then copies the untouched part of an entry (path, partition, counts, bounds) verbatim and
encodes only its head (status, snapshot, sequence numbers). Manifests of other writers that do not look like this are
decoded by PyIceberg and encoded anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyiceberg.avro.file import AvroFile
from pyiceberg.conversions import to_bytes
from pyiceberg.manifest import (
    MANIFEST_ENTRY_SCHEMAS,
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
)
from pyiceberg.types import PrimitiveType

from lakehouse.catalog.iceberg.avro_encoding import (
    ContainerFile,
    Decoder,
    encode_block,
    encode_bytes,
    encode_long,
    encode_optional_long,
    encode_text,
    new_sync_marker,
)
from lakehouse.catalog.iceberg.element_records import HEADER_KEY, ElementReference, decode_records, gather
from lakehouse.catalog.iceberg.manifest_format import ManifestFormat
from lakehouse.catalog.iceberg.manifest_lists import DATA_CONTENT, FieldSummary, ManifestRecord, MemoryFile

# Status of an entry.
EXISTING, ADDED, DELETED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest entry whose data file is kept in its Avro encoding.

    Attributes:
        data_file: The encoded `data_file` record.
        partition: Decoded partition values, in the order of the partition spec.
        elements: Where the bounds of elements of its lists and maps are recorded; None if they are not.
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
    elements: ElementReference | None = None

    def as_existing(self) -> "Entry":
        return replace(self, status=EXISTING)

    def as_deleted_by(self, snapshot_id: int) -> "Entry":
        return replace(self, status=DELETED, snapshot_id=snapshot_id)


def added_entry(
    form: ManifestFormat, data_file: DataFile, snapshot_id: int, elements: ElementReference | None = None
) -> Entry:
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
        elements,
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
    entries = list(entries)
    sync = new_sync_marker()
    parts = [form.header(_element_metadata(entries)), sync]
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
        parts.append(encode_block(head + entry.data_file, 1, sync, deflate=False))
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


def _element_metadata(entries: Iterable[Entry]) -> dict[str, bytes]:
    live = [entry for entry in entries if entry.status != DELETED]
    records = gather(entry.elements for entry in live)
    return {} if records is None else {HEADER_KEY: records.encode([entry.path for entry in live])}


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
    return _with_elements(_decode_entries(form, container, data, record), container)


def _with_elements(entries: list[Entry], container: ContainerFile) -> list[Entry]:
    live = [number for number, entry in enumerate(entries) if entry.status != DELETED]
    records = decode_records(container.metadata.get(HEADER_KEY), [entries[number].path for number in live])
    if records is not None:
        for position, number in enumerate(live):
            entries[number] = replace(entries[number], elements=ElementReference(records, position))
    return entries


def _decode_entries(form: ManifestFormat, container: ContainerFile, data: bytes, record: ManifestRecord) -> list[Entry]:
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
        MemoryFile(data),
        MANIFEST_ENTRY_SCHEMAS[2],
        read_types={-1: ManifestEntry, 2: DataFile},
        read_enums={0: ManifestEntryStatus, 101: FileFormat, 134: DataFileContent},
    ) as reader:
        return list(reader)
