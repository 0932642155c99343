"""Which catalog keeps the tables."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.catalog import Catalog

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.errors import CommitConflictError
from lakehouse.catalog.iceberg.sql_catalog import SqlTableCatalog, open_sql_catalog
from lakehouse.catalog.iceberg.table_catalog import TableCatalog
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse

FIRST_COMMITS_LEASE = "first commits to tables"
# Longer than one request to the catalog may take.
LEASE_DURATION_S = 120.0
_PATIENCE_S = 180.0
_PAUSE_S = 0.05


def open_catalog(settings: Settings, warehouse: Warehouse, database: Database) -> TableCatalog:
    """The catalog that the settings name.

    Raises:
        ConfigurationError: If it cannot be reached, or refuses.
    """
    if not settings.catalog_uri:
        return SqlTableCatalog()
    # Imported where it is used: most lakes need no client for it.
    from lakehouse.catalog.iceberg.rest_catalog import RestTableCatalog

    return RestTableCatalog.open(settings, warehouse.iceberg_properties(), lambda: _turn(database))


def open_pyiceberg_catalog(settings: Settings, warehouse: Warehouse, database: Database) -> Catalog:
    """The same catalog as PyIceberg sees it: for queries and tools, not for our commits. To be closed.

    Raises:
        ConfigurationError: If it cannot be reached, or refuses.
    """
    if not settings.catalog_uri:
        return open_sql_catalog(database, warehouse)
    # With all snapshots of its tables.
    from lakehouse.catalog.iceberg.rest_client import connect

    return connect(settings, warehouse.iceberg_properties())


@contextmanager
def _turn(database: Database) -> Iterator[None]:
    lease = Lease(database, FIRST_COMMITS_LEASE, LEASE_DURATION_S)
    deadline = time.monotonic() + _PATIENCE_S
    while not lease.hold():
        if time.monotonic() > deadline:
            raise CommitConflictError("other writers kept creating tables; try again later")
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        lease.release()
