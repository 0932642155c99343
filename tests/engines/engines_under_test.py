"""Spark and Trino behind one small interface: rows of a statement, and how much of a table it read."""

import json
import signal
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from pyspark.sql import Row, SparkSession
from trino.dbapi import connect

from engines.spark import open_spark
from engines.trino import trino_server
from tests.engines.shared_lake import SharedLake, plain_rows
from tests.processes import die_with_parent, free_port


class Engine(Protocol):
    """A SQL engine with the lake as its default catalog."""

    name: str

    def rows(self, sql: str) -> list[Any]:
        """Run a statement; values in plain form."""

    def rows_read(self, sql: str) -> int:
        """Rows of the data files that the statement did not skip, by the engine's own account."""

    def micros(self, column: str) -> str:
        """SQL for the Unix microseconds of an instant."""

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        """SQL for a table as it was."""

    def delete_rows(self, table: str, condition: str) -> None:
        """Delete rows the way that leaves position delete files."""

    def compact(self, table: str) -> None:
        """Rewrite data files, and forget all snapshots but the last."""


class Spark:
    name = "spark"

    def __init__(self, session: SparkSession) -> None:
        self._session = session

    def rows(self, sql: str) -> list[Any]:
        return plain_rows([_tuple(row) for row in self._session.sql(sql).collect()])

    def rows_read(self, sql: str) -> int:
        frame = self._session.sql(sql)
        frame.collect()
        leaves = frame._jdf.queryExecution().executedPlan().collectLeaves()
        return sum(
            int(leaves.apply(number).metrics().apply("numOutputRows").value()) for number in range(leaves.size())
        )

    def micros(self, column: str) -> str:
        return f"unix_micros({column})"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        return f"{table} VERSION AS OF {snapshot_id}"

    def delete_rows(self, table: str, condition: str) -> None:
        self._session.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
        self._session.sql(f"DELETE FROM {table} WHERE {condition}")

    def compact(self, table: str) -> None:
        self._session.sql(
            f"CALL lake.system.rewrite_data_files(table => '{table}', options => map('rewrite-all', 'true'))"
        )
        until = "older_than => TIMESTAMP '2100-01-01', retain_last => 1"
        self._session.sql(f"CALL lake.system.expire_snapshots(table => '{table}', {until})")


class Trino:
    name = "trino"

    def __init__(self, port: int) -> None:
        self._port = port

    def _run(self, sql: str) -> tuple[list[Any], str]:
        session = {"lake.expire_snapshots_min_retention": "0s"}
        connection = connect(host="127.0.0.1", port=self._port, user="test", catalog="lake", session_properties=session)
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

    def micros(self, column: str) -> str:
        return f"CAST(to_unixtime({column}) * 1000000 AS bigint)"

    def at_snapshot(self, table: str, snapshot_id: int) -> str:
        return f"{table} FOR VERSION AS OF {snapshot_id}"

    def delete_rows(self, table: str, condition: str) -> None:
        self._run(f"DELETE FROM {table} WHERE {condition}")

    def compact(self, table: str) -> None:
        self._run(f"ALTER TABLE {table} EXECUTE optimize")
        self._run(f"ALTER TABLE {table} EXECUTE expire_snapshots(retention_threshold => '0s')")


def _tuple(value: Any) -> Any:
    if isinstance(value, Row):
        return tuple(_tuple(each) for each in value)
    return [_tuple(each) for each in value] if isinstance(value, list) else value


@contextmanager
def spark(lake: SharedLake) -> Iterator[Engine]:
    # Without adaptive execution the plan that is asked for metrics is the one that ran.
    session = open_spark(lake.location, spark__sql__adaptive__enabled="false")
    try:
        yield Spark(session)
    finally:
        session.stop()


@contextmanager
def trino(lake: SharedLake) -> Iterator[Engine]:
    with trino_server(lake.location, free_port(), die_with_parent(signal.SIGKILL)) as port:
        yield Trino(port)
