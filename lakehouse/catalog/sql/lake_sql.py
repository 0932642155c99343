"""SQL over the lake's tables in this process, by DuckDB: `imu.imu_front`, `mosaico.sequences` as everywhere else.

DuckDB's own reader of Iceberg has to be downloaded when it is first used; this one needs nothing. PyIceberg plans which
data files can matter, Arrow reads these, DuckDB does the rest and holds no more than it needs at a time.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.schema import index_by_id, index_name_by_id
from pyiceberg.table import DataScan, FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse.catalog.errors import BadRequestError, NotFoundError
from lakehouse.catalog.iceberg.catalogs import open_pyiceberg_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.sql.lake_state import all_tables, load_together, no_such_table
from lakehouse.catalog.sql.statements import (
    PastTable,
    TableName,
    open_duckdb,
    quoted,
    row_filters,
    tables_in,
    without_past,
)
from lakehouse.catalog.storage import Warehouse

_SHOW_TABLES = re.compile(r"^\s*show\s+(all\s+)?tables\s*;?\s*$", re.IGNORECASE)
_UNKNOWN_TABLE = re.compile(r"Table with name (.+?) does not exist")
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
    """One statement at a time over the tables it names, all of them as they were at one moment.

    Args:
        lakehouse: Where the tables are.
    """

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse
        self._warehouse: Warehouse = lakehouse.warehouse

    @contextmanager
    def opened(self, sql: str) -> Iterator["Statement"]:
        """A statement over tables as they are at this moment, ready to run.

        Raises:
            BadRequestError: If it is no SELECT, or DuckDB does not understand it.
            CommitConflictError: If the tables kept changing while they were looked at.
            NotFoundError: If it names a table that does not exist; says which ones are called alike.
            StorageError: If a table cannot be read.
        """
        lake = self._lakehouse
        catalog = open_pyiceberg_catalog(lake.settings, self._warehouse, lake.database)
        connection = open_duckdb()
        try:
            if _SHOW_TABLES.match(sql):
                sql = _ALL_TABLES
            yield self._prepare(catalog, connection, sql.strip().rstrip(";"))
        except duckdb.CatalogException as error:
            if unknown := _UNKNOWN_TABLE.search(str(error)):
                raise no_such_table(catalog, unknown.group(1)) from None
            raise BadRequestError(f"the statement cannot be run: {str(error)[:800]}") from None
        except duckdb.Error as error:
            raise BadRequestError(f"the statement cannot be run: {str(error)[:800]}") from None
        finally:
            connection.close()
            catalog.close()

    def _prepare(self, catalog: Catalog, connection: duckdb.DuckDBPyConnection, sql: str) -> "Statement":
        sql, past = without_past(connection, sql)
        names = tables_in(connection, sql)
        if any(name.namespace == "information_schema" for name in names):
            for number, identifier in enumerate(all_tables(catalog)):
                schema = schema_to_pyarrow(catalog.load_table(identifier).schema(), include_field_ids=False)
                _register(connection, number, TableName(*identifier), schema.empty_table())
            return Statement(connection, sql, ())
        wanted = {name: ".".join(past[name].table if name in past else name) for name in sorted(names)}
        loaded = load_together(self._lakehouse, catalog, set(wanted.values()))
        tables = {name: _state(wanted[name], loaded[wanted[name]], past.get(name)) for name in wanted}
        filters = row_filters(sql, {name: table.schema for name, table in tables.items()})
        files = []
        for number, (name, table) in enumerate(tables.items()):
            tasks = _planned(table, filters.get(name, AlwaysTrue()))
            _register(connection, number, name, self._dataset(table, tasks))
            files.append(FilesRead(table.name, len(tasks), table.data_files))
        return Statement(connection, sql, tuple(files))

    def _dataset(self, table: "_TableState", tasks: list[FileScanTask]) -> ds.Dataset:
        """The rows of some data files.

        Those of files with deleted rows are read at once, without these rows; so are those of tables whose columns
        have changed names, as Arrow finds the columns of files by name, PyIceberg by their ids.
        """
        by_name = table.keeps_names
        plain = [task for task in tasks if by_name and not task.delete_files]
        fragments = [
            self._warehouse.fragment(_FORMAT, task.file.file_path, task.file.file_size_in_bytes) for task in plain
        ]
        schema = table.schema
        parts: list[ds.Dataset] = [ds.FileSystemDataset(fragments, schema, _FORMAT, self._warehouse.file_system)]
        changed = [task for task in tasks if not by_name or task.delete_files]
        if changed:
            scan = ArrowScan(table.table.metadata, table.table.io, table.scan.projection(), AlwaysTrue())
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


@dataclass(frozen=True)
class _TableState:
    """A table at one of its snapshots, or now.

    Attributes:
        snapshot: None if it is empty.
        is_past: Whether this snapshot was asked for; its columns are those of its time.
    """

    name: str
    table: Table
    snapshot: Snapshot | None
    is_past: bool = False

    @property
    def scan(self) -> DataScan:
        # Named, even the last snapshot lacks the columns that were added after it. The table in hand does not move.
        return self.table.scan(snapshot_id=self.snapshot.snapshot_id if self.snapshot and self.is_past else None)

    @cached_property
    def schema(self) -> pa.Schema:
        return schema_to_pyarrow(self.scan.projection(), include_field_ids=False)

    @property
    def keeps_names(self) -> bool:
        """Whether the columns of every file are found by name: no column has ever had another, no name has gone to
        another column, no schema of the past is forgotten, and none has a value in files that lack it."""
        schemas = self.table.schemas()
        if any(number not in schemas for number in range(self.table.schema().schema_id)):
            return False
        if any(field.initial_default is not None for field in index_by_id(self.table.schema()).values()):
            return False
        names = {item for schema in schemas.values() for item in index_name_by_id(schema).items()}
        return len({field_id for field_id, _ in names}) == len({name for _, name in names}) == len(names)

    @property
    def data_files(self) -> int:
        summary = self.snapshot.summary if self.snapshot else None
        return int(summary["total-data-files"] or 0) if summary else 0


def _state(wanted: str, table: Table, past: PastTable | None) -> _TableState:
    if past is None:
        return _TableState(wanted, table, table.current_snapshot())
    found = _snapshot(table, past)
    if found is None:
        raise NotFoundError("snapshot", f"{wanted} at {past.version or past.moment}")
    return _TableState(wanted, table, found, is_past=True)


def _snapshot(table: Table, past: PastTable) -> Snapshot | None:
    if past.moment is not None:
        return table.snapshot_as_of_timestamp(int(past.moment.timestamp() * 1000))
    if isinstance(past.version, str):
        return table.snapshot_by_name(past.version)
    return table.snapshot_by_id(past.version) if past.version is not None else None


def _planned(table: _TableState, condition: BooleanExpression) -> list[FileScanTask]:
    """Data files that may hold rows that meet the condition."""
    try:
        return list(table.scan.filter(condition).plan_files())
    except (TypeError, ValueError):
        # DuckDB compares what Iceberg does not, such as a whole number with a fraction.
        return list(table.scan.plan_files())


def _register(connection: duckdb.DuckDBPyConnection, number: int, name: TableName, rows: Any) -> None:
    connection.register(f"_table_{number}", rows)
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name.namespace)}")
    connection.execute(f"CREATE VIEW {quoted(name.namespace)}.{quoted(name.name)} AS SELECT * FROM _table_{number}")
