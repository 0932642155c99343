"""Compaction: many small data files of one topic and day become few. Rows, their order and every answer stay the same.

Files are rewritten first, beside everything else that goes on, and then swapped in by one guarded commit per batch of
groups, whose snapshot replaces files and changes no rows. Whoever reads an earlier snapshot keeps its files: they go
when that snapshot has expired and the retention of orphans has passed. A writer that comes first wins: groups whose
files it removed are given up, the others are committed on top. What a killed compaction leaves behind are orphans.

Only files of one topic and UTC day can be merged. A file belongs to one partition, and the partition is the sequence
and the day; a thousand short recordings are at least a thousand files.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields, replace
from functools import partial

from sqlalchemy import Connection

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import CommitConflictError, LakehouseError, ReplacedFilesGoneError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import TOPIC_PROPERTY
from lakehouse.catalog.maintenance.compaction_groups import CompactionRule
from lakehouse.catalog.maintenance.compaction_rewrite import CompactionGroup, GroupRewriter, RewrittenGroup
from lakehouse.catalog.maintenance.compaction_search import CompactionCounts, CompactionSearch
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.orphans import STAGING_GRACE_S
from lakehouse.catalog.settings import Settings

COMPACTION_LEASE = "compaction"
LEASE_DURATION_S = 600.0
# One commit carries about as much.
GROUPS_PER_COMMIT = 64
BYTES_PER_COMMIT = 1 << 30
# New files lie unreferenced until their commit; well before they pass for orphans they are given up.
LONGEST_WAIT_S = STAGING_GRACE_S / 2
# Where many files overlap, merged ones are merged again.
MOST_ROUNDS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompactionWork:
    """What was rewritten, or in a dry run would be.

    Attributes:
        groups: Sets of files of one topic and day.
        files_replaced, bytes_replaced: Small files that were taken out of their tables.
        files_written, bytes_written: What took their place; in a dry run, about how many files would, of the same size.
        rows: Rows in them.
        groups_given_up: Groups whose files were deleted, or rewritten by somebody else, in the meantime.
    """

    groups: int = 0
    files_replaced: int = 0
    bytes_replaced: int = 0
    files_written: int = 0
    bytes_written: int = 0
    rows: int = 0
    groups_given_up: int = 0

    def __add__(self, other: "CompactionWork") -> "CompactionWork":
        return CompactionWork(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass
class CompactionReport:
    """What one run did.

    Attributes:
        before, after: Counts around the run; in a dry run, about what they would become.
        work: By table.
        left_alone: Tables, and sequences of tables, that could not be compacted, with the reason.
    """

    dry_run: bool
    before: CompactionCounts = field(default_factory=CompactionCounts)
    after: CompactionCounts = field(default_factory=CompactionCounts)
    work: dict[str, CompactionWork] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> CompactionWork:
        return sum(self.work.values(), CompactionWork())


Progress = Callable[[str, int, int], None]


def run_compaction(
    database: Database,
    files: TableFiles,
    committer: Committer,
    settings: Settings,
    dry_run: bool = False,
    progress: Progress = lambda _table, _done, _total: None,
) -> CompactionReport | None:
    """Compact the topic tables.

    Args:
        database: Control plane and table pointers.
        files: Reads and writes table metadata.
        committer: Of this process.
        settings: `compacted_file_size`, `compaction_min_files`, `concurrent_writes`.
        dry_run: Report only.
        progress: Told the table at work, and bytes read of all bytes to be read in it.

    Returns:
        None if another process is at it.

    Raises:
        StorageError: If the database fails. A table that cannot be read is reported and left alone.
    """
    lease = Lease(database, COMPACTION_LEASE, LEASE_DURATION_S)
    if not lease.hold():
        return None
    try:
        return _Compaction(database, files, committer, settings, lease, progress).run(dry_run)
    finally:
        lease.release()


class _LeaseLostError(Exception):
    """Another process took over, because this one was suspended for long."""


class _Compaction:
    def __init__(
        self,
        database: Database,
        files: TableFiles,
        committer: Committer,
        settings: Settings,
        lease: Lease,
        progress: Progress,
    ) -> None:
        self._database = database
        self._files = files
        self._committer = committer
        self._rule = rule = CompactionRule(settings.compacted_file_size, settings.compaction_min_files)
        self._search = CompactionSearch(database, files, rule)
        self._rewriter = GroupRewriter(files.warehouse, rule.target_bytes, settings.encoding_buffer_size)
        self._threads = settings.concurrent_writes
        self._lease = lease
        self._progress = progress
        # Groups with a file that cannot be read or written; not tried again in this run.
        self._failed: set[frozenset[str]] = set()

    def run(self, dry_run: bool) -> CompactionReport:
        report = CompactionReport(dry_run)
        identifiers = self._identifiers()
        report.before = report.after = self._count(identifiers, report)
        try:
            for identifier in identifiers:
                if identifier not in report.left_alone:
                    self._compact(identifier, report)
        except _LeaseLostError:
            logger.warning("compaction stops: another process has taken over")
        if not dry_run:
            report.after = self._count(identifiers, report)
        return report

    def _identifiers(self) -> list[str]:
        """Topic tables of ours."""
        with self._database.snapshot() as connection:
            pointers = self._files.catalog.locations(connection)
        found = []
        for identifier, location in sorted(pointers.items()):
            if TOPIC_PROPERTY in self._files.document(location).properties:
                found.append(identifier)
        return found

    def _count(self, identifiers: Sequence[str], report: CompactionReport) -> CompactionCounts:
        counts = CompactionCounts()
        for identifier in identifiers:
            try:
                counts += self._search.count(identifier)
            except LakehouseError as error:
                report.left_alone[identifier] = error.message
        return counts

    def _compact(self, identifier: str, report: CompactionReport) -> None:
        try:
            for _ in range(1 if report.dry_run else MOST_ROUNDS):
                groups = [each for each in self._search.groups(identifier) if each.paths not in self._failed]
                if not groups:
                    break
                work = self._foresee(groups, report) if report.dry_run else self._round(identifier, groups, report)
                report.work[identifier] = report.work.get(identifier, CompactionWork()) + work
                if not work.files_written:
                    break
        except LakehouseError as error:
            logger.warning("table %s could not be compacted: %s", identifier, error)
            report.left_alone[identifier] = error.message

    def _foresee(self, groups: Sequence[CompactionGroup], report: CompactionReport) -> CompactionWork:
        """What one round would do, if rows took the same bytes in larger files."""
        written = [max(-(-group.size // self._rule.target_bytes), 1) for group in groups]
        was_small = sum(file.size < self._rule.small_bytes for group in groups for file in group.files)
        is_small = sum(group.size < self._rule.small_bytes for group in groups)
        work = replace(_planned(groups), files_written=sum(written), bytes_written=sum(group.size for group in groups))
        report.after = replace(
            report.after,
            data_files=report.after.data_files - work.files_replaced + work.files_written,
            small_files=report.after.small_files - was_small + is_small,
        )
        return work

    def _round(self, identifier: str, groups: Sequence[CompactionGroup], report: CompactionReport) -> CompactionWork:
        work = CompactionWork()
        total, done = sum(group.size for group in groups), 0
        for batch in self._rewritten(identifier, groups, report):
            work += self._commit(identifier, batch)
            done += sum(each.group.size for each in batch)
            self._progress(identifier, done, total)
        return work

    def _rewritten(
        self, identifier: str, groups: Sequence[CompactionGroup], report: CompactionReport
    ) -> Iterator[list[RewrittenGroup]]:
        """The groups rewritten, in batches that are worth a commit; a group that fails does not stop the others.

        What is finished but not committed when something fails is removed.
        """
        finished: list[RewrittenGroup] = []
        pending = iter(groups)
        running: dict[Future[RewrittenGroup], CompactionGroup] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="compact") as pool:
            try:
                while True:
                    while len(running) < self._threads and (group := next(pending, None)) is not None:
                        running[pool.submit(self._rewriter.rewrite, group)] = group
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        group = running.pop(future)
                        try:
                            finished.append(future.result())
                        except LakehouseError as error:
                            self._failed.add(group.paths)
                            report.left_alone[f"{identifier}, sequence {group.sequence}"] = error.message
                    self._keep_lease()
                    size = sum(each.group.size for each in finished)
                    if len(finished) >= GROUPS_PER_COMMIT or size >= BYTES_PER_COMMIT:
                        batch, finished = finished, []
                        yield batch
                batch, finished = finished, []
                if batch:
                    yield batch
            finally:
                ready = [future.result() for future in running if not future.cancel() and future.exception() is None]
                self._discard([*finished, *ready])

    def _keep_lease(self) -> None:
        if not self._lease.hold():
            raise _LeaseLostError

    def _commit(self, identifier: str, batch: Sequence[RewrittenGroup]) -> CompactionWork:
        """Swap a batch in; what other writers were faster with is given up."""
        remaining = list(batch)
        work, given_up = CompactionWork(), 0
        while remaining:
            try:
                self._committer.commit(partial(_plan, identifier, tuple(remaining)), alone=True)
            except CommitConflictError as error:
                live = self._search.live_paths(identifier, {each.group.sequence for each in remaining})
                # A catalog elsewhere may have carried the commit out although our own records failed after it: what
                # is in the table by now must never be thrown away.
                swapped = [each for each in remaining if not live.isdisjoint(entry.path for entry in each.entries)]
                self._record(identifier, swapped)
                work += _total(swapped)
                remaining = [each for each in remaining if each not in swapped]
                if not isinstance(error, ReplacedFilesGoneError):
                    self._discard(remaining)
                    raise
                gone = [each for each in remaining if not each.group.paths <= live]
                if not swapped:
                    # All there, and yet refused: rows are deleted one by one by another engine.
                    gone = gone or remaining
            else:
                return replace(work + _total(remaining), groups_given_up=given_up)
            self._discard(gone)
            given_up += len(gone)
            remaining = [each for each in remaining if each not in gone]
        return replace(work, groups_given_up=given_up)

    def _record(self, identifier: str, swapped: Sequence[RewrittenGroup]) -> None:
        if swapped:
            self._committer.commit(lambda: CommitPlan([], partial(_write_audit, identifier, tuple(swapped))))

    def _discard(self, groups: Sequence[RewrittenGroup]) -> None:
        self._files.warehouse.discard(entry.path for each in groups for entry in each.entries)


def _plan(identifier: str, groups: Sequence[RewrittenGroup]) -> CommitPlan:
    change = TableChange(
        identifier,
        add=[entry for each in groups for entry in each.entries],
        replaced=frozenset().union(*(each.group.paths for each in groups)),
    )

    def announce(connection: Connection) -> None:
        del connection
        if time.time() - min(each.started for each in groups) > LONGEST_WAIT_S:
            raise CommitConflictError("the compacted files waited too long for their commit")

    return CommitPlan([change], partial(_write_audit, identifier, groups), announce=announce)


def _write_audit(identifier: str, groups: Sequence[RewrittenGroup], connection: Connection) -> None:
    total = _total(groups)
    audit.record(
        connection,
        "compaction",
        identifier,
        files_before=total.files_replaced,
        files_after=total.files_written,
        bytes_before=total.bytes_replaced,
        bytes_after=total.bytes_written,
        sequences=len({each.group.sequence for each in groups}),
    )


def _planned(groups: Sequence[CompactionGroup]) -> CompactionWork:
    return CompactionWork(
        groups=len(groups),
        files_replaced=sum(len(group.files) for group in groups),
        bytes_replaced=sum(group.size for group in groups),
        rows=sum(group.rows for group in groups),
    )


def _total(groups: Sequence[RewrittenGroup]) -> CompactionWork:
    return sum(map(_done, groups), CompactionWork())


def _done(rewritten: RewrittenGroup) -> CompactionWork:
    return replace(
        _planned([rewritten.group]),
        files_written=len(rewritten.entries),
        bytes_written=sum(entry.file_size for entry in rewritten.entries),
    )
