"""`python -m bench.engine_process NAME`: one SQL engine on the lake of the settings, asked over standard input.

Says `{}` when it is ready; then answers each line, a statement as JSON, with a line of its seconds and rows.
"""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from time import monotonic
from typing import Any

from lakehouse.catalog.settings import Settings

Ask = Callable[[str], Sequence[Sequence[Any]]]


@contextmanager
def _duckdb(settings: Settings) -> Iterator[Ask]:
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.sql.lake_sql import LakeSql

    with Lakehouse.open(settings) as lake:

        def ask(sql: str) -> Sequence[Sequence[Any]]:
            with LakeSql(lake).opened(sql) as statement:
                columns = statement.batches().read_all().columns
            return list(zip(*(column.to_pylist() for column in columns), strict=True))

        yield ask


@contextmanager
def _polars(settings: Settings) -> Iterator[Ask]:
    import polars as pl
    from pyiceberg.catalog.sql import SqlCatalog

    with closing(SqlCatalog("lake", uri=settings.database_url)) as catalog, pl.SQLContext() as context:
        context.register_catalog("lake", catalog, default=True)
        yield lambda sql: context.execute(sql, eager=True).rows()


@contextmanager
def _spark(settings: Settings) -> Iterator[Ask]:
    from engines.lake import LakeLocation
    from engines.spark import open_spark

    session = open_spark(LakeLocation.from_settings(settings))
    try:
        yield lambda sql: [tuple(row) for row in session.sql(sql).collect()]
    finally:
        session.stop()


@contextmanager
def _trino(settings: Settings) -> Iterator[Ask]:
    from engines.lake import LakeLocation
    from engines.trino import query, trino_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with trino_server(LakeLocation.from_settings(settings), port):
        yield lambda sql: query(port, sql)[1]


ENGINES = {"DuckDB": _duckdb, "Polars": _polars, "Spark": _spark, "Trino": _trino}


def main() -> None:
    with ENGINES[sys.argv[1]](Settings.load()) as ask:
        print("{}", flush=True)
        for line in sys.stdin:
            started = monotonic()
            rows = [list(row) for row in ask(json.loads(line))]
            print(json.dumps({"seconds": monotonic() - started, "rows": rows}), flush=True)


if __name__ == "__main__":
    main()
