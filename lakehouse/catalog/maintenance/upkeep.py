"""The upkeep of one table: merge small files and manifests, expire snapshots, purge the metadata files left behind.

Each change is a commit of its own, guarded by the pointer like every other; when a writer comes first, the step is done
again on what it left, or next time.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lakehouse.catalog import crash_points
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.metadata_tables import METADATA_PROPERTY
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.orphan_marks import mark_anew, metadata_files_marked_before, unmark
from lakehouse.catalog.errors import ChangedTableError, LakehouseError, StorageError
from lakehouse.catalog.iceberg.manifest_lists import ManifestRecord
from lakehouse.catalog.iceberg.row_changes import merge_row_files, stage_merged_rows
from lakehouse.catalog.iceberg.staging import SnapshotBuilder, StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.iceberg.tables import TOPIC_PROPERTY
from lakehouse.catalog.maintenance.manifests import MANIFESTS_PER_CLASS, groups_to_merge
from lakehouse.catalog.maintenance.snapshots import (
    METADATA_LOG_TO_KEEP,
    expired_snapshots,
    referenced_metadata,
    without_snapshots,
)
from lakehouse.catalog.settings import Settings

NANOSECONDS = 1_000_000_000
_ATTEMPTS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpkeepResult:
    """What the upkeep of one or several tables did; all numbers are counts."""

    manifest_merges: int = 0
    row_compactions: int = 0
    expired_snapshots: int = 0
    purged_metadata_files: int = 0

    def __add__(self, other: "UpkeepResult") -> "UpkeepResult":
        return UpkeepResult(
            self.manifest_merges + other.manifest_merges,
            self.row_compactions + other.row_compactions,
            self.expired_snapshots + other.expired_snapshots,
            self.purged_metadata_files + other.purged_metadata_files,
        )


class Upkeep:
    """Keeps the metadata of tables small. Safe beside any number of writers and other maintainers."""

    def __init__(self, database: Database, files: TableFiles, committer: Committer, settings: Settings) -> None:
        self._database = database
        self._files = files
        self._committer = committer
        self._keep = settings.snapshots_to_keep
        # Expiring a few at a time costs a metadata file each; in batches it costs a fraction.
        self._slack = max(self._keep // 2, 1)
        self._min_age_ns = settings.snapshot_min_age * NANOSECONDS

    def is_due(self, document: TableDocument) -> bool:
        """Whether `maintain` has anything to do, at the price of reading what commits have just read."""
        if not is_ours(document) or not document.is_writable:
            return False
        if len(expired_snapshots(document, self._keep)) >= self._slack:
            return True
        return bool(self.merges(document))

    def merges(self, document: TableDocument) -> list[list[ManifestRecord]]:
        """The groups of manifests that would be merged."""
        snapshot = document.current_snapshot
        if snapshot is None or document.last_sequence_number < MANIFESTS_PER_CLASS:
            return []  # a commit adds one manifest: after so few of them the list need not be read
        return groups_to_merge(self._files.manifest_list(snapshot["manifest-list"]))

    def maintain(
        self,
        identifier: str,
        removed_before_ns: int | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> UpkeepResult:
        """Do what is due for one table.

        Args:
            identifier: `namespace.table`; a table that does not exist, is not of this system, or was upgraded by
                another engine to a format that we do not write, is left alone.
            removed_before_ns: Rows deleted before this time must become unreachable; see `expired_snapshots`.
            now_ns: The clock.

        Raises:
            StorageError: If database or warehouse fail.
        """
        result = UpkeepResult()
        current = self.document(identifier)
        if current is None or not current.is_writable:
            return result
        result = replace(result, row_compactions=self._merge_rows(identifier))
        result = replace(result, manifest_merges=self._attempt(identifier, lambda b: self._merge(identifier, b)))
        return replace(result, expired_snapshots=self._expire(identifier, removed_before_ns, now_ns))

    def expired(self, base: TableDocument, removed_before_ns: int, now_ns: int) -> frozenset[int]:
        """What expires so that removed rows and replaced files become unreachable; readers of the latter finish."""
        replaced_before_ns = min(removed_before_ns, now_ns - self._min_age_ns)
        return expired_snapshots(base, self._keep, removed_before_ns // 1_000_000, replaced_before_ns // 1_000_000)

    def purge_metadata(self, now_ns: int | None = None, limit: int | None = None) -> UpkeepResult:
        """Remove the metadata files that expired snapshots left behind, once their readers have had time to finish.

        Args:
            now_ns: The time.
            limit: Remove about as many at most.

        Raises:
            StorageError: If database or warehouse fail.
        """
        cutoff_ns = (time.time_ns() if now_ns is None else now_ns) - self._min_age_ns
        by_location: dict[str, set[str]] = {}
        with self._database.snapshot() as connection:
            for uri in metadata_files_marked_before(connection, cutoff_ns):
                by_location.setdefault(uri.rpartition("/metadata/")[0], set()).add(uri)
        purged = 0
        for location, marked in by_location.items():
            if limit is not None and purged >= limit:
                break
            document = self.document(".".join(location.rsplit("/", 2)[1:]))
            # Files of dropped and renamed tables are left to the search for orphans, which looks at all tables.
            if document is None or document.location != location:
                continue
            # Read again after the table, as a mark may have lain on a file in use: an expiry that the table shows has
            # marked what it left behind anew, before it was committed, and readers get their time from then on.
            with self._database.snapshot() as connection:
                uris = marked.intersection(metadata_files_marked_before(connection, cutoff_ns))
            unused = uris - referenced_metadata(self._files, document)
            crash_points.reach("metadata-purge:before")
            self._files.warehouse.delete(unused)
            crash_points.reach("metadata-purge:after")
            with self._database.transaction() as connection:
                unmark(connection, uris, cutoff_ns)
            purged += len(unused)
        return UpkeepResult(purged_metadata_files=purged)

    def document(self, identifier: str) -> TableDocument | None:
        """The current state of one of our tables."""
        with self._database.snapshot() as connection:
            location = self._files.catalog.locations(connection, [identifier]).get(identifier)
        if location is None:
            return None
        document = self._files.document(location)
        return document if is_ours(document) else None

    def _attempt(self, identifier: str, stage: Callable[[TableDocument], StagedTable | None]) -> int:
        """Stage and swap; returns 1 if the table changed."""
        with self._committer.exclusively():
            for _ in range(_ATTEMPTS):
                base = self.document(identifier)
                staged = stage(base) if base is not None else None
                if staged is None:
                    return 0
                if self._swap(staged, ()):
                    return 1
        return 0

    def _merge_rows(self, identifier: str) -> int:
        # The long part, reading and writing rows, holds nobody up.
        base = self.document(identifier)
        if base is None or METADATA_PROPERTY not in base.properties:
            return 0
        try:
            rows = merge_row_files(self._files, base)
        except ChangedTableError as error:
            # Its manifests and snapshots are looked after all the same.
            logger.warning("files of table %s are not merged: %s", identifier, error)
            return 0
        if rows is None:
            return 0
        self._files.warehouse.make_durable(rows.merged.file_path)
        return self._attempt(identifier, lambda fresh: stage_merged_rows(self._files, identifier, fresh, rows))

    def _merge(self, identifier: str, base: TableDocument) -> StagedTable | None:
        snapshot = base.current_snapshot
        if snapshot is None:
            return None
        groups = groups_to_merge(self._files.manifest_list(snapshot["manifest-list"]))
        return SnapshotBuilder(self._files, identifier, base).replace_manifests(groups) if groups else None

    def _expire(self, identifier: str, removed_before_ns: int | None, now_ns: Callable[[], int]) -> int:
        with self._committer.exclusively():
            for _ in range(_ATTEMPTS):
                base = self.document(identifier)
                if base is None:
                    return 0
                expired = expired_snapshots(base, self._keep)
                if len(expired) < self._slack:
                    expired = frozenset()
                if removed_before_ns is not None:
                    expired |= self.expired(base, removed_before_ns, now_ns())
                log_is_long = len(base.fields.get("metadata-log") or []) > METADATA_LOG_TO_KEEP + self._keep
                if not expired and not log_is_long:
                    return 0
                fields = without_snapshots(base, expired)
                location = base.next_metadata_location()
                left_behind = referenced_metadata(self._files, base) - referenced_metadata(
                    self._files, TableDocument(location, fields)
                )
                staged = StagedTable(identifier, base.metadata_location, location, fields, ())
                if self._swap(staged, left_behind, now_ns()):
                    return len(expired)
        return 0

    def _swap(self, staged: StagedTable, left_behind: Collection[str], at_ns: int = 0) -> bool:
        catalog, warehouse = self._files.catalog, self._files.warehouse
        warehouse.make_durable(*staged.written, *catalog.write_metadata(self._files, staged, {}))
        crash_points.reach("maintenance-swap:before")
        try:
            if catalog.shares_transactions:
                with self._database.transaction() as connection:
                    catalog.commit(connection, self._files, staged)
                    mark_anew(connection, left_behind, at_ns)
            else:
                # Marked before, for whoever dies after it: what is still in use when marks are due stays. Marked anew,
                # as an attempt that failed may have left marks: readers get their time from now on.
                with self._database.transaction() as connection:
                    mark_anew(connection, left_behind, at_ns)
                catalog.commit(None, self._files, staged)
        except CatalogConflictError:
            warehouse.discard(staged.everything)
            if left_behind and not catalog.shares_transactions:
                self._unmark_in_use(staged.identifier, left_behind, at_ns)
            return False
        except CatalogUncertainError as error:
            raise StorageError("the catalog failed while a table was maintained") from error
        crash_points.reach("maintenance-swap:after")
        return True

    def _unmark_in_use(self, identifier: str, marked: Collection[str], at_ns: int) -> None:
        """Take back marks of this time, except those on what another maintainer has left behind meanwhile."""
        document = self.document(identifier)
        in_use = set() if document is None else referenced_metadata(self._files, document).intersection(marked)
        with self._database.transaction() as connection:
            unmark(connection, in_use, at_ns)


@contextmanager
def logged_failure(identifier: str) -> Iterator[None]:
    """For a step on one table of many: a table that is damaged must not keep the others from being maintained."""
    try:
        yield
    except LakehouseError as error:
        logger.warning("table %s could not be maintained: %s", identifier, error)


def is_ours(document: TableDocument) -> bool:
    """Whether a table of the catalog is a topic table or a metadata table; what users add is theirs to maintain."""
    return TOPIC_PROPERTY in document.properties or METADATA_PROPERTY in document.properties
