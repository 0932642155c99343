"""Append-only tables `mosaico.*` in which the system itself keeps records for SQL: verdicts, audit entries.

Like the metadata tables they are small and unpartitioned: each append is one small file, merged in size classes by
maintenance, which also expires their snapshots. A table is created with its first row.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.types import BooleanType, DoubleType, IcebergType, LongType, NestedField, StringType, TimestamptzType
from sqlalchemy import Connection

from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.metadata_tables import METADATA_PROPERTY
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.iceberg.arrow_schemas import arrow_schema
from lakehouse.catalog.iceberg.identifiers import METADATA_NAMESPACE
from lakehouse.catalog.iceberg.row_changes import RowChange
from lakehouse.catalog.iceberg.table_catalog import changing
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import MAINTENANCE_PROPERTIES, create_table

TEXT, NUMBER, REAL, FLAG, TIME = StringType(), LongType(), DoubleType(), BooleanType(), TimestamptzType()


@dataclass(frozen=True)
class SystemColumn:
    """One column.

    Attributes:
        name: As SQL knows it.
        type: `TEXT`, `NUMBER` (64 bits), `REAL`, `FLAG`, or `TIME` (microseconds, UTC).
        doc: What SQL shows as its comment, with the unit.
        required: Whether every row has a value.
        time_of: For a `TIME` column: the `NUMBER` column, in ns since 1970, that it is derived from.
    """

    name: str
    type: IcebergType
    doc: str
    required: bool = True
    time_of: str | None = None


@dataclass(frozen=True)
class SystemTable:
    """One table.

    Attributes:
        name: Without the namespace, e.g. `validation_results`.
        doc: What it holds, in one sentence.
        columns: In order. New releases may only append optional ones.
    """

    name: str
    doc: str
    columns: tuple[SystemColumn, ...]

    @property
    def identifier(self) -> str:
        return f"{METADATA_NAMESPACE}.{self.name}"

    @property
    def iceberg_schema(self) -> Schema:
        return Schema(
            *(
                NestedField(number, column.name, column.type, required=column.required, doc=column.doc)
                for number, column in enumerate(self.columns, start=1)
            )
        )

    def arrow_table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Rows as the table stores them; optional columns may be left out, derived times must be.

        Raises:
            KeyError: If a required column is missing.
        """
        schema = arrow_schema(self.iceberg_schema)
        return pa.table(
            [
                pa.array([_value(column, row) for row in rows], schema.field(column.name).type)
                for column in self.columns
            ],
            schema=schema,
        )


def _value(column: SystemColumn, row: Mapping[str, Any]) -> Any:
    if column.time_of is not None:
        exact_ns = row[column.time_of] if column.required else row.get(column.time_of)
        return None if exact_ns is None else exact_ns // 1000
    return row[column.name] if column.required else row.get(column.name)


def _nothing(_connection: Connection) -> None:
    """A commit that writes no rows of the control plane."""


class SystemTables:
    """Creates system tables and changes their rows, each change one atomic commit."""

    def __init__(self, database: Database, files: TableFiles, committer: Committer) -> None:
        self._database = database
        self._files = files
        self._committer = committer
        self._ensured: set[str] = set()

    def ensure(self, table: SystemTable) -> None:
        """Create the table where it is missing.

        Raises:
            StorageError: If database or warehouse fail.
        """
        if table.identifier in self._ensured:
            return
        with changing(self._files.catalog, self._database) as connection:
            self._files.catalog.create_namespace(connection, METADATA_NAMESPACE, {})
            is_present = bool(self._files.catalog.locations(connection, [table.identifier]))
        if not is_present:
            metadata = new_table_metadata(
                table.iceberg_schema,
                UNPARTITIONED_PARTITION_SPEC,
                UNSORTED_SORT_ORDER,
                f"{self._files.warehouse.uri}/{table.identifier.replace('.', '/')}",
                {**MAINTENANCE_PROPERTIES, METADATA_PROPERTY: table.identifier, "comment": table.doc},
            )
            # Whoever creates it first wins; the definition is the same.
            create_table(self._database, self._files, table.identifier, metadata)
        self._ensured.add(table.identifier)

    def change(self, table: SystemTable, rows: Sequence[Mapping[str, Any]]) -> TableChange:
        """The part of a larger commit plan that appends rows; `ensure` the table before."""
        return TableChange(table.identifier, rows=RowChange(str(uuid.uuid4()), append=table.arrow_table(rows)))

    def append(
        self,
        table: SystemTable,
        rows: Sequence[Mapping[str, Any]],
        apply: Callable[[Connection], None] = _nothing,
    ) -> None:
        """Append rows in one commit; none: nothing happens.

        Args:
            table: Created if it is missing.
            rows: By column name.
            apply: Writes control-plane rows in the transaction of the commit; it may be called more than once.

        Raises:
            StorageError: If database or warehouse fail.
            CommitConflictError: If other writers kept winning the race for the table.
        """
        if not rows:
            return
        self.ensure(table)
        change = self.change(table, rows)
        self._committer.commit(lambda: CommitPlan([change], apply))

    def remove_before(self, table: SystemTable, column: str, limit: int) -> None:
        """Remove the rows whose number in a column is below a limit: retention by time, given a column in ns.

        Raises:
            StorageError: If database or warehouse fail.
            CommitConflictError: If other writers kept winning the race for the table.
        """
        self.ensure(table)
        change = TableChange(table.identifier, rows=RowChange(table.identifier, remove_below={column: limit}))
        self._committer.commit(lambda: CommitPlan([change], _nothing))
