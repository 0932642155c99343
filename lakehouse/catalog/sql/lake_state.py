"""The tables of one statement, all as they were at one moment: a join must not see half of a session.

Where the pointers to the tables are in our database, they are read in one transaction, as commits move them in one. A
catalog elsewhere is asked twice: when no table has moved between, all of them stood so at the same time.
"""

import random
import time
from collections.abc import Collection
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, RESTError
from pyiceberg.io import load_file_io
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadataUtil

from lakehouse.catalog.errors import CommitConflictError, NotFoundError, StorageError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.proposals import alike, did_you_mean, proposal

# Of a catalog. They are not passed on as causes: an answer that is not understood is in their text.
_FAILURES = (OSError, RESTError, ValueError, NotImplementedError)
_ATTEMPTS = 20
_LONGEST_PAUSE_S = 0.05


def load_together(lake: Lakehouse, catalog: Catalog, names: Collection[str]) -> dict[str, Table]:
    """The states of some tables at one moment.

    Args:
        lake: The lake.
        catalog: The same catalog as PyIceberg sees it.
        names: `namespace.table` of each.

    Raises:
        CommitConflictError: If the tables kept changing while they were looked at.
        NotFoundError: If one does not exist; says which ones are called alike.
        StorageError: If catalog or warehouse fail.
    """
    load = _from_database if lake.table_files.catalog.shares_transactions else _from_catalog
    failure: StorageError | None = None
    for attempt in range(_ATTEMPTS):
        time.sleep(random.uniform(0, _LONGEST_PAUSE_S) if attempt else 0)
        try:
            tables = load(lake, catalog, names)
        except StorageError as error:
            # Of a busy table the metadata may be removed between the look at the pointer and the read. Not twice.
            if failure is not None:
                raise
            failure = error
            continue
        if tables is not None:
            return tables
    raise CommitConflictError("the tables kept changing while they were looked at; try again")


def all_tables(catalog: Catalog) -> list[tuple[str, ...]]:
    """Namespace and name of every table.

    Raises:
        StorageError: If the catalog fails.
    """
    try:
        return [tuple(name) for space in catalog.list_namespaces() for name in catalog.list_tables(space)]
    except _FAILURES as error:
        raise StorageError(f"the catalog failed or cannot be reached ({type(error).__name__})") from None


def no_such_table(catalog: Catalog, name: str) -> NotFoundError:
    """What is said of a table that does not exist, named with or without its namespace."""
    known = sorted(".".join(each) for each in all_tables(catalog))
    own_name = name.rpartition(".")[2].casefold()
    # The namespace is what people leave out, or take for the topic's.
    same = [each for each in known if each.rpartition(".")[2].casefold() == own_name]
    if same:
        return NotFoundError("table", name, did_you_mean(same))
    own_names = {each.rpartition(".")[2]: each for each in reversed(known)}
    if "." in name:
        return NotFoundError("table", name, proposal(name, known))
    return NotFoundError("table", name, did_you_mean([own_names[each] for each in alike(name, own_names)]))


def _from_database(lake: Lakehouse, catalog: Catalog, names: Collection[str]) -> dict[str, Table]:
    files = lake.table_files
    with lake.database.snapshot() as connection:
        locations = files.catalog.locations(connection, names)
    properties = lake.warehouse.iceberg_properties()
    tables = {}
    for name in sorted(names):
        if name not in locations:
            raise no_such_table(catalog, name)
        location = locations[name]
        try:
            metadata = TableMetadataUtil.parse_obj(dict(files.document(location).fields))
        except ValueError as error:
            raise StorageError(f"table {name} cannot be read") from error
        io = load_file_io(properties, location)
        tables[name] = Table(tuple(name.split(".")), metadata, location, io, NoopCatalog("lake"))
    return tables


def _from_catalog(lake: Lakehouse, catalog: Catalog, names: Collection[str]) -> dict[str, Table] | None:
    """None if one of the tables was changed meanwhile."""
    tables = {name: _load(catalog, name) for name in sorted(names)}
    if len(tables) > 1:
        with lake.database.snapshot() as connection:
            now = lake.table_files.catalog.locations(connection, names)
        if any(now.get(name) != table.metadata_location for name, table in tables.items()):
            return None
    return tables


def _load(catalog: Catalog, name: str) -> Any:
    try:
        return catalog.load_table(name)
    except (NoSuchTableError, NoSuchNamespaceError):
        raise no_such_table(catalog, name) from None
    except _FAILURES as error:
        raise StorageError(f"table {name} cannot be read ({type(error).__name__})") from None
