"""The moment of a commit: staged tables become current, and plans write their rows of the control plane.

Where the table pointers are in our own database that is one transaction; with another catalog it is two, with the
tables in between.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from lakehouse.catalog import crash_points
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError
from lakehouse.catalog.commits.stepwise import commit_stepwise
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import LakehouseError, StorageError
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError, CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableFiles

# PostgreSQL: serialization failure, deadlock detected, lock not available.
_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})


class MovedPointerError(Exception):
    """Another process moved a pointer first."""


class UnknownOutcomeError(Exception):
    """The connection broke while the transaction was being committed."""


class RefusedPlanError(Exception):
    """The `announce` or `apply` of one plan failed."""

    def __init__(self, plan: CommitPlan, reason: LakehouseError | StalePlanError) -> None:
        self.plan = plan
        self.reason = reason


class Publication:
    """Makes staged tables current together with the rows of plans.

    Args:
        database: Holds the control plane, and perhaps the table pointers.
        files: Reads table metadata, and knows the catalog.
    """

    def __init__(self, database: Database, files: TableFiles) -> None:
        self._database = database
        self._files = files

    @property
    def announces(self) -> bool:
        """Whether plans are announced in a transaction of their own, so that others may carry them through."""
        return not self._files.catalog.shares_transactions

    def publish(self, plans: Sequence[CommitPlan], staged: Sequence[StagedTable], unused: list[StagedTable]) -> None:
        """Make all tables current and carry out all plans.

        Args:
            plans: What is announced and applied.
            staged: The tables.
            unused: The same; what is certain to be unused, when an error is raised, stays in the list.

        Raises:
            MovedPointerError: If a pointer has moved, or the database chose another transaction over this one.
            RefusedPlanError: If a plan refused.
            UnknownOutcomeError: If the database failed when it may have committed already; see `has_happened`.
            StorageError: If database or catalog fail.
        """
        if self.announces:
            self._step_by_step(plans, unused)
        else:
            self._at_once(plans, staged)

    def _at_once(self, plans: Sequence[CommitPlan], staged: Sequence[StagedTable]) -> None:
        complete = False
        try:
            with self._database.transaction() as connection:
                crash_points.reach("pointer-swap:before")
                # Always in this order, so that two processes wait for one another instead of deadlocking.
                ordered = sorted(staged, key=lambda table: table.identifier)
                self._files.catalog.commit_together(connection, self._files, ordered)
                crash_points.reach("pointer-swap:after")
                crash_points.reach("control-plane-write:before")
                for plan in plans:
                    _carry_out(plan, connection, plan.announce, plan.apply)
                crash_points.reach("control-plane-write:after")
                complete = True
        except CatalogConflictError as error:
            raise MovedPointerError from error
        except StorageError as error:
            if _is_transient(error.__cause__):
                raise MovedPointerError from error
            if complete:
                raise UnknownOutcomeError from error
            raise
        except BaseException as error:
            if complete:
                raise UnknownOutcomeError from error
            raise
        crash_points.reach("commit:after")

    def _step_by_step(self, plans: Sequence[CommitPlan], staged: list[StagedTable]) -> None:
        """Commit to tables that are not in our database, between two transactions that are.

        What is interrupted in between is taken up again by whoever comes next: plans say so when they are announced.
        """
        with self._transaction() as connection:
            for plan in plans:
                _carry_out(plan, connection, plan.announce)
        crash_points.reach("announcement:after")
        try:
            commit_stepwise(self._files, staged)
        except CatalogConflictError as error:
            raise MovedPointerError from error
        except CatalogUncertainError as error:
            raise StorageError("the catalog failed during the commit; it is taken up again later") from error
        crash_points.reach("control-plane-write:before")
        with self._transaction() as connection:
            for plan in plans:
                _carry_out(plan, connection, plan.apply)
        crash_points.reach("commit:after")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._database.transaction() as connection:
                yield connection
        except StorageError as error:
            if _is_transient(error.__cause__):
                raise MovedPointerError from error
            raise

    def has_happened(self, staged: Sequence[StagedTable]) -> bool:
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


def _carry_out(plan: CommitPlan, connection: Connection, *parts: Callable[[Connection], None]) -> None:
    try:
        for part in parts:
            part(connection)
    except (LakehouseError, StalePlanError) as error:
        raise RefusedPlanError(plan, error) from error


def _is_transient(error: BaseException | None) -> bool:
    """Whether the database gave up in favour of a concurrent transaction, so that trying again makes sense."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _TRANSIENT_SQLSTATES:
        return True
    return isinstance(error, OperationalError) and "locked" in str(error.orig)
