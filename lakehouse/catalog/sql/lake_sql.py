"""SQL over the lake's tables in this process, by DuckDB: `imu.imu_front`, `mosaico.sequences` as everywhere else.

DuckDB's own reader of Iceberg has to be downloaded when it is first used; this one needs nothing. PyIceberg plans which
data files can matter, Arrow reads these, DuckDB does the rest and holds no more than it needs at a time.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.table import FileScanTask, Table

from lakehouse.catalog.errors import BadRequestError, NotFoundError, StorageError
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.sql.statements import quoted, row_filters, tables_in
from lakehouse.catalog.storage import Warehouse

_SHOW_TABLES = re.compile(r"^\s*show\s+(all\s+)?tables\s*;?\s*$", re.IGNORECASE)
_ALL_TABLES = (
    "SELECT table_schema AS namespace, table_name AS name FROM information_schema.tables "
    "WHERE table_schema <> 'main' ORDER BY ALL"
)
_FORMAT = ds.ParquetFileFormat()
OutputFormat = Literal["csv", "json", "parquet"]


@dataclass(frozen=True, slots=True)
class FilesRead:
    """What a statement reads of a table.

    Attributes:
        table: Namespace and name.
        read: Data files that may hold rows that matter.
        total: Data files of the table.
    """

    table: str
    read: int
    total: int


class LakeSql:
    """One statement at a time over the current state of all tables it names.

    Args:
        lakehouse: Where the tables are.
    """

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._database = lakehouse.database
        self._warehouse: Warehouse = lakehouse.warehouse

    @contextmanager
    def opened(self, sql: str) -> Iterator["Statement"]:
        """A statement over tables as they are at this moment, ready to run.

        Raises:
            BadRequestError: If it is no SELECT, or DuckDB does not understand it.
            NotFoundError: If it names a table that does not exist.
            StorageError: If a table cannot be read.
        """
        catalog = open_sql_catalog(self._database, self._warehouse)
        connection = duckdb.connect()
        try:
            connection.execute("SET TimeZone = 'UTC'")
            if _SHOW_TABLES.match(sql):
                sql = _ALL_TABLES
            yield self._prepare(catalog, connection, sql.strip().rstrip(";"))
        except duckdb.Error as error:
            raise BadRequestError(f"the statement cannot be run: {str(error)[:800]}") from None
        finally:
            connection.close()
            catalog.close()

    def _prepare(self, catalog: SqlCatalog, connection: duckdb.DuckDBPyConnection, sql: str) -> "Statement":
        names = tables_in(connection, sql)
        if any(namespace == "information_schema" for namespace, _ in names):
            listed = [identifier for space in catalog.list_namespaces() for identifier in catalog.list_tables(space)]
            names = {(identifier[0], identifier[1]) for identifier in listed}
            filters: dict[tuple[str, str], BooleanExpression] = {}
            tables = {name: catalog.load_table(name) for name in names}
            schemas = {name: _schema(table) for name, table in tables.items()}
            for number, (name, schema) in enumerate(schemas.items()):
                _register(connection, number, name, schema.empty_table())
            return Statement(connection, sql, ())
        tables = {name: _load(catalog, name) for name in sorted(names)}
        schemas = {name: _schema(table) for name, table in tables.items()}
        filters = row_filters(sql, schemas)
        files = []
        for number, (name, table) in enumerate(tables.items()):
            tasks = _planned(table, filters.get(name, AlwaysTrue()))
            _register(connection, number, name, self._dataset(table, schemas[name], tasks))
            files.append(FilesRead(".".join(name), len(tasks), _data_files(table)))
        return Statement(connection, sql, tuple(files))

    def _dataset(self, table: Table, schema: pa.Schema, tasks: list[FileScanTask]) -> ds.Dataset:
        """The rows of some data files; those of files with deleted rows are read at once, without these rows."""
        plain = [task for task in tasks if not task.delete_files]
        fragments = [
            self._warehouse.fragment(_FORMAT, task.file.file_path, task.file.file_size_in_bytes) for task in plain
        ]
        parts: list[ds.Dataset] = [ds.FileSystemDataset(fragments, schema, _FORMAT, self._warehouse.file_system)]
        changed = [task for task in tasks if task.delete_files]
        if changed:
            scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
            parts.append(ds.dataset(scan.to_table(changed).cast(schema)))
        return parts[0] if len(parts) == 1 else ds.UnionDataset(schema, parts)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its tables at hand.

    Attributes:
        files: What it reads of each table.
    """

    connection: duckdb.DuckDBPyConnection
    sql: str
    files: tuple[FilesRead, ...]

    def batches(self, rows_per_batch: int = 8192) -> pa.RecordBatchReader:
        """The result, as it comes about."""
        return self.connection.sql(self.sql).to_arrow_reader(rows_per_batch)

    def write(self, path: Path | str, output_format: OutputFormat) -> int:
        """Write the result to a file, as it comes about.

        Args:
            path: The file, replaced if it exists.
            output_format: CSV with a header line, one JSON array of objects, or Parquet.

        Returns:
            Number of rows written.
        """
        options = {"csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet"}
        target = str(path).replace("'", "''")
        written = self.connection.execute(f"COPY ({self.sql}) TO '{target}' ({options[output_format]})").fetchone()
        return int(written[0]) if written else 0


def _load(catalog: SqlCatalog, name: tuple[str, str]) -> Table:
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        raise NotFoundError("table", ".".join(name)) from None
    except (OSError, ValueError) as error:
        raise StorageError(f"table {'.'.join(name)} cannot be read") from error


def _planned(table: Table, condition: BooleanExpression) -> list[FileScanTask]:
    """Data files that may hold rows that meet the condition."""
    try:
        return list(table.scan(row_filter=condition).plan_files())
    except (TypeError, ValueError):
        # DuckDB compares what Iceberg does not, such as a whole number with a fraction.
        return list(table.scan().plan_files())


def _data_files(table: Table) -> int:
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return 0
    return int(snapshot.summary["total-data-files"] or 0)


def _schema(table: Table) -> pa.Schema:
    return schema_to_pyarrow(table.schema(), include_field_ids=False)


def _register(connection: duckdb.DuckDBPyConnection, number: int, name: tuple[str, str], rows: Any) -> None:
    connection.register(f"_table_{number}", rows)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name[0])}")
    connection.execute(f"CREATE VIEW {quoted(name[0])}.{quoted(name[1])} AS SELECT * FROM _table_{number}")
