"""Maintenance in the background of a process that commits."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from lakehouse.catalog import audit
from lakehouse.catalog.activity import Activity
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import LakehouseError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.recording import recorded_at_the_end
from lakehouse.catalog.maintenance.upkeep import Upkeep, UpkeepResult, logged_failure
from lakehouse.catalog.settings import Settings

MAINTENANCE_LEASE = "maintenance"
LEASE_DURATION_S = 60.0
# Commits come in bursts; looking at a table once after several of them is enough.
SETTLING_PAUSE_S = 1.0
BUSY_PAUSE_S = 2.0
# Tables that other processes changed are found by their pointers.
POLL_INTERVAL_S = 60.0
SHORTEST_PURGE_INTERVAL_S = 5.0
PURGE_BATCH = 2000
LOOKED_AT_ONCE = 128
_JOIN_TIMEOUT_S = 60.0
# Who it is in the audit log, where nobody else has asked for it.
ACTOR, DOOR = "maintenance", "background"
# An entry of the audit log names so many tables at most; their number is always there.
MOST_TABLES_NAMED = 50

logger = logging.getLogger(__name__)


class MaintenanceWorker:
    """A thread that looks after tables which have just been changed, and runs the cleanup cycle when it is time.

    Of several processes one works at a time; what the others were told waits until it is their turn.

    Args:
        database: Control plane and table pointers.
        files: Reads and writes table metadata.
        committer: Of this process; give `notify` to its `on_commit`.
        settings: See `Upkeep` and `run_cleanup_cycle`; `cleanup_time_interval` 0 means no cycles.
        activity: Counts what was done.
    """

    def __init__(
        self,
        database: Database,
        files: TableFiles,
        committer: Committer,
        settings: Settings,
        activity: Activity | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self._database = database
        self._files = files
        self._committer = committer
        self._settings = settings
        self._upkeep = Upkeep(database, files, committer, settings)
        self._lease = Lease(database, MAINTENANCE_LEASE, LEASE_DURATION_S)
        self._changed = threading.Condition()
        self._pending: set[str] = set()
        self._next_purge = float("inf")
        self._seen: dict[str, str] = {}
        self._next_poll = time.monotonic()
        self._stopping = False
        self._thread: threading.Thread | None = None
        interval_s = settings.cleanup_time_interval
        self._next_cycle = time.monotonic() + interval_s if interval_s else float("inf")

    def start(self) -> None:
        """Start the thread. A cleanup cycle runs after each interval, not at the start."""
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the step that is running end, and no other begin."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT_S)

    def notify(self, identifiers: Iterable[str]) -> None:
        """Tell which tables were changed; returns at once."""
        with self._changed:
            self._pending.update(identifiers)
            self._changed.notify_all()

    def run_pending(self) -> None:
        """Look after the tables that were changed, in the calling thread: for processes that end after their commits.

        Does nothing while another process is at it; that one finds the changed tables by itself.
        """
        try:
            due = self._take_due_tables()
            if due and self._lease.hold():
                try:
                    self._maintain_all(due)
                finally:
                    self._lease.release()
        except LakehouseError as error:
            # The commits are done and stay; whoever comes next maintains these tables too.
            logger.warning("maintenance failed and will be tried again: %s", error)

    def run(self, identifiers: Iterable[str]) -> UpkeepResult:
        """Maintain these tables now, in the calling thread, whoever else is at it.

        Raises:
            StorageError: If database or warehouse fail.
        """
        done: dict[str, UpkeepResult] = {}
        with recorded_at_the_end(lambda: self._record_expiry(done)):
            for identifier in identifiers:
                done[identifier] = self._maintain(identifier)
        return sum(done.values(), start=UpkeepResult())

    def _run(self) -> None:
        with audit.acting_as(ACTOR, door=DOOR):
            self._work_until_stopped()

    def _work_until_stopped(self) -> None:
        while self._wait_for_work():
            try:
                self._work()
            except LakehouseError as error:
                self._activity.add(maintenance_failures=1)
                logger.warning("maintenance failed and will be tried again: %s", error)
                self._pause(BUSY_PAUSE_S)
            except Exception:
                self._activity.add(maintenance_failures=1)
                logger.exception("maintenance failed")
                self._pause(BUSY_PAUSE_S)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._stopping:
                timeout = self._next_due() - time.monotonic()
                if self._pending or timeout <= 0:
                    break
                self._changed.wait(timeout)
        return self._pause(SETTLING_PAUSE_S)

    def _next_due(self) -> float:
        return min(self._next_cycle, self._next_poll, self._next_purge)

    def _pause(self, seconds: float) -> bool:
        """Wait; False if the worker is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
            return not self._stopping

    def _work(self) -> None:
        due = self._take_due_tables()
        purges = time.monotonic() >= self._next_purge
        if due or purges:
            if not self._lease.hold():
                self.notify(due)
                self._pause(BUSY_PAUSE_S)
                return
            try:
                self._maintain_all(due)
                if purges:
                    purged = self._upkeep.purge_metadata(limit=PURGE_BATCH).purged_metadata_files
                    self._activity.add(purged_files=purged)
                    if purged:
                        self._record("metadata_purge", purged_metadata_files=purged)
                    # Where there was something, younger marks may be waiting for their turn.
                    self._next_purge = self._purge_time() if purged else float("inf")
                    if purged >= PURGE_BATCH:
                        self._next_purge = time.monotonic()
            finally:
                self._lease.release()
        if time.monotonic() >= self._next_cycle:
            self._next_cycle = time.monotonic() + self._settings.cleanup_time_interval
            report = run_cleanup_cycle(self._database, self._files, self._committer, self._settings)
            logger.info("cleanup cycle: %s", report or "another process is at it")
            run_audit_care(self._database, self._files, self._committer, self._settings)
            if report is not None:
                self._activity.add(
                    cleanup_cycles=1,
                    expired_snapshots=report.upkeep.expired_snapshots,
                    purged_files=report.orphans.purged + report.upkeep.purged_metadata_files,
                )

    def _take_due_tables(self) -> list[str]:
        """Tables that need work; the rest of those that were changed is forgotten without taking the lease."""
        now = time.monotonic()
        with self._changed:
            changed, self._pending = self._pending, set()
        polls = now >= self._next_poll
        try:
            with self._database.snapshot() as connection:
                pointers = self._files.catalog.locations(connection, None if polls else changed)
        except LakehouseError:
            self.notify(changed)
            raise
        if polls:
            self._next_poll = now + POLL_INTERVAL_S
            # Tables whose maintenance is due, or failed, are not entered: the next poll looks at them again.
            self._seen = {name: place for name, place in self._seen.items() if pointers.get(name) == place}
        unseen = [(name, place) for name, place in sorted(pointers.items()) if self._seen.get(name) != place]
        due = []
        # A process that has just started has seen none of them.
        for start in range(0, len(unseen), LOOKED_AT_ONCE):
            group = unseen[start : start + LOOKED_AT_ONCE]
            for (name, place), is_due in zip(group, self._files.at_once(self._is_due, group), strict=True):
                if is_due:
                    due.append(name)
                elif is_due is not None:
                    self._seen[name] = place
        return due

    def _is_due(self, table: tuple[str, str]) -> bool | None:
        """None if it cannot be told."""
        name, place = table
        with logged_failure(name):
            return self._upkeep.is_due(self._files.document(place))
        return None

    def _maintain_all(self, identifiers: list[str]) -> None:
        done: dict[str, UpkeepResult] = {}
        with recorded_at_the_end(lambda: self._record_expiry(done)):
            for position, identifier in enumerate(identifiers):
                if not self._pause(0) or not self._lease.hold():
                    self.notify(identifiers[position:])
                    return
                with logged_failure(identifier):
                    done[identifier] = self._maintain(identifier)

    def _maintain(self, identifier: str) -> UpkeepResult:
        result = self._upkeep.maintain(identifier)
        self._activity.add(expired_snapshots=result.expired_snapshots)
        if result.expired_snapshots:
            # What expiry leaves behind is purged when its readers have had time to finish.
            self._next_purge = min(self._next_purge, self._purge_time())
        return result

    def _record_expiry(self, done: Mapping[str, UpkeepResult]) -> None:
        """One entry for all tables of a run: an expired snapshot can be travelled to no more."""
        expired = {name: result.expired_snapshots for name, result in done.items() if result.expired_snapshots}
        if expired:
            named = sorted(expired)[:MOST_TABLES_NAMED]
            figures = {"expired_snapshots": sum(expired.values()), "tables": len(expired), "names": named}
            self._record("snapshot_expiry", **figures)

    def _record(self, operation: str, **figures: Any) -> None:
        with self._database.transaction() as connection:
            audit.record(connection, operation, "lake", **figures)

    def _purge_time(self) -> float:
        return time.monotonic() + max(self._settings.snapshot_min_age, SHORTEST_PURGE_INTERVAL_S)
