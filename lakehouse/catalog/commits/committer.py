"""One atomic commit over many Iceberg tables and the control plane (design: "One session, one transaction").

Every touched table is staged first: manifests, manifest list and metadata file are written and durable, but nobody
points to them. Then one SQL transaction swaps all pointers, each guarded by the location the staging was built on, and
applies the plan's own rows. Either all of it happens or none.

Commits of one process queue up and are committed together: one snapshot per table and one transaction carry all of
them, so that many sessions finalized at once cost little more than one. Processes take turns, because of several that
stage at once all but one do it in vain. Should two do so all the same the guards decide, and the loser plans and stages
again on what the winner left.
"""

import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from lakehouse.catalog import crash_points
from lakehouse.catalog.activity import Activity
from lakehouse.catalog.commits.stepwise import commit_stepwise
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.errors import CommitConflictError, LakehouseError, NotFoundError, StorageError
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.row_changes import RowChange, stage_rows
from lakehouse.catalog.iceberg.staging import REPLACE, FileChange, StagedTable, stage
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.reading.skip_index import SkipIndex

PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.01
# Longer pauses would only let whoever has just won win again.
LONGEST_PAUSE_S = 0.25
STAGING_THREADS = 4
# They wait for an object store, not for the processor.
REMOTE_STAGING_THREADS = 16
MAX_GROUP = 64
# Entries of every snapshot's summary: what tables were changed in one transaction, and how many.
COMMIT_ID = "mosaico.commit"
COMMIT_TABLES = "mosaico.commit-tables"
# Files staged longer ago (by a process that was suspended, say) may have been collected as orphans.
STAGING_EXPIRES_S = 600.0
# PostgreSQL: serialization failure, deadlock detected, lock not available.
_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})


class StalePlanError(Exception):
    """Raised by `announce` and `apply` of a plan that no longer fits the control plane; it is prepared again."""


@dataclass(frozen=True)
class TableChange:
    """What a plan does to one table.

    Attributes:
        identifier: `namespace.table`.
        add: Data files to append.
        delete_sequence: Drop all files of this sequence's partitions.
        is_repeated: Whether the files may have been appended before; they are not if the table holds rows of their
            sequence (a topic, which is a table's share of a sequence, is written once).
        rows: Changes of single rows, for the small metadata tables.
        replaced: URIs of data files which those of `add` take the place of, holding the same rows. Such a plan has to
            be committed alone.
    """

    identifier: str
    add: Sequence[DataFileEntry] = ()
    delete_sequence: str | None = None
    is_repeated: bool = False
    rows: RowChange | None = None
    replaced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CommitPlan:
    """One logical change.

    Attributes:
        changes: Per table; a table may occur more than once.
        apply: Writes the control-plane rows that make the change visible, inside the transaction that swaps the
            pointers. It may raise a `LakehouseError` to refuse the plan, or `StalePlanError` to have it prepared again.
        summary: Entries for the summaries of the snapshots, e.g. `mosaico.session`.
        announce: Writes what is needed to carry the plan through after a crash; may raise the same. Runs just before
            `apply`, in the same transaction; or, where tables are committed to elsewhere, in one of its own before any
            of them.
    """

    changes: Sequence[TableChange]
    apply: Callable[[Connection], None]
    summary: Mapping[str, str] = field(default_factory=dict)
    announce: Callable[[Connection], None] = lambda _connection: None

    @property
    def row_keys(self) -> frozenset[str]:
        return frozenset(change.rows.key for change in self.changes if change.rows is not None)


@dataclass(eq=False)
class _Request:
    """A caller waiting for its plan to be committed."""

    prepare: Callable[[], CommitPlan]
    deadline: float
    alone: bool = False
    done: bool = False
    error: BaseException | None = None

    def finish(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done = True

    def give_up_when_late(self) -> None:
        if time.monotonic() > self.deadline:
            self.finish(CommitConflictError("other writers kept changing the same tables; try again later"))


class _ConflictError(Exception):
    """Another process moved a pointer first."""


class _UnknownOutcomeError(Exception):
    """The connection broke while the transaction was being committed."""


class _RefusedError(Exception):
    """The `apply` of one plan failed."""

    def __init__(self, request: _Request, reason: LakehouseError | StalePlanError) -> None:
        self.request = request
        self.reason = reason


class Committer:
    """Commits plans, one group at a time per process.

    Args:
        database: Holds control plane and table pointers.
        files: Reads and writes table metadata.
        on_commit: Called after each commit with the identifiers of the changed tables; must return at once.
        patience_s: How long a plan is tried while other processes win, in seconds.
        activity: Counts commits and conflicts.
        turns: Those of this process among all that commit.
    """

    def __init__(
        self,
        database: Database,
        files: TableFiles,
        on_commit: Callable[[Iterable[str]], None] = lambda _identifiers: None,
        patience_s: float = PATIENCE_S,
        activity: Activity | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self.turns = turns or Turns(database, self._activity)
        self.on_commit = on_commit
        self._database = database
        self._files = files
        self._index = SkipIndex(files)
        self._patience_s = patience_s
        self._waiting: deque[_Request] = deque()
        self._has_leader = False
        self._changed = threading.Condition()
        threads = STAGING_THREADS if files.warehouse.is_local else REMOTE_STAGING_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stage")

    @property
    def announces(self) -> bool:
        """Whether plans are announced in a transaction of their own, so that others may carry them through."""
        return not self._files.catalog.shares_transactions

    def close(self) -> None:
        self._pool.shutdown()

    def commit(self, prepare: Callable[[], CommitPlan], *, alone: bool = False) -> None:
        """Carry out a plan entirely, or not at all.

        Args:
            prepare: Reads what it needs and returns the plan. Called again whenever the ground has shifted; it may be
                called on another thread.
            alone: Share snapshots and transaction with no other plan.

        Raises:
            LakehouseError: Whatever `prepare` or the plan's `apply` raised.
            CommitConflictError: If other processes kept winning for a minute.
            ReplacedFilesGoneError: If files to be replaced are gone.
            StorageError: If the warehouse or the database fails.
        """
        request = _Request(prepare, time.monotonic() + self._patience_s, alone)
        with self._changed:
            self._waiting.append(request)
            while self._has_leader and not request.done:
                self._changed.wait()
            leads = not request.done
            self._has_leader = self._has_leader or leads
        if leads:
            self._lead(request)
        if request.error is not None:
            raise request.error

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold up commits, so that maintenance of a busy table is not outrun by them for ever."""
        with self._changed:
            while self._has_leader:
                self._changed.wait()
            self._has_leader = True
        try:
            with self.turns.taken():
                yield
        finally:
            with self._changed:
                self._has_leader = False
                self._changed.notify_all()

    def _lead(self, own: _Request) -> None:
        """Commit for everybody who waits, until the leader's own plan is done; then somebody else leads."""
        group: list[_Request] = []
        try:
            while not own.done:
                with self.turns.taken():
                    # Only now: whoever comes while this process waits for its turn is in the group.
                    with self._changed:
                        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
                    self._commit_group([request for request in group if not request.alone])
                    for request in group:
                        if request.alone:
                            self._commit_group([request])
                    with self._changed:
                        self._changed.notify_all()
        finally:
            with self._changed:
                for request in group:
                    if not request.done:
                        request.finish(StorageError("the commit was interrupted"))
                self._has_leader = False
                self._changed.notify_all()

    def _commit_group(self, group: Sequence[_Request]) -> None:
        pause = FIRST_PAUSE_S
        while plans := self._prepare(group):
            try:
                changed = self._attempt(plans)
            except _RefusedError as refusal:
                if isinstance(refusal.reason, StalePlanError):
                    refusal.request.give_up_when_late()
                else:
                    refusal.request.finish(refusal.reason)
            except _ConflictError:
                self._activity.add(commit_conflicts=1)
                for request in plans:
                    request.give_up_when_late()
                time.sleep(random.uniform(0, pause))
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Exception as error:
                if len(plans) == 1:
                    next(iter(plans)).finish(error)
                else:
                    # One of them may be to blame, and the others must not pay for it.
                    for request in plans:
                        self._commit_group([request])
            else:
                self._activity.add(commits=1)
                for request in plans:
                    request.finish()
                self.on_commit(changed)

    def _prepare(self, group: Sequence[_Request]) -> dict[_Request, CommitPlan]:
        """Fresh plans of those of the group that can go together.

        Plans that change the same metadata rows were each made without knowing of the other: they go one by one.
        """
        admitted: dict[_Request, CommitPlan] = {}
        taken: set[str] = set()
        for request in group:
            if request.done:
                continue
            try:
                plan = request.prepare()
            except Exception as error:
                request.finish(error)
                continue
            if taken.isdisjoint(plan.row_keys):
                admitted[request] = plan
                taken |= plan.row_keys
        return admitted

    def _attempt(self, plans: Mapping[_Request, CommitPlan]) -> list[str]:
        by_table: dict[str, list[tuple[CommitPlan, TableChange]]] = {}
        for plan in plans.values():
            for change in plan.changes:
                by_table.setdefault(change.identifier, []).append((plan, change))
        with self._database.snapshot() as connection:
            pointers = self._files.catalog.locations(connection, by_table)
        staged: list[StagedTable] = []
        unused: list[StagedTable] = staged
        started = time.time()
        try:
            self._stage(by_table, pointers, staged)
            self._write_metadata(staged)
            if time.time() - started > STAGING_EXPIRES_S:
                raise _ConflictError
            unused = list(staged)
            if self._files.catalog.shares_transactions:
                self._swap(plans, staged)
            else:
                self._publish(plans, unused)
        except _UnknownOutcomeError as error:
            # The files may be in use by now: they must stay, and what happened is read from the pointers.
            if not self._has_happened(staged):
                raise StorageError("the database failed during the commit") from error
        except Exception:
            # Not after an interruption from the keyboard: it may come when the transaction is over.
            self._files.warehouse.discard([uri for table in unused for uri in table.everything])
            raise
        return [table.identifier for table in staged]

    def _stage(
        self,
        by_table: Mapping[str, Sequence[tuple[CommitPlan, TableChange]]],
        pointers: Mapping[str, str],
        staged: list[StagedTable],
    ) -> None:
        def stage_one(identifier: str) -> StagedTable | None:
            if identifier not in pointers:
                raise NotFoundError("table", identifier)
            return self._stage_table(identifier, pointers[identifier], by_table[identifier])

        futures = [self._pool.submit(stage_one, identifier) for identifier in sorted(by_table)]
        failure: BaseException | None = None
        for future in futures:
            try:
                if (table := future.result()) is not None:
                    staged.append(table)
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _write_metadata(self, staged: Sequence[StagedTable]) -> None:
        # From these entries alone, whoever finds the files can tell whether the commit was staged completely.
        summary = {COMMIT_ID: str(uuid.uuid4()), COMMIT_TABLES: str(len(staged))}
        write = self._files.catalog.write_metadata
        futures = [self._pool.submit(write, self._files, table, summary) for table in staged]
        wait(futures)
        metadata_files = [uri for future in futures for uri in future.result()]
        if staged:
            self._files.warehouse.make_durable(*(uri for table in staged for uri in table.written), *metadata_files)

    def _stage_table(
        self, identifier: str, location: str, parts: Sequence[tuple[CommitPlan, TableChange]]
    ) -> StagedTable | None:
        base = self._files.document(location)
        changes = [change if not change.is_repeated else self._remaining(change, location) for _, change in parts]
        summary = _merge_summaries([plan.summary for plan, _ in parts])
        row_changes = [change.rows for change in changes if change.rows is not None]
        if row_changes:
            return stage_rows(self._files, identifier, base, row_changes, summary)
        return stage(
            self._files,
            identifier,
            base,
            FileChange(
                add=[entry.to_iceberg() for change in changes for entry in change.add],
                element_bounds={entry.path: entry.element_bounds for change in changes for entry in change.add},
                delete_sequences=frozenset(
                    change.delete_sequence for change in changes if change.delete_sequence is not None
                ),
                delete_paths=frozenset().union(*(change.replaced for change in changes)),
                paths_lie_in=frozenset(entry.sequence for change in changes for entry in change.add),
                operation=REPLACE if any(change.replaced for change in changes) else None,
                summary=summary,
            ),
        )

    def _remaining(self, change: TableChange, location: str) -> TableChange:
        held = {
            sequence
            for sequence in {entry.sequence for entry in change.add}
            for file in self._index.sequence_files(location, sequence)
            if not file.holds_other_sequences
        }
        return replace(change, add=[entry for entry in change.add if entry.sequence not in held])

    def _swap(self, plans: Mapping[_Request, CommitPlan], staged: Sequence[StagedTable]) -> None:
        """Swap all pointers and apply all plans.

        Raises:
            _ConflictError: If a pointer has moved, or the database chose another transaction over this one.
            _RefusedError: If a plan refused. Nothing has happened then, as after every other error but the next.
            _UnknownOutcomeError: If the database failed when it may have committed already.
        """
        complete = False
        try:
            with self._database.transaction() as connection:
                crash_points.reach("pointer-swap:before")
                # Always in this order, so that two processes wait for one another instead of deadlocking.
                ordered = sorted(staged, key=lambda table: table.identifier)
                self._files.catalog.commit_together(connection, self._files, ordered)
                crash_points.reach("pointer-swap:after")
                crash_points.reach("control-plane-write:before")
                for request, plan in plans.items():
                    _carry_out(request, connection, plan.announce, plan.apply)
                crash_points.reach("control-plane-write:after")
                complete = True
        except CatalogConflictError as error:
            raise _ConflictError from error
        except StorageError as error:
            if is_transient(error.__cause__):
                raise _ConflictError from error
            if complete:
                raise _UnknownOutcomeError from error
            raise
        except BaseException as error:
            if complete:
                raise _UnknownOutcomeError from error
            raise
        crash_points.reach("commit:after")

    def _publish(self, plans: Mapping[_Request, CommitPlan], staged: list[StagedTable]) -> None:
        """Commit to tables that are not in our database, between two transactions that are.

        What is interrupted in between is taken up again by whoever comes next: plans say so when they are announced.

        Args:
            plans: What is announced and applied.
            staged: Of these, what is certain to be unused stays in the list.
        """
        with self._transaction() as connection:
            for request, plan in plans.items():
                _carry_out(request, connection, plan.announce)
        crash_points.reach("announcement:after")
        try:
            commit_stepwise(self._files, staged)
        except CatalogConflictError as error:
            raise _ConflictError from error
        except CatalogUncertainError as error:
            raise StorageError("the catalog failed during the commit; it is taken up again later") from error
        crash_points.reach("control-plane-write:before")
        with self._transaction() as connection:
            for request, plan in plans.items():
                _carry_out(request, connection, plan.apply)
        crash_points.reach("commit:after")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._database.transaction() as connection:
                yield connection
        except StorageError as error:
            if is_transient(error.__cause__):
                raise _ConflictError from error
            raise

    def _has_happened(self, staged: Sequence[StagedTable]) -> bool:
        """Whether the transaction that swapped these pointers was committed; any one of them tells for all."""
        if not staged:
            return False
        table = staged[0]
        with self._database.snapshot() as connection:
            location = self._files.catalog.locations(connection, [table.identifier]).get(table.identifier)
        if location is None or location == table.base_location:
            return False
        log = self._files.document(location).fields.get("metadata-log") or []
        return location == table.new_location or any(e["metadata-file"] == table.new_location for e in log)


def _carry_out(request: _Request, connection: Connection, *parts: Callable[[Connection], None]) -> None:
    try:
        for part in parts:
            part(connection)
    except (LakehouseError, StalePlanError) as error:
        raise _RefusedError(request, error) from error


def is_transient(error: BaseException | None) -> bool:
    """Whether the database gave up in favour of a concurrent transaction, so that trying again makes sense."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _TRANSIENT_SQLSTATES:
        return True
    return isinstance(error, OperationalError) and "locked" in str(error.orig)


def _merge_summaries(summaries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Entries of all plans; where several have the same key, their values separated by a space (no locator has one)."""
    merged: dict[str, list[str]] = {}
    for summary in {id(summary): summary for summary in summaries}.values():
        for key, value in summary.items():
            merged.setdefault(key, []).append(value)
    return {key: " ".join(values) for key, values in merged.items()}
