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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError, TableChange
from lakehouse.catalog.commits.plan_staging import PlanStaging
from lakehouse.catalog.commits.publication import MovedPointerError, Publication, RefusedPlanError, UnknownOutcomeError
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.turns import Turns
from lakehouse.catalog.errors import CommitConflictError, StorageError
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_documents import TableFiles

PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.01
# Longer pauses would only let whoever has just won win again.
LONGEST_PAUSE_S = 0.25
MAX_GROUP = 64
# Files staged longer ago (by a process that was suspended, say) may have been collected as orphans.
STAGING_EXPIRES_S = 600.0
_INTERRUPTED = "the commit was interrupted"


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
        self._staging = PlanStaging(files)
        self._publication = Publication(database, files)
        self._patience_s = patience_s
        self._waiting: deque[_Request] = deque()
        self._has_leader = False
        self._changed = threading.Condition()

    @property
    def announces(self) -> bool:
        """Whether plans are announced in a transaction of their own, so that others may carry them through."""
        return self._publication.announces

    def close(self) -> None:
        self._staging.close()

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
            try:
                while self._has_leader and not request.done:
                    self._changed.wait()
            except BaseException:
                self._withdraw(request)
                raise
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
                self._withdraw(own)
                for request in group:
                    if not request.done:
                        request.finish(StorageError(_INTERRUPTED))
                self._has_leader = False
                self._changed.notify_all()

    def _withdraw(self, request: _Request) -> None:
        """Of a caller that was interrupted: nobody else is to commit what it believes was not."""
        if request in self._waiting:
            self._waiting.remove(request)
            request.finish(StorageError(_INTERRUPTED))

    def _commit_group(self, group: Sequence[_Request]) -> None:
        pause = FIRST_PAUSE_S
        while plans := self._prepare(group):
            try:
                changed = self._attempt(plans)
            except RefusedPlanError as refusal:
                refused = next(request for request, plan in plans.items() if plan is refusal.plan)
                if isinstance(refusal.reason, StalePlanError):
                    refused.give_up_when_late()
                else:
                    refused.finish(refusal.reason)
            except MovedPointerError:
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
        changes: dict[str, list[tuple[CommitPlan, TableChange]]] = {}
        for plan in plans.values():
            for change in plan.changes:
                changes.setdefault(change.identifier, []).append((plan, change))
        with self._database.snapshot() as connection:
            pointers = self._files.catalog.locations(connection, changes)
        staged: list[StagedTable] = []
        unused: list[StagedTable] = staged
        started = time.time()
        try:
            self._staging.stage(changes, pointers, staged)
            if time.time() - started > STAGING_EXPIRES_S:
                raise MovedPointerError
            unused = list(staged)
            self._publication.publish(list(plans.values()), staged, unused)
        except UnknownOutcomeError as error:
            # The files may be in use by now: they must stay, and what happened is read from the pointers.
            if not self._publication.has_happened(staged):
                raise StorageError("the database failed during the commit") from error
        except Exception:
            # Not after an interruption from the keyboard: it may come when the transaction is over.
            self._files.warehouse.discard([uri for table in unused for uri in table.everything])
            raise
        return [table.identifier for table in staged]
