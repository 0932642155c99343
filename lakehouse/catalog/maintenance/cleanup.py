"""The cleanup cycle: everything that keeps storage clean, over all tables, with counts before and after."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from sqlalchemy import exists, select

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import topics
from lakehouse.catalog.iceberg.manifest_lists import DATA_CONTENT
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.iceberg.tables import TopicTables, is_unfilled_topic_table
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.orphans import OrphanReport, OrphanSearch
from lakehouse.catalog.maintenance.recording import recorded_at_the_end
from lakehouse.catalog.maintenance.upkeep import Upkeep, UpkeepResult, logged_failure
from lakehouse.catalog.settings import Settings

logger = logging.getLogger(__name__)

CLEANUP_LEASE = "cleanup"
LEASE_DURATION_S = 600.0
NANOSECONDS = 1_000_000_000
# What leaves the lake for good.
_RECORDED = ("dropped_tables", "expired_snapshots", "purged_metadata_files", "purged", "purged_bytes")


@dataclass(frozen=True)
class LakeCounts:
    """Size of the lake's metadata.

    Attributes:
        tables: Topic and metadata tables.
        snapshots: Snapshots of these.
        manifests: Manifests of their current snapshots.
        data_files: Data files of their current snapshots.
    """

    tables: int = 0
    snapshots: int = 0
    manifests: int = 0
    data_files: int = 0


@dataclass
class CleanupReport:
    """What one cycle did, or in a dry run would do.

    Attributes:
        before, after: Counts around the cycle; in a dry run, what they would become.
        dropped_tables: Tables that never held a row and that no topic refers to.
        upkeep: Merges, expired snapshots and purged metadata files.
        orphans: Files that nothing refers to.
    """

    dry_run: bool
    before: LakeCounts = field(default_factory=LakeCounts)
    after: LakeCounts = field(default_factory=LakeCounts)
    dropped_tables: int = 0
    upkeep: UpkeepResult = field(default_factory=UpkeepResult)
    orphans: OrphanReport = field(default_factory=OrphanReport)


def run_cleanup_cycle(
    database: Database,
    files: TableFiles,
    committer: Committer,
    settings: Settings,
    dry_run: bool = False,
    now_ns: Callable[[], int] = time.time_ns,
) -> CleanupReport | None:
    """Drop unused tables, maintain all others, make deleted rows unreachable, purge orphans.

    Args:
        database: Control plane and table pointers.
        files: Reads and writes table metadata.
        committer: Of this process.
        settings: `snapshots_to_keep`, `snapshot_min_age`, `cleanup_retention_duration`.
        dry_run: Report only.
        now_ns: The clock.

    Returns:
        None if another process is at it.

    Raises:
        StorageError: If database or warehouse fail; what was done until then is complete in itself. A table that cannot
            be read is left alone, but may refer to any file: then no orphan is purged.
    """
    lease = Lease(database, CLEANUP_LEASE, LEASE_DURATION_S)
    if not lease.hold():
        return None
    try:
        return _Cycle(database, files, committer, settings, lease, now_ns).run(dry_run)
    finally:
        lease.release()


class _Cycle:
    def __init__(
        self,
        database: Database,
        files: TableFiles,
        committer: Committer,
        settings: Settings,
        lease: Lease,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._files = files
        self._upkeep = Upkeep(database, files, committer, settings)
        self._retention_s = settings.cleanup_retention_duration
        self._lease = lease
        self._now_ns = now_ns

    def run(self, dry_run: bool) -> CleanupReport:
        before = self._count()
        report = CleanupReport(dry_run, before, before)
        removed_before_ns = self._now_ns() - self._retention_s * NANOSECONDS
        if dry_run:
            self._foresee(report, removed_before_ns)
            self._search_orphans(report)
            return report
        with recorded_at_the_end(lambda: self._record(report)):
            self._maintain(report, removed_before_ns)
            self._search_orphans(report)
        report.after = self._count()
        return report

    def _search_orphans(self, report: CleanupReport) -> None:
        if self._lease.hold():
            search = OrphanSearch(self._database, self._files, self._retention_s)
            report.orphans = search.run(report.dry_run, self._now_ns())
        else:
            logger.warning("cleanup took so long that another process has taken over; the rest is left to it")

    def _maintain(self, report: CleanupReport, removed_before_ns: int) -> None:
        """Look after the tables for as long as no other process has taken over."""
        tables = TopicTables(self._database, self._files)
        for identifier in self._identifiers():
            if not self._lease.hold():
                return
            with logged_failure(identifier):
                if tables.drop_if_unused(identifier):
                    report.dropped_tables += 1
                else:
                    report.upkeep += self._upkeep.maintain(identifier, removed_before_ns, self._now_ns)
        report.upkeep += self._upkeep.purge_metadata(self._now_ns())

    def _record(self, report: CleanupReport) -> None:
        figures = {**asdict(report.upkeep), **asdict(report.orphans), "dropped_tables": report.dropped_tables}
        done = {name: figures[name] for name in _RECORDED if figures[name]}
        if done:
            with self._database.transaction() as connection:
                audit.record(connection, "cleanup", "lake", **done)

    def _foresee(self, report: CleanupReport, removed_before_ns: int) -> None:
        expired = merged = merges = 0
        for identifier, document in self._documents():
            with self._database.snapshot() as connection:
                used = connection.scalar(select(exists().where(topics.c.table_identifier == identifier)))
            if not used and is_unfilled_topic_table(document):
                report.dropped_tables += 1
                continue
            expired += len(self._upkeep.expired(document, removed_before_ns, self._now_ns()))
            groups = self._upkeep.merges(document)
            merged += sum(len(group) - 1 for group in groups)
            merges += bool(groups)
        report.upkeep = UpkeepResult(manifest_merges=merges, expired_snapshots=expired)
        before = report.before
        report.after = LakeCounts(
            before.tables - report.dropped_tables,
            # A merge is a snapshot too.
            before.snapshots - expired + merges,
            before.manifests - merged,
            before.data_files,
        )

    def _identifiers(self) -> list[str]:
        with self._database.snapshot() as connection:
            return sorted(self._files.catalog.locations(connection))

    def _documents(self) -> Iterator[tuple[str, TableDocument]]:
        """The current state of each of our tables that can be read."""
        for identifier in self._identifiers():
            with logged_failure(identifier):
                if (document := self._upkeep.document(identifier)) is not None:
                    yield identifier, document

    def _count(self) -> LakeCounts:
        tables = snapshots = manifests = data_files = 0
        for _, document in self._documents():
            tables += 1
            snapshots += len(document.snapshots)
            if (current := document.current_snapshot) is not None:
                records = self._files.manifest_list(current["manifest-list"])
                manifests += len(records)
                data_files += sum(record.live_files for record in records if record.content == DATA_CONTENT)
        return LakeCounts(tables, snapshots, manifests, data_files)
