"""Which snapshots expire, and the table's metadata without them. Pure functions over table documents."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from lakehouse.catalog.iceberg.staging import REPLACE
from lakehouse.catalog.iceberg.table_documents import MAIN_BRANCH, TableDocument, TableFiles

METADATA_LOG_TO_KEEP = 10
_REMOVING_OPERATIONS = frozenset({"delete", "overwrite"})


def expired_snapshots(
    document: TableDocument,
    keep: int,
    removed_before_ms: int | None = None,
    replaced_before_ms: int | None = None,
) -> frozenset[int]:
    """Ids of the snapshots that have had their time.

    Of the main branch the youngest `keep` snapshots stay. What a tag or another branch names stays, with the history of
    that branch; so does everything younger than the oldest snapshot that stays.

    Args:
        document: State of the table.
        keep: Number of snapshots to keep, at least 1.
        removed_before_ms: Rows that were deleted before this time (Unix milliseconds) must not stay reachable: the
            snapshots from before their deletion expire even if they are few.
        replaced_before_ms: The same for files that compaction replaced before this time; only their space is at stake,
            so readers of the earlier snapshots may be given longer.
    """
    current = document.current_snapshot
    if current is None:
        return frozenset()
    by_id = {snapshot["snapshot-id"]: snapshot for snapshot in document.snapshots}
    history = list(_history(by_id, current["snapshot-id"]))
    kept = history[:keep]
    if removed_before_ms is not None:
        kept = kept[: _length_since(by_id, kept, _removes_rows, removed_before_ms)]
    if replaced_before_ms is not None:
        kept = kept[: _length_since(by_id, kept, _replaces_files, replaced_before_ms)]
    oldest_kept_ms = min(by_id[snapshot_id]["timestamp-ms"] for snapshot_id in kept)
    protected = set(kept)
    for name, reference in (document.fields.get("refs") or {}).items():
        if name != MAIN_BRANCH:
            is_branch = reference.get("type") == "branch"
            own = _history(by_id, reference["snapshot-id"]) if is_branch else [reference["snapshot-id"]]
            protected.update(own)
    left_behind = set(history) - set(kept)
    return frozenset(
        snapshot_id
        for snapshot_id, snapshot in by_id.items()
        if snapshot_id not in protected and (snapshot_id in left_behind or snapshot["timestamp-ms"] < oldest_kept_ms)
    )


def _removes_rows(summary: Mapping[str, str]) -> bool:
    return summary.get("operation") in _REMOVING_OPERATIONS


def _replaces_files(summary: Mapping[str, str]) -> bool:
    # Merging manifests is a replacement too, but leaves no data file behind.
    return summary.get("operation") == REPLACE and summary.get("deleted-data-files", "0") != "0"


def _length_since(
    by_id: Mapping[int, Mapping[str, Any]],
    history: list[int],
    matters: Callable[[Mapping[str, str]], bool],
    before_ms: int,
) -> int:
    """How many of the youngest snapshots come after, or are, the latest one that matters made before a time."""
    for position, snapshot_id in enumerate(history):
        snapshot = by_id[snapshot_id]
        if matters(snapshot.get("summary") or {}) and snapshot["timestamp-ms"] < before_ms:
            return position + 1
    return len(history)


def _history(by_id: Mapping[int, Mapping[str, Any]], snapshot_id: int | None) -> Iterator[int]:
    """A snapshot and its ancestors, youngest first."""
    while snapshot_id is not None and (snapshot := by_id.get(snapshot_id)) is not None:
        yield snapshot_id
        snapshot_id = snapshot.get("parent-snapshot-id")


def without_snapshots(document: TableDocument, expired: Collection[int]) -> dict[str, Any]:
    """The fields of the next metadata version, without the snapshots and with a short log of earlier versions."""
    fields = document.successor(document.next_timestamp_ms())
    fields["metadata-log"] = fields["metadata-log"][-METADATA_LOG_TO_KEEP:]
    fields["snapshots"] = [each for each in document.snapshots if each["snapshot-id"] not in expired]
    log: list[Any] = []
    for entry in document.fields.get("snapshot-log") or []:
        # Iceberg spec: a history with a gap is worse than a short one.
        log = [] if entry["snapshot-id"] in expired else [*log, entry]
    fields["snapshot-log"] = log
    for key in ("statistics", "partition-statistics"):
        if document.fields.get(key):
            fields[key] = [each for each in document.fields[key] if each["snapshot-id"] not in expired]
    return fields


def referenced_metadata(files: TableFiles, document: TableDocument) -> set[str]:
    """URIs of all metadata files a state of a table needs: itself, its log, manifest lists, manifests, statistics.

    Raises:
        StorageError: If a manifest list cannot be read.
    """
    fields = document.fields
    uris = {document.metadata_location}
    uris.update(entry["metadata-file"] for entry in fields.get("metadata-log") or [])
    for key in ("statistics", "partition-statistics"):
        uris.update(entry["statistics-path"] for entry in fields.get(key) or [])
    for snapshot in document.snapshots:
        uris.add(snapshot["manifest-list"])
        uris.update(record.path for record in files.manifest_list(snapshot["manifest-list"]))
    return uris
