"""Marks on files that nothing refers to any more: they are purged when their retention has passed, not before."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, insert, select

from lakehouse.catalog.control_plane.schema import orphan_files

_BATCH = 400


def mark(connection: Connection, uris: Iterable[str], at_ns: int) -> int:
    """Mark files that are not marked yet; returns how many."""
    pending = sorted(set(uris))
    marked = 0
    for batch in _batches(pending):
        known = set(connection.scalars(select(orphan_files.c.path).where(orphan_files.c.path.in_(batch))))
        rows = [{"path": uri, "marked_at_ns": at_ns} for uri in batch if uri not in known]
        if rows:
            connection.execute(insert(orphan_files), rows)
        marked += len(rows)
    return marked


def mark_anew(connection: Connection, uris: Iterable[str], at_ns: int) -> None:
    """Mark files as of this time, whatever marks somebody left on them while they were in use."""
    pending = sorted(set(uris))
    unmark(connection, pending)
    mark(connection, pending, at_ns)


def unmark(connection: Connection, uris: Iterable[str], until_ns: int | None = None) -> None:
    """Forget marks: the files are gone, or in use again.

    Args:
        connection: Any transaction.
        uris: Whose marks.
        until_ns: Leave those that are younger (Unix nanoseconds): somebody has left the files behind since.
    """
    for batch in _batches(sorted(set(uris))):
        statement = delete(orphan_files).where(orphan_files.c.path.in_(batch))
        if until_ns is not None:
            statement = statement.where(orphan_files.c.marked_at_ns <= until_ns)
        connection.execute(statement)


def marked_files(connection: Connection) -> Mapping[str, int]:
    """When each marked file was marked, Unix nanoseconds."""
    query = select(orphan_files.c.path, orphan_files.c.marked_at_ns)
    return {row.path: row.marked_at_ns for row in connection.execute(query)}


def metadata_files_marked_before(connection: Connection, at_ns: int) -> list[str]:
    """Marked metadata files of tables whose mark is at least as old as a time in Unix nanoseconds."""
    is_metadata = orphan_files.c.path.contains("/metadata/")
    return list(
        connection.scalars(select(orphan_files.c.path).where(orphan_files.c.marked_at_ns <= at_ns, is_metadata))
    )


def _batches(uris: list[str]) -> Iterable[list[str]]:
    return (uris[start : start + _BATCH] for start in range(0, len(uris), _BATCH))
