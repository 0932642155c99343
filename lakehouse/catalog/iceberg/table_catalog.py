"""What the lake needs of an Iceberg catalog: where each table's current metadata is, and to move it on.

Two catalogs fit: the SQL catalog in the control-plane database (`sql_catalog.py`), whose pointers move in the
transaction of our own records, and any that speaks the Iceberg REST protocol (`rest_catalog.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import Connection

if TYPE_CHECKING:
    from lakehouse.catalog.control_plane.database import Database
    from lakehouse.catalog.iceberg.staging import StagedTable
    from lakehouse.catalog.iceberg.table_documents import TableFiles
    from lakehouse.catalog.storage import Warehouse


class CatalogConflictError(Exception):
    """A table was changed by somebody else since the change was staged; nothing was done to it."""


class CatalogUncertainError(Exception):
    """The catalog failed when it may have carried out the change already."""


def changing(catalog: "TableCatalog", database: "Database") -> AbstractContextManager[Connection]:
    """A transaction in which the catalog, and nothing else, is changed.

    One that keeps its pointers elsewhere is asked over the network, and nobody is held up meanwhile: on SQLite there is
    one writer at a time.
    """
    return database.transaction() if catalog.shares_transactions else database.snapshot()


class TableCatalog(Protocol):
    """Pointers to the current metadata file of each table.

    Methods take the transaction they belong to, where there is one; a catalog that keeps its pointers elsewhere has no
    use for it. All of them raise `StorageError` when the catalog fails.
    """

    @property
    def shares_transactions(self) -> bool:
        """Whether pointers move in the transaction that they are given, together with our own records."""
        ...

    def locations(self, connection: Connection, identifiers: Iterable[str] | None = None) -> dict[str, str]:
        """Metadata locations by identifier; tables that do not exist are absent. None: of all tables."""
        ...

    def namespace_properties(self, connection: Connection, namespace: str) -> dict[str, str]:
        """Properties of a namespace; empty when it does not exist."""
        ...

    def create_namespace(self, connection: Connection, namespace: str, properties: Mapping[str, str]) -> bool:
        """Create a namespace; False if it exists. The transaction stays usable either way."""
        ...

    def create_table(
        self, database: "Database", warehouse: "Warehouse", identifier: str, metadata: TableMetadata
    ) -> bool:
        """Create an empty table, in a transaction of its own; False if the name is taken.

        Args:
            database: Of the control plane.
            warehouse: Where its first metadata file goes, if the catalog leaves writing it to us.
            identifier: `namespace.table`.
            metadata: Schema, partitioning, order and properties; a catalog may choose field ids and place by itself.
        """
        ...

    def hold(self, connection: Connection, identifier: str) -> str | None:
        """Location of a table that cannot be dropped by us before this transaction ends; None if there is no table."""
        ...

    def drop_table(self, connection: Connection, identifier: str, location: str) -> bool:
        """Drop a table that is still in this state, no file is touched; False if it is not, or never dropped by us."""
        ...

    def write_metadata(self, files: "TableFiles", staged: "StagedTable", summary: Mapping[str, str]) -> list[str]:
        """Complete what is staged, with more entries for the summary of its snapshot; returns URIs of files written."""
        ...

    def commit(self, connection: Connection | None, files: "TableFiles", staged: "StagedTable") -> None:
        """Move one table to its staged state; a catalog that shares transactions needs one.

        Raises:
            CatalogConflictError: If it has moved meanwhile.
            CatalogUncertainError: If nobody knows whether it happened.
        """
        ...

    def commit_together(
        self, connection: Connection | None, files: "TableFiles", staged: Sequence["StagedTable"]
    ) -> bool:
        """Move several tables at once; False, and nothing is done, if the catalog has no way to.

        Raises:
            CatalogConflictError: If one has moved meanwhile.
            CatalogUncertainError: If nobody knows whether it happened.
        """
        ...
