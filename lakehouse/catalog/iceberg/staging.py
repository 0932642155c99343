"""Staging: what one commit adds to and removes from one table, as new metadata files nobody points to yet."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.manifest import DataFile

from lakehouse.catalog import crash_points
from lakehouse.catalog.errors import ReplacedFilesGoneError, StateError, quoted
from lakehouse.catalog.iceberg.bounds import ElementBounds
from lakehouse.catalog.iceberg.element_records import ElementRecords, ElementReference
from lakehouse.catalog.iceberg.manifest_lists import (
    DATA_CONTENT,
    ManifestRecord,
    encode_manifest_list,
    partition_may_contain,
)
from lakehouse.catalog.iceberg.manifests import (
    DELETED,
    Entry,
    added_entry,
    decode_manifest,
    encode_manifest,
    read_avro_entries,
)
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles, new_snapshot_id
from lakehouse.catalog.storage import Warehouse

TOPIC_SPEC_ID = 0
REPLACE = "replace"
_SEQUENCE_FIELD = "sequence"
_TRUNCATED_LENGTH = 16


@dataclass(frozen=True)
class FileChange:
    """What one snapshot does to a table.

    Attributes:
        add: New data files, of the partition spec the table was created with.
        element_bounds: Bounds of elements of their lists and maps by path, then by field id.
        delete_sequences: All files of these partitions are removed.
        delete_paths: These files are removed.
        paths_lie_in: The sequences these files belong to; None: unknown.
        summary: Entries for the snapshot summary.
        operation: Overrides the operation derived from what is added and removed. `REPLACE` promises that the files
            added hold exactly the rows of `delete_paths`; it is refused unless the table still holds these, whole.
    """

    add: Sequence[DataFile] = ()
    element_bounds: Mapping[str, Mapping[int, ElementBounds]] = field(default_factory=dict)
    delete_sequences: frozenset[str] = frozenset()
    delete_paths: frozenset[str] = frozenset()
    paths_lie_in: frozenset[str] | None = None
    summary: Mapping[str, str] = field(default_factory=dict)
    operation: str | None = None


@dataclass(frozen=True)
class StagedTable:
    """The next state of a table: what it consists of is written, all but the metadata file itself.

    Attributes:
        identifier: `namespace.table`.
        base_location: Metadata file the change was built on.
        new_location: Metadata file of the changed table, where we write it (`TableCatalog.write_metadata`).
        fields: Its content.
        snapshot: The snapshot among these that the change adds; None if it adds none.
        manifests: The manifest list of that snapshot.
        written: URIs of everything else, to be removed if the commit fails.
    """

    identifier: str
    base_location: str
    new_location: str
    fields: Mapping[str, Any]
    written: tuple[str, ...]
    snapshot: dict[str, Any] | None = None
    manifests: tuple[ManifestRecord, ...] = ()

    @property
    def everything(self) -> list[str]:
        """URIs of all files that are or may be written."""
        return [*self.written, self.new_location]


@dataclass
class _Totals:
    files: int = 0
    rows: int = 0
    size: int = 0

    def count(self, entry: Entry) -> None:
        self.files += 1
        self.rows += entry.record_count
        self.size += entry.file_size


def stage(
    files: TableFiles, identifier: str, base: TableDocument, change: FileChange, data_files: Sequence[str] = ()
) -> StagedTable | None:
    """Write manifests, manifest list and metadata file of the table after `change`.

    Args:
        files: Reads and writes table metadata.
        identifier: `namespace.table`.
        base: The state the change is built on.
        change: What to add and remove.
        data_files: URIs of data files that were written for this commit and share its fate.

    Returns:
        None if the change turns out to change nothing.

    Raises:
        ReplacedFilesGoneError: If the change replaces files which the table does not hold any more, or rows of which
            another engine deleted.
        ChangedTableError: If another engine has made the table one that we do not write to; nothing is written.
        StorageError: If a file cannot be read or written.
    """
    return SnapshotBuilder(files, identifier, base, data_files).stage(change)


class SnapshotBuilder:
    """Builds the next snapshot of one table."""

    def __init__(self, files: TableFiles, identifier: str, base: TableDocument, data_files: Sequence[str] = ()) -> None:
        self._data_files = data_files
        self._files = files
        self._identifier = identifier
        self._base = base
        self._snapshot_id = new_snapshot_id(base)
        self._sequence_number = base.last_sequence_number + 1
        self._commit_id = uuid.uuid4()
        self._manifests: list[tuple[str, bytes]] = []
        self._partitions: set[tuple[Any, ...]] = set()

    def stage(self, change: FileChange) -> StagedTable | None:
        added, removed = _Totals(), _Totals()
        kept = self._without(change, removed)
        if change.operation == REPLACE:
            self._check_replaced(change, kept, removed)
        records = [*self._appended(change, added), *kept]
        if not added.files and not removed.files:
            return None
        return self._write(self._snapshot(change, added, removed), records)

    def replace_manifests(self, groups: Sequence[Sequence[ManifestRecord]]) -> StagedTable:
        """Merge each group of manifests into one; the rows of the table stay what they are."""
        merged_away = {record.path for group in groups for record in group}
        kept = [record for record in self._current_manifests() if record.path not in merged_away]
        records = []
        for group in groups:
            entries = [entry for record in group for entry in self._entries(record) if entry.status != DELETED]
            records.append(self._manifest(group[0].spec_id, [entry.as_existing() for entry in entries]))
        summary = {
            "manifests-created": str(len(groups)),
            "manifests-kept": str(len(kept)),
            "manifests-replaced": str(len(merged_away)),
        }
        snapshot = self._snapshot(FileChange(summary=summary, operation=REPLACE), _Totals(), _Totals())
        return self._write(snapshot, [*records, *kept])

    def _appended(self, change: FileChange, added: _Totals) -> list[ManifestRecord]:
        if not change.add:
            return []
        form = self._base.manifest_format(TOPIC_SPEC_ID)
        bounds = [change.element_bounds.get(each.file_path, {}) for each in change.add]
        elements = ElementRecords.of(bounds) if any(bounds) else None
        entries = [
            added_entry(
                form, data_file, self._snapshot_id, None if elements is None else ElementReference(elements, number)
            )
            for number, data_file in enumerate(change.add)
        ]
        for entry in entries:
            added.count(entry)
            self._partitions.add(entry.partition)
        return [self._manifest(TOPIC_SPEC_ID, entries)]

    def _without(self, change: FileChange, removed: _Totals) -> list[ManifestRecord]:
        """The current manifests, those that hold removed files rewritten."""
        current = self._current_manifests()
        if not change.delete_sequences and not change.delete_paths:
            return current
        kept = []
        for record in current:
            entries = self._entries(record) if self._may_hold_removed(record, change) else []
            live = [entry for entry in entries if entry.status != DELETED]
            doomed = self._removed_files(record, live, change) if live else frozenset()
            if not doomed:
                kept.append(record)
                continue
            rewritten = []
            for entry in live:
                if entry.path in doomed:
                    removed.count(entry)
                    self._partitions.add(entry.partition)
                    rewritten.append(entry.as_deleted_by(self._snapshot_id))
                else:
                    rewritten.append(entry.as_existing())
            kept.append(self._manifest(record.spec_id, rewritten))
        return kept

    def _check_replaced(self, change: FileChange, kept: Sequence[ManifestRecord], removed: _Totals) -> None:
        if removed.files < len(change.delete_paths):
            raise ReplacedFilesGoneError(f"files of table {self._identifier} were removed while they were rewritten")
        if any(record.content != DATA_CONTENT for record in kept):
            raise ReplacedFilesGoneError(
                f"another engine deletes single rows of table {self._identifier}: its files are left to that engine"
            )

    def _may_hold_removed(self, record: ManifestRecord, change: FileChange) -> bool:
        if record.content != DATA_CONTENT or not record.live_files:
            return False
        if change.delete_paths and change.paths_lie_in is None:
            return True
        index = self._sequence_index(record.spec_id)
        sequences = change.delete_sequences | (change.paths_lie_in or frozenset())
        return index is None or any(partition_may_contain(record, index, sequence.encode()) for sequence in sequences)

    def _removed_files(self, record: ManifestRecord, live: Sequence[Entry], change: FileChange) -> frozenset[str]:
        """Paths of those live files of a manifest that the change removes.

        Raises:
            StateError: If rows of a sequence to be deleted lie in one file with rows of others.
        """
        removed = {entry.path for entry in live if entry.path in change.delete_paths}
        if not change.delete_sequences:
            return frozenset(removed)
        index = self._sequence_index(record.spec_id)
        if index is None:
            return frozenset(removed | self._removed_by_bounds(record, change.delete_sequences))
        return frozenset(removed | {entry.path for entry in live if entry.partition[index] in change.delete_sequences})

    def _removed_by_bounds(self, record: ManifestRecord, sequences: frozenset[str]) -> set[str]:
        """The same for files that another engine wrote in a partitioning without the sequence."""
        field_id = self._base.column_id(_SEQUENCE_FIELD)
        removed = set()
        for entry in read_avro_entries(self._files.read(record.path)):
            lower = (entry.data_file.lower_bounds or {}).get(field_id)
            upper = (entry.data_file.upper_bounds or {}).get(field_id)
            for sequence in map(str.encode, sequences) if entry.status != DELETED else ():
                if (lower is not None and sequence < lower) or (upper is not None and sequence > upper):
                    continue
                # Bounds of texts longer than this may be truncated, and prove nothing then.
                if not lower == sequence == upper or len(sequence) >= _TRUNCATED_LENGTH:
                    raise StateError(
                        f"rows of {quoted(sequence.decode())} may lie in one file with rows of other sequences, since "
                        f"table {self._identifier} was repartitioned by another engine: delete them with that engine"
                    )
                removed.add(entry.data_file.file_path)
        return removed

    def _sequence_index(self, spec_id: int) -> int | None:
        """Position of the partition field that is the identity of the column `sequence`."""
        spec = next(spec for spec in self._base.fields["partition-specs"] if spec["spec-id"] == spec_id)
        source_id = self._base.column_id(_SEQUENCE_FIELD)
        for index, partition_field in enumerate(spec["fields"]):
            if partition_field["source-id"] == source_id and partition_field["transform"] == "identity":
                return index
        return None

    def _current_manifests(self) -> list[ManifestRecord]:
        snapshot = self._base.current_snapshot
        if snapshot is None:
            return []
        # Manifests with nothing but deleted entries have told their story in the snapshot that wrote them.
        return [record for record in self._files.manifest_list(snapshot["manifest-list"]) if record.live_files]

    def _entries(self, record: ManifestRecord) -> list[Entry]:
        return decode_manifest(self._base.manifest_format(record.spec_id), self._files.read(record.path), record)

    def _manifest(self, spec_id: int, entries: Sequence[Entry]) -> ManifestRecord:
        path = f"{self._base.location}/metadata/{self._commit_id}-m{len(self._manifests)}.avro"
        form = self._base.manifest_format(spec_id)
        data, record = encode_manifest(form, path, entries, self._snapshot_id, self._sequence_number)
        self._manifests.append((path, data))
        return record

    def _snapshot(self, change: FileChange, added: _Totals, removed: _Totals) -> dict[str, Any]:
        parent = self._base.current_snapshot
        operation = change.operation or (
            "append" if not removed.files else "delete" if not added.files else "overwrite"
        )
        snapshot = {
            "snapshot-id": self._snapshot_id,
            "sequence-number": self._sequence_number,
            "timestamp-ms": self._base.next_timestamp_ms(),
            "manifest-list": f"{self._base.location}/metadata/snap-{self._snapshot_id}-0-{self._commit_id}.avro",
            "summary": {
                "operation": operation,
                **change.summary,
                **self._counts(parent["summary"] if parent else None, added, removed),
            },
            "schema-id": self._base.fields["current-schema-id"],
        }
        if parent is not None:
            snapshot["parent-snapshot-id"] = parent["snapshot-id"]
        return snapshot

    def _counts(self, previous: Mapping[str, str] | None, added: _Totals, removed: _Totals) -> dict[str, str]:
        counts = {
            "added-data-files": added.files,
            "added-records": added.rows,
            "added-files-size": added.size,
            "deleted-data-files": removed.files,
            "deleted-records": removed.rows,
            "removed-files-size": removed.size,
            "changed-partition-count": len(self._partitions),
        }
        summary = {key: str(value) for key, value in counts.items() if value}
        totals = {
            "total-data-files": added.files - removed.files,
            "total-records": added.rows - removed.rows,
            "total-files-size": added.size - removed.size,
            "total-delete-files": 0,
            "total-position-deletes": 0,
            "total-equality-deletes": 0,
        }
        for key, difference in totals.items():
            # A total that the parent does not tell is unknown from here on; a wrong one would be worse.
            if previous is None:
                summary[key] = str(difference)
            elif previous.get(key, "").isdigit():
                summary[key] = str(int(previous[key]) + difference)
        return summary

    def _write(self, snapshot: dict[str, Any], records: Sequence[ManifestRecord]) -> StagedTable:
        fields = self._base.with_snapshot(snapshot)
        parent = self._base.current_snapshot
        list_location = snapshot["manifest-list"]
        manifest_list = encode_manifest_list(
            records, self._snapshot_id, parent["snapshot-id"] if parent else None, self._sequence_number
        )
        written = [*self._data_files, *(path for path, _ in self._manifests), list_location]
        warehouse = self._files.warehouse
        try:
            crash_points.reach("manifest-write:before")
            for path, data in [*self._manifests, (list_location, manifest_list)]:
                write_file(warehouse, path, data)
            crash_points.reach("manifest-write:after")
        except BaseException:
            warehouse.discard(written)
            raise
        return StagedTable(
            self._identifier,
            self._base.metadata_location,
            self._base.next_metadata_location(),
            fields,
            tuple(written),
            snapshot,
            tuple(records),
        )


def write_file(warehouse: Warehouse, uri: str, data: bytes) -> None:
    """Write a small file; it is durable only after `Warehouse.make_durable`.

    Raises:
        StorageError: If the warehouse refuses.
    """
    with warehouse.open_output(uri) as stream:
        stream.write(data)
