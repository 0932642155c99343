"""The Iceberg SQL catalog `lake`: table pointers in the control-plane database.

Every table's state is one row of `iceberg_tables` that points to a metadata file. These functions read and swap the
rows inside transactions of the control plane; other engines open the same rows as a SQL (JDBC) catalog named `lake`.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables, SqlCatalog, SqlCatalogBaseTable
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog import crash_points
from lakehouse.catalog.control_plane.database import SQLITE_BUSY_TIMEOUT_S, Database
from lakehouse.catalog.iceberg.table_catalog import CatalogConflictError
from lakehouse.catalog.storage import Warehouse

if TYPE_CHECKING:
    from lakehouse.catalog.iceberg.staging import StagedTable
    from lakehouse.catalog.iceberg.table_documents import TableFiles

CATALOG_NAME = "lake"
# The catalog's column for property values is this wide on PostgreSQL.
_MAX_PROPERTY_LENGTH = 1000
_LOOKUP_BATCH = 400

_pointers = SqlCatalogBaseTable.metadata.tables[IcebergTables.__tablename__]
_namespaces = SqlCatalogBaseTable.metadata.tables[IcebergNamespaceProperties.__tablename__]


# Built once: SQLAlchemy spends more time on building and hashing a statement than on running this one.
_SWAP = (
    update(_pointers)
    .where(
        _pointers.c.catalog_name == CATALOG_NAME,
        _pointers.c.table_namespace == bindparam("namespace"),
        _pointers.c.table_name == bindparam("name"),
        _pointers.c.metadata_location == bindparam("old"),
    )
    .values(metadata_location=bindparam("new"), previous_metadata_location=bindparam("old"))
)


def open_sql_catalog(database: Database, warehouse: Warehouse) -> SqlCatalog:
    """The catalog as PyIceberg sees it, with an engine of its own; for queries and tools, not for our commits."""
    uri = database.url
    if database.is_sqlite:
        uri += f"{'&' if '?' in uri else '?'}timeout={SQLITE_BUSY_TIMEOUT_S}"
    return SqlCatalog(CATALOG_NAME, uri=uri, warehouse=warehouse.uri, **warehouse.iceberg_properties())


def split_identifier(identifier: str) -> tuple[str, str]:
    """Namespace and table name of `namespace.table`."""
    namespace, _, name = identifier.rpartition(".")
    return namespace, name


def read_pointers(connection: Connection, identifiers: Iterable[str] | None = None) -> dict[str, str]:
    """Metadata locations by identifier; tables that do not exist are absent.

    Args:
        connection: Any transaction.
        identifiers: Which tables; None: all.
    """
    query = select(_pointers.c.table_namespace, _pointers.c.table_name, _pointers.c.metadata_location).where(
        _pointers.c.catalog_name == CATALOG_NAME, _pointers.c.metadata_location.is_not(None)
    )
    if identifiers is None:
        rows = connection.execute(query).all()
    else:
        rows = []
        keys = sorted({split_identifier(identifier) for identifier in identifiers})
        columns = tuple_(_pointers.c.table_namespace, _pointers.c.table_name)
        for start in range(0, len(keys), _LOOKUP_BATCH):
            batch = keys[start : start + _LOOKUP_BATCH]
            rows.extend(connection.execute(query.where(columns.in_(batch))).all())
    return {f"{row.table_namespace}.{row.table_name}": row.metadata_location for row in rows}


def swap_pointers(connection: Connection, staged: Sequence["StagedTable"]) -> bool:
    """Point tables to new metadata files, each provided that it still points to the old one; in the order given.

    Returns:
        False if another commit (or a drop) of one of them came first; the transaction has to be rolled back then.
    """
    moves = []
    for table in staged:
        namespace, name = split_identifier(table.identifier)
        moves.append({"namespace": namespace, "name": name, "old": table.base_location, "new": table.new_location})
    # All of them in one round trip to the server: it is asked for the next before it has answered for the last.
    return not moves or connection.execute(_SWAP, moves).rowcount == len(moves)


def insert_pointer(connection: Connection, identifier: str, location: str) -> bool:
    """Register a new table; False if the name is taken. The transaction stays usable either way."""
    namespace, name = split_identifier(identifier)
    try:
        with connection.begin_nested():
            connection.execute(
                insert(_pointers).values(
                    catalog_name=CATALOG_NAME,
                    table_namespace=namespace,
                    table_name=name,
                    metadata_location=location,
                    previous_metadata_location=None,
                    iceberg_type="TABLE",
                )
            )
    except IntegrityError:
        return False
    return True


def delete_pointer(connection: Connection, identifier: str, location: str) -> bool:
    """Drop a table from the catalog, provided that it still points to `location`. No file is touched."""
    deleted = connection.execute(delete(_pointers).where(*_is(identifier), _pointers.c.metadata_location == location))
    return deleted.rowcount == 1


def hold_pointer(connection: Connection, identifier: str) -> str | None:
    """Metadata location of a table, which cannot be dropped before this transaction ends; None if there is no table.

    Commits are not held up.
    """
    query = select(_pointers.c.metadata_location).where(*_is(identifier)).with_for_update(read=True, key_share=True)
    return connection.scalar(query)


def namespace_properties(connection: Connection, namespace: str) -> dict[str, str]:
    query = select(_namespaces.c.property_key, _namespaces.c.property_value).where(
        _namespaces.c.catalog_name == CATALOG_NAME, _namespaces.c.namespace == namespace
    )
    return {row.property_key: row.property_value for row in connection.execute(query)}


def insert_namespace(connection: Connection, namespace: str, properties: Mapping[str, str]) -> bool:
    """Create a namespace; False if any of the properties is set already. The transaction stays usable either way."""
    rows = [
        {
            "catalog_name": CATALOG_NAME,
            "namespace": namespace,
            "property_key": key,
            "property_value": value[:_MAX_PROPERTY_LENGTH],
        }
        # Readers take this property as the sign that a namespace exists.
        for key, value in {"exists": "true", **properties}.items()
    ]
    try:
        with connection.begin_nested():
            connection.execute(insert(_namespaces), rows)
    except IntegrityError:
        return False
    return True


class SqlTableCatalog:
    """The `TableCatalog` whose pointers are in the control-plane database."""

    shares_transactions = True

    def locations(self, connection: Connection, identifiers: Iterable[str] | None = None) -> dict[str, str]:
        return read_pointers(connection, identifiers)

    def namespace_properties(self, connection: Connection, namespace: str) -> dict[str, str]:
        return namespace_properties(connection, namespace)

    def create_namespace(self, connection: Connection, namespace: str, properties: Mapping[str, str]) -> bool:
        return insert_namespace(connection, namespace, properties)

    def create_table(self, database: Database, warehouse: Warehouse, identifier: str, metadata: TableMetadata) -> bool:
        location = f"{metadata.location}/metadata/00000-{uuid.uuid4()}.metadata.json"
        with warehouse.open_output(location) as stream:
            stream.write(metadata.model_dump_json().encode())
        warehouse.make_durable(location)
        with database.transaction() as connection:
            created = insert_pointer(connection, identifier, location)
        if not created:
            warehouse.discard([location])
        return created

    def hold(self, connection: Connection, identifier: str) -> str | None:
        return hold_pointer(connection, identifier)

    def drop_table(self, connection: Connection, identifier: str, location: str) -> bool:
        return delete_pointer(connection, identifier, location)

    def write_metadata(self, files: "TableFiles", staged: "StagedTable", summary: Mapping[str, str]) -> list[str]:
        if staged.snapshot is not None:
            staged.snapshot["summary"].update(summary)
        crash_points.reach("metadata-write:before")
        document = files.write_document(staged.new_location, staged.fields)
        crash_points.reach("metadata-write:after")
        if staged.snapshot is not None:
            files.remember(staged.new_location, document, staged.snapshot["manifest-list"], staged.manifests)
        return [staged.new_location]

    def commit(self, connection: Connection | None, files: "TableFiles", staged: "StagedTable") -> None:
        self.commit_together(connection, files, [staged])

    def commit_together(
        self, connection: Connection | None, files: "TableFiles", staged: Sequence["StagedTable"]
    ) -> bool:
        del files
        assert connection is not None, "pointers move in a transaction"
        if not swap_pointers(connection, staged):
            raise CatalogConflictError
        return True


def _is(identifier: str) -> tuple[ColumnElement[bool], ...]:
    namespace, name = split_identifier(identifier)
    return (
        _pointers.c.catalog_name == CATALOG_NAME,
        _pointers.c.table_namespace == namespace,
        _pointers.c.table_name == name,
    )
