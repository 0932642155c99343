"""Care of the audit log: published for SQL as `mosaico.audit_log`, and removed from the control plane when it is old.

The rows appended to the table and the mark how far the log is published move in one transaction, so that each entry is
published exactly once. Only published entries are ever removed, and the published ones stay.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, select, text, update

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import audit_log, audit_publication
from lakehouse.catalog.errors import CommitConflictError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.system_tables import NUMBER, TEXT, TIME, SystemColumn, SystemTable, SystemTables

AUDIT_LEASE = "audit"
LEASE_DURATION_S = 300.0
ENTRIES_PER_COMMIT = 20_000
NANOSECONDS = 1_000_000_000

AUDIT_LOG = SystemTable(
    "audit_log",
    "Administrative and destructive operations: who did what, when, through which door and from where. Append-only.",
    (
        SystemColumn("id", NUMBER, "Ascending in the order in which operations were recorded."),
        SystemColumn("at", TIME, "When, rounded down to microseconds.", time_of="at_ns"),
        SystemColumn("at_ns", NUMBER, "When, exact. [ns since 1970-01-01 UTC]"),
        SystemColumn("operation", TEXT, "What was done, e.g. sequence_delete."),
        SystemColumn("resource", TEXT, "To what: a locator, a table, the fingerprint of a key."),
        SystemColumn("actor", TEXT, "Who: a user, a key by its fingerprint, a Dagster run."),
        SystemColumn("door", TEXT, "Through what: the gateway, a command, Dagster."),
        SystemColumn("origin", TEXT, "From where: address of the peer, or name of the host."),
        SystemColumn("details", TEXT, "Figures of the operation, JSON."),
    ),
)


@dataclass(frozen=True)
class AuditCounts:
    """Size of the log.

    Attributes:
        entries: In the control plane.
        unpublished: Of these, not in `mosaico.audit_log` yet.
    """

    entries: int = 0
    unpublished: int = 0


@dataclass
class AuditReport:
    """What one run did, or in a dry run would do.

    Attributes:
        published: Entries appended to `mosaico.audit_log`.
        purged: Entries removed from the control plane; the published ones stay.
    """

    dry_run: bool
    before: AuditCounts = field(default_factory=AuditCounts)
    after: AuditCounts = field(default_factory=AuditCounts)
    published: int = 0
    purged: int = 0


def run_audit_care(
    database: Database,
    files: TableFiles,
    committer: Committer,
    settings: Settings,
    dry_run: bool = False,
    now_ns: Callable[[], int] = time.time_ns,
) -> AuditReport | None:
    """Publish new entries and remove those that are past their retention.

    Args:
        database: Control plane and table pointers.
        files: Reads and writes table metadata.
        committer: Of this process.
        settings: `audit_retention_duration`.
        dry_run: Report only.
        now_ns: The clock.

    Returns:
        None if another process is at it.

    Raises:
        StorageError: If database or warehouse fail; what was done until then is complete in itself.
    """
    lease = Lease(database, AUDIT_LEASE, LEASE_DURATION_S)
    if not lease.hold():
        return None
    try:
        retention_s = settings.audit_retention_duration
        limit_ns = now_ns() - retention_s * NANOSECONDS if retention_s else 0
        report = AuditReport(dry_run, before=_count(database))
        if dry_run:
            report.published = report.before.unpublished
            report.purged = _old_entries(database, limit_ns)
            report.after = AuditCounts(report.before.entries - report.purged, 0)
        else:
            report.published = publish_audit_log(database, SystemTables(database, files, committer))
            report.purged = _purge(database, limit_ns)
            report.after = _count(database)
        return report
    finally:
        lease.release()


def publish_audit_log(database: Database, tables: SystemTables) -> int:
    """Append the entries that are new to `mosaico.audit_log`; returns how many.

    Raises:
        StorageError: If database or warehouse fail.
    """
    last_id = _last_complete_id(database)
    published = 0
    while True:
        with database.snapshot() as connection:
            start = connection.execute(select(audit_publication.c.published_through)).scalar_one()
            rows = connection.execute(
                select(audit_log)
                .where(audit_log.c.id > start, audit_log.c.id <= last_id)
                .order_by(audit_log.c.id)
                .limit(ENTRIES_PER_COMMIT)
            ).all()
        if not rows:
            return published
        entries = [dict(row._mapping) for row in rows]

        def advance(connection: Connection, start: int = start, end: int = rows[-1].id) -> None:
            moved = connection.execute(
                update(audit_publication)
                .where(audit_publication.c.published_through == start)
                .values(published_through=end)
            )
            if moved.rowcount != 1:
                raise CommitConflictError("another process has published the audit log meanwhile")

        try:
            tables.append(AUDIT_LOG, entries, advance)
        except CommitConflictError:
            return published
        published += len(rows)


def _last_complete_id(database: Database) -> int:
    """An id up to which no entry can appear any more.

    On PostgreSQL ids are given before transactions end: the lock waits for all that have written to the log.
    """
    with database.transaction() as connection:
        if not database.is_sqlite:
            connection.execute(text("LOCK TABLE audit_log IN SHARE MODE"))
        return connection.scalar(select(func.max(audit_log.c.id))) or 0


def _count(database: Database) -> AuditCounts:
    with database.snapshot() as connection:
        through = connection.execute(select(audit_publication.c.published_through)).scalar_one()
        entries = connection.scalar(select(func.count()).select_from(audit_log)) or 0
        new = connection.scalar(select(func.count()).select_from(audit_log).where(audit_log.c.id > through)) or 0
    return AuditCounts(entries, new)


def _old_entries(database: Database, limit_ns: int) -> int:
    with database.snapshot() as connection:
        return connection.scalar(select(func.count()).select_from(audit_log).where(audit_log.c.at_ns < limit_ns)) or 0


def _purge(database: Database, limit_ns: int) -> int:
    """Remove published entries older than a time; the triggers of the log let no others go."""
    if _old_entries(database, limit_ns) == 0:
        return 0
    with database.transaction() as connection:
        through = connection.execute(select(audit_publication.c.published_through)).scalar_one()
        connection.execute(update(audit_publication).values(purge_before_ns=limit_ns))
        old = delete(audit_log).where(audit_log.c.at_ns < limit_ns, audit_log.c.id <= through)
        purged = connection.execute(old).rowcount
        connection.execute(update(audit_publication).values(purge_before_ns=0))
        audit.record(connection, "audit_purge", AUDIT_LOG.identifier, entries=purged, older_than_ns=limit_ns)
    return purged
