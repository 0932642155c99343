"""Rebuilding the control plane: every table registered and every finalized session back, in one transaction."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.table import StaticTable
from sqlalchemy import Connection, exists, select, text

from lakehouse.catalog import audit
from lakehouse.catalog.commits.metadata_tables import METADATA_TABLES, SESSIONS
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.schema import sequences
from lakehouse.catalog.errors import ConfigurationError, StateError
from lakehouse.catalog.iceberg.sql_catalog import insert_namespace, insert_pointer, read_pointers, split_identifier
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import TAG_PROPERTY
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.rebuild.control_rows import RestoredRows, restore_rows
from lakehouse.catalog.rebuild.found_tables import FoundTables, find_tables

REBUILD_LEASE = "rebuild"
LEASE_DURATION_S = 600.0
_PROGRESS_STEP = 100


@dataclass
class RebuildReport:
    """What was restored, or would be in a dry run.

    Attributes:
        tables: Tables registered.
        rows: What was added to the control plane.
        undone: Tables whose newest files belong to a commit that never happened.
        damaged: Tables of which no state could be read.
    """

    dry_run: bool
    tables: int = 0
    rows: RestoredRows = field(default_factory=RestoredRows)
    undone: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


class _RehearsalError(Exception):
    """Ends the transaction of a dry run."""


def rebuild(
    database: Database,
    files: TableFiles,
    *,
    add_missing: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[str], None] = lambda _text: None,
) -> RebuildReport:
    """Restore everything finalized from the warehouse alone.

    Args:
        database: Migrated, and empty but for `add_missing`.
        files: Reads table metadata.
        add_missing: Restore into a control plane that is in use: what it has is left alone.
        dry_run: Report only. What would come back into an empty database is tried on one that is thrown away, so that
            the control plane may hold anything; with `add_missing`, what this one lacks.
        on_progress: Told what is going on, now and then.

    Raises:
        StateError: If the control plane is not empty, or another process is rebuilding it.
        StorageError: If database or warehouse fail; nothing is changed then.
    """
    if dry_run and not add_missing:
        with _scratch_database() as scratch:
            return _rebuild(scratch, files, Lease(scratch, REBUILD_LEASE, LEASE_DURATION_S), False, True, on_progress)
    lease = Lease(database, REBUILD_LEASE, LEASE_DURATION_S)
    if not lease.hold():
        raise StateError("another process is rebuilding this control plane")
    try:
        return _rebuild(database, files, lease, add_missing, dry_run, on_progress)
    finally:
        lease.release()


@contextmanager
def _scratch_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="lakehouse-rebuild-") as directory:
        database = Database(f"sqlite:///{directory}/lakehouse.db")
        try:
            migrate(database)
            yield database
        finally:
            database.close()


def _rebuild(
    database: Database,
    files: TableFiles,
    lease: Lease,
    add_missing: bool,
    dry_run: bool,
    on_progress: Callable[[str], None],
) -> RebuildReport:
    with database.snapshot() as connection:
        _check_empty(connection, add_missing)

    def looked_at(tables: int) -> None:
        if tables % _PROGRESS_STEP == 0:
            on_progress(f"{tables:,} tables looked at")
            lease.hold()

    found = find_tables(files, looked_at) if files.catalog.shares_transactions else _registered(database, files)
    on_progress(f"{len(found.documents):,} tables found")
    report = RebuildReport(dry_run, undone=found.undone, damaged=found.damaged)
    try:
        with database.transaction() as connection:
            if not database.is_sqlite:
                # Nobody writes meanwhile; on SQLite nobody can.
                connection.execute(text("LOCK TABLE sequences, iceberg_tables IN SHARE ROW EXCLUSIVE MODE"))
            _check_empty(connection, add_missing)
            pointers = read_pointers(connection)
            if files.catalog.shares_transactions:
                report.tables = _register(connection, found, pointers)
            locations = {name: document.metadata_location for name, document in found.documents.items()} | pointers
            published = {name: _rows(files, locations.get(name)) for name in METADATA_TABLES}
            report.rows = restore_rows(connection, published, locations, _every(_PROGRESS_STEP, on_progress))
            rows = report.rows
            audit.record(
                connection, "rebuild", "lake", tables=report.tables, sessions=rows.sessions, topics=rows.topics
            )
            if dry_run:
                raise _RehearsalError
    except _RehearsalError:
        pass
    return report


def _every(step: int, on_progress: Callable[[str], None]) -> Callable[[str, int], None]:
    def told(kind: str, done: int) -> None:
        if done % step == 0:
            on_progress(f"{done:,} {kind} restored")

    return told


def _check_empty(connection: Connection, add_missing: bool) -> None:
    if not add_missing and not is_empty(connection):
        raise StateError(
            "the control plane is not empty: rebuild restores a database that was lost; "
            "to add only what this one lacks, say so (--add-missing)"
        )


def is_empty(connection: Connection) -> bool:
    """Whether the control plane knows no sequence and no table."""
    return not connection.scalar(select(exists(select(sequences.c.id)))) and not read_pointers(connection)


def _registered(database: Database, files: TableFiles) -> FoundTables:
    """The tables of a catalog that was not lost, for it is not in our database."""
    with database.snapshot() as connection:
        locations = files.catalog.locations(connection)
    return FoundTables({identifier: files.document(location) for identifier, location in locations.items()})


def _register(connection: Connection, found: FoundTables, pointers: Mapping[str, str]) -> int:
    registered = 0
    for identifier, document in sorted(found.documents.items()):
        if identifier in pointers:
            continue
        tag = document.properties.get(TAG_PROPERTY)
        insert_namespace(connection, split_identifier(identifier)[0], {} if tag is None else {TAG_PROPERTY: tag})
        registered += insert_pointer(connection, identifier, document.metadata_location)
    return registered


def _rows(files: TableFiles, location: str | None) -> list[dict[str, Any]]:
    if location is None:
        return []
    table = StaticTable.from_metadata(location, files.warehouse.iceberg_properties())
    rows: list[dict[str, Any]] = table.scan().to_arrow().to_pylist()
    return rows


def refuse_lost_database(database: Database, files: TableFiles) -> None:
    """Stop before an empty database is filled beside a warehouse that is not: the two would never fit together again.

    Raises:
        ConfigurationError: If the database is empty and the warehouse holds finalized sessions.
    """
    with database.snapshot() as connection:
        if not is_empty(connection):
            return
        if not files.catalog.shares_transactions:
            location = files.catalog.locations(connection, [SESSIONS]).get(SESSIONS)
            is_lost = bool(_rows(files, location))
        else:
            directory = f"{files.warehouse.uri}/{SESSIONS.replace('.', '/')}/metadata"
            is_lost = next(files.warehouse.list_files(directory), None) is not None
    if is_lost:
        raise ConfigurationError(
            "the database is empty but the warehouse is not: point MOSAICOD_DB_URL to the database of this warehouse, "
            "or if that is lost restore it with `lakehouse rebuild`"
        )
