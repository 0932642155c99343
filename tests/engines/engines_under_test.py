"""Spark, Trino, DuckDB and Polars behind one small interface: rows of a statement, and how much of a table it read."""

import contextlib
import io
import json
import re
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any, Protocol

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, MapType, StructType, TimestampType
from trino.dbapi import connect

from lakehouse.catalog.sql.lake_sql import LakeSql
from tests.engines.plain_values import plain_rows
from tests.engines.recordings import ROWS
from tests.engines.shared_lake import SharedLake
from tests.warehouses import scan_iceberg


class Engine(Protocol):
    """A SQL engine with one catalog as its default."""

    name: str

    def rows(self, sql: str) -> list[Any]:
        """Run a statement; values in plain form."""

    def rows_and_reads(self, sql: str) -> tuple[list[Any], int]:
        """The same, and how many rows the data files have that were not skipped, by the engine's own account."""

    def tables(self, namespace: str) -> set[str]:
        """Names of the tables in a namespace."""

    def micros(self, column: str) -> str:
        """SQL for the Unix microseconds of an instant."""

    def instant(self, text: str) -> str:
        """SQL for an instant in UTC, such as 2026-03-15 00:00:00."""

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        """SQL for a table as it was."""


class WritingEngine(Engine, Protocol):
    """An engine that changes tables."""

    def delete_rows(self, table: str, condition: str) -> None:
        """Delete rows the way that leaves position delete files."""

    def rewrite_manifests(self, table: str) -> None:
        """Write the metadata of all data files anew, by the engine's own means."""

    def compact(self, table: str) -> None:
        """Rewrite data files."""

    def expire_snapshots(self, table: str) -> None:
        """Forget all snapshots but the last, and remove what only they needed."""


class Spark:
    name = "spark"

    def __init__(self, session: SparkSession, catalog: str) -> None:
        self._session = session
        self._catalog = catalog

    def _run(self, sql: str) -> Any:
        self._session.catalog.setCurrentCatalog(self._catalog)
        return self._session.sql(sql)

    def rows(self, sql: str) -> list[Any]:
        return _rows_of_spark(self._run(sql))

    def rows_and_reads(self, sql: str) -> tuple[list[Any], int]:
        frame = self._run(sql)
        rows = _rows_of_spark(frame)
        leaves = frame._jdf.queryExecution().executedPlan().collectLeaves()
        numbers = [leaves.apply(each).metrics().apply("numOutputRows").value() for each in range(leaves.size())]
        return rows, sum(map(int, numbers))

    def tables(self, namespace: str) -> set[str]:
        return {row[1] for row in self.rows(f"SHOW TABLES IN {namespace}")}

    def micros(self, column: str) -> str:
        return f"unix_micros({column})"

    def instant(self, text: str) -> str:
        return f"TIMESTAMP '{text} UTC'"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        return f"{table} VERSION AS OF {snapshot_id}"

    def delete_rows(self, table: str, condition: str) -> None:
        self.rows(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
        self.rows(f"DELETE FROM {table} WHERE {condition}")

    def rewrite_manifests(self, table: str) -> None:
        self.rows(f"CALL {self._catalog}.system.rewrite_manifests('{table}')")

    def compact(self, table: str) -> None:
        options = "options => map('rewrite-all', 'true')"
        self.rows(f"CALL {self._catalog}.system.rewrite_data_files(table => '{table}', {options})")

    def expire_snapshots(self, table: str) -> None:
        until = "older_than => TIMESTAMP '2100-01-01', retain_last => 1"
        self.rows(f"CALL {self._catalog}.system.expire_snapshots(table => '{table}', {until})")


class Trino:
    name = "trino"

    def __init__(self, port: int, catalog: str) -> None:
        self._port = port
        self._catalog = catalog

    def _run(self, sql: str) -> tuple[list[Any], str]:
        session = {f"{self._catalog}.expire_snapshots_min_retention": "0s"}
        connection = connect(
            host="127.0.0.1", port=self._port, user="test", catalog=self._catalog, session_properties=session
        )
        cursor = connection.cursor()
        cursor.execute(sql)
        rows: Sequence[Any] = cursor.fetchall()
        query_id = str(cursor.query_id)
        connection.close()
        return [tuple(row) for row in rows], query_id

    def rows(self, sql: str) -> list[Any]:
        return _rows_of_trino(self._run(sql)[0])

    def rows_and_reads(self, sql: str) -> tuple[list[Any], int]:
        rows, query_id = self._run(sql)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/query/{query_id}", headers={"X-Trino-User": "test"}
        )
        with urllib.request.urlopen(request) as answer:
            read = int(json.load(answer)["queryStats"]["physicalInputPositions"])
        return _rows_of_trino(rows), read

    def tables(self, namespace: str) -> set[str]:
        return {row[0] for row in self.rows(f"SHOW TABLES IN {namespace}")}

    def micros(self, column: str) -> str:
        return f"CAST(to_unixtime({column}) * 1000000 AS bigint)"

    def instant(self, text: str) -> str:
        return f"TIMESTAMP '{text} UTC'"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        return f"{table} FOR VERSION AS OF {snapshot_id}"

    def delete_rows(self, table: str, condition: str) -> None:
        self._run(f"DELETE FROM {table} WHERE {condition}")

    def rewrite_manifests(self, table: str) -> None:
        self._run(f"ALTER TABLE {table} EXECUTE optimize_manifests")

    def compact(self, table: str) -> None:
        self._run(f"ALTER TABLE {table} EXECUTE optimize")

    def expire_snapshots(self, table: str) -> None:
        self._run(f"ALTER TABLE {table} EXECUTE expire_snapshots(retention_threshold => '0s')")


class DuckDB:
    """`lakehouse sql`."""

    name = "duckdb"

    def __init__(self, lake: SharedLake) -> None:
        self._sql = LakeSql(lake.lakehouse)

    def rows(self, sql: str) -> list[Any]:
        with self._sql.opened(sql) as statement:
            return _rows_of_arrow(statement.batches().read_all())

    def rows_and_reads(self, sql: str) -> tuple[list[Any], int]:
        with self._sql.opened(sql) as statement:
            rows = _rows_of_arrow(statement.batches().read_all())
            # Conditions that DuckDB hands down would hide how much it was given.
            statement.connection.execute("SET disabled_optimizers = 'filter_pushdown'")
            told = statement.connection.execute(f"EXPLAIN (ANALYZE, FORMAT json) {statement.sql}").fetchall()
        scans = [node for node in _operators(json.loads(told[0][1])["operator"]) if node["type"] == "TABLE_SCAN"]
        return rows, sum(node["intermediate_rows"] for node in scans)

    def tables(self, namespace: str) -> set[str]:
        return {name for space, name in self.rows("SHOW TABLES") if space == namespace}

    def micros(self, column: str) -> str:
        return f"epoch_us({column})"

    def instant(self, text: str) -> str:
        return f"TIMESTAMPTZ '{text} UTC'"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        return f"{table} AT (VERSION => {snapshot_id})"


class Polars:
    """Polars' SQL through PyIceberg; each data file of the tables whose rows are counted has `ROWS` of them."""

    name = "polars"

    def __init__(self, lake: SharedLake) -> None:
        self._lake = lake
        self._past: dict[str, tuple[str, int]] = {}

    def _run(self, sql: str, prepare: str = "") -> pl.DataFrame:
        with self._lake.catalog() as catalog, pl.SQLContext() as context:
            options = {name: value for name, value in catalog.properties.items() if name.startswith("s3.")}
            context.register_catalog("lake", catalog, default=True, storage_options=options or None)
            for name, (table, snapshot_id) in self._past.items():
                if name in sql:
                    context.register(name, scan_iceberg(catalog.load_table(table), snapshot_id=snapshot_id))
            exec(prepare, {"pl": pl, "lake": catalog, "store": options or None, "sql": context})
            return context.execute(sql, eager=True)

    def rows(self, sql: str) -> list[Any]:
        return _rows_of_polars(self._run(sql))

    def rows_after(self, python: str, sql: str) -> list[Any]:
        """Run a statement after lines of Python, in which names are those of docs/sql.md."""
        return _rows_of_polars(self._run(sql, python))

    def rows_and_reads(self, sql: str) -> tuple[list[Any], int]:
        with pl.Config(verbose=True), contextlib.redirect_stderr(io.StringIO()) as told:
            rows = self.rows(sql)
        return rows, ROWS * sum(map(int, re.findall(r"num_sources: (\d+)", told.getvalue())))

    def tables(self, namespace: str) -> set[str]:
        with self._lake.catalog() as catalog:
            return {name for _, name in catalog.list_tables(namespace)}

    def micros(self, column: str) -> str:
        return f"CAST({column} AS bigint)"

    def instant(self, text: str) -> str:
        return f"CAST('{text}+00:00' AS TIMESTAMP WITH TIME ZONE)"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        name = f"past_{snapshot_id}"
        self._past[name] = (table, snapshot_id)
        return name


def _rows_of_spark(frame: DataFrame) -> list[Any]:
    return plain_rows([_of_spark(row, frame.schema) for row in frame.collect()])


def _of_spark(value: Any, kind: DataType) -> Any:
    """Structs are tuples, maps are lists of pairs, and instants say so: Spark leaves out the zone of this machine."""
    if value is None:
        return None
    if isinstance(kind, StructType):
        return tuple(_of_spark(each, field.dataType) for each, field in zip(value, kind.fields, strict=True))
    if isinstance(kind, ArrayType):
        return [_of_spark(each, kind.elementType) for each in value]
    if isinstance(kind, MapType):
        return [(_of_spark(key, kind.keyType), _of_spark(each, kind.valueType)) for key, each in value.items()]
    return value.astimezone(UTC) if isinstance(kind, TimestampType) else value


def _rows_of_trino(rows: list[Any]) -> list[Any]:
    return plain_rows([tuple(map(_of_trino, row)) for row in rows])


def _of_trino(value: Any) -> Any:
    """Maps are lists of pairs."""
    if isinstance(value, dict):
        return [(key, _of_trino(each)) for key, each in value.items()]
    if isinstance(value, tuple):
        return tuple(map(_of_trino, value))
    return list(map(_of_trino, value)) if isinstance(value, list) else value


def _rows_of_polars(frame: pl.DataFrame) -> list[Any]:
    """Maps are lists of pairs."""
    columns = [
        [None if each is None else list(each.items()) for each in column]
        if isinstance(column.dtype, pl.Map)
        else column.to_list()
        for column in frame
    ]
    return plain_rows(list(zip(*columns, strict=True)))


def _rows_of_arrow(table: pa.Table) -> list[Any]:
    return plain_rows(list(zip(*(column.to_pylist() for column in table.columns), strict=True)))


def _operators(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Operators of a plan of DuckDB."""
    for node in nodes:
        yield node
        yield from _operators(node.get("children", []))
