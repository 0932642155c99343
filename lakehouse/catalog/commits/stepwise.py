"""Commits to several tables of a catalog that is not in our database: together where it can, else one by one.

One by one, the row that makes a session known (`mosaico.sessions`) moves last when something is added and first when it
is deleted: whoever reads the tables alone never takes half a session for a whole one.
"""

from lakehouse.catalog import crash_points
from lakehouse.catalog.iceberg.identifiers import METADATA_NAMESPACE
from lakehouse.catalog.iceberg.staging import StagedTable
from lakehouse.catalog.iceberg.table_catalog import CatalogUncertainError
from lakehouse.catalog.iceberg.table_documents import TableFiles

SESSION_SUMMARY = "mosaico.session"
DELETION_SUMMARY = "mosaico.deleted"
_SESSIONS = f"{METADATA_NAMESPACE}.sessions"


def commit_stepwise(files: TableFiles, staged: list[StagedTable]) -> None:
    """Move every table to its staged state.

    Args:
        files: Reads table metadata, and knows the catalog.
        staged: What is certain to be unused, when an error is raised, stays in the list.

    Raises:
        CatalogConflictError: If a table has moved meanwhile. Those before it are committed.
        CatalogUncertainError: If nobody knows what has happened.
        StorageError: If the catalog refuses.
    """
    catalog = files.catalog
    ordered = sorted(staged, key=_rank)
    crash_points.reach("table-commit:before")
    # A server may have carried out a part of what it reports as failed.
    staged.clear()
    if catalog.commit_together(None, files, ordered):
        crash_points.reach("table-commit:after")
        return
    staged.extend(ordered)
    for table in ordered:
        try:
            catalog.commit(None, files, table)
        except CatalogUncertainError:
            staged.remove(table)
            raise
        staged.remove(table)
        crash_points.reach("table-commit:after")


def _rank(table: StagedTable) -> tuple[int, str]:
    summary = (table.snapshot or {}).get("summary", {})
    if not table.identifier.startswith(f"{METADATA_NAMESPACE}."):
        return 1, table.identifier
    if DELETION_SUMMARY in summary and SESSION_SUMMARY not in summary:
        return 0, table.identifier
    return (3 if table.identifier == _SESSIONS else 2), table.identifier
