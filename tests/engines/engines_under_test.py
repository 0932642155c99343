"""Spark, Trino, DuckDB and Polars behind one small interface: rows of a statement, and how much of a table it read."""

import contextlib
import io
import json
import re
import urllib.request
from collections.abc import Sequence
from typing import Any, Protocol

import polars as pl
from pyspark.sql import Row, SparkSession
from trino.dbapi import connect

from lakehouse.catalog.sql.lake_sql import LakeSql
from tests.engines.shared_lake import ROWS, SharedLake, plain_rows
from tests.warehouses import scan_iceberg


class Engine(Protocol):
    """A SQL engine with one catalog as its default."""

    name: str

    def rows(self, sql: str) -> list[Any]:
        """Run a statement; values in plain form."""

    def rows_read(self, sql: str) -> int:
        """Rows of the data files that the statement did not skip, by the engine's own account."""

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
        return plain_rows([_tuple(row) for row in self._run(sql).collect()])

    def rows_read(self, sql: str) -> int:
        frame = self._run(sql)
        frame.collect()
        leaves = frame._jdf.queryExecution().executedPlan().collectLeaves()
        return sum(
            int(leaves.apply(number).metrics().apply("numOutputRows").value()) for number in range(leaves.size())
        )

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
        return plain_rows(self._run(sql)[0])

    def rows_read(self, sql: str) -> int:
        _, query_id = self._run(sql)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/query/{query_id}", headers={"X-Trino-User": "test"}
        )
        with urllib.request.urlopen(request) as answer:
            return int(json.load(answer)["queryStats"]["physicalInputPositions"])

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
    """`lakehouse sql`; each data file of the tables whose rows are counted has `ROWS` of them."""

    name = "duckdb"

    def __init__(self, lake: SharedLake) -> None:
        self._sql = LakeSql(lake.lakehouse)

    def rows(self, sql: str) -> list[Any]:
        with self._sql.opened(sql) as statement:
            columns = [column.to_pylist() for column in statement.batches().read_all().columns]
        return plain_rows(list(zip(*columns, strict=True)))

    def rows_read(self, sql: str) -> int:
        with self._sql.opened(sql) as statement:
            return ROWS * sum(table.read for table in statement.files)

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
        return plain_rows(self._run(sql).rows())

    def rows_after(self, python: str, sql: str) -> list[Any]:
        """Run a statement after lines of Python, in which names are those of docs/sql.md."""
        return plain_rows(self._run(sql, python).rows())

    def rows_read(self, sql: str) -> int:
        with pl.Config(verbose=True), contextlib.redirect_stderr(io.StringIO()) as told:
            self._run(sql)
        return ROWS * sum(map(int, re.findall(r"num_sources: (\d+)", told.getvalue())))

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


def _tuple(value: Any) -> Any:
    if isinstance(value, Row):
        return tuple(_tuple(each) for each in value)
    return [_tuple(each) for each in value] if isinstance(value, list) else value
