"""Tables and commits without uploads: the pieces below the lakehouse, and small real Parquet files."""

import io
import itertools
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from sqlalchemy import Connection

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.metadata_tables import MetadataTables
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.iceberg.bounds import column_metrics, count_elements
from lakehouse.catalog.iceberg.data_files import NANOSECONDS_PER_DAY, DataFileEntry, data_file_uri
from lakehouse.catalog.iceberg.leaves import parquet_leaves
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog, read_pointers
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.iceberg.tables import TopicTable, TopicTables
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse
from lakehouse.ontology.arrow_iceberg import StoragePlan, parquet_schema, plan_storage
from lakehouse.ontology.envelope import Envelope

DAY = 20_000
ROWS = 10
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("acceleration", pa.struct([("x", pa.float64()), ("y", pa.float64())])),
        pa.field("count", pa.uint32()),
    ]
)
PLAN = plan_storage(SCHEMA)
_ordinals = itertools.count()


def nothing(_connection: Connection) -> None:
    """A plan that writes no rows of the control plane."""


class SmallLake:
    """Opens what commits are made of; any number of them, in any number of processes, may share one lake."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.settings = Settings.load(home=home, db_url=database_url)
        self.database = Database(database_url)
        migrate(self.database)
        self.warehouse = Warehouse.open(self.settings)
        self.files = TableFiles(self.warehouse)
        self.tables = TopicTables(self.database, self.files)
        self.activity = Activity()
        self.committer = Committer(self.database, self.files, activity=self.activity)
        self.metadata_tables = MetadataTables(self.database, self.files)

    def table(self, path: str = "sensors/imu", tag: str = "IMU", plan: StoragePlan = PLAN) -> TopicTable:
        return self.tables.ensure(tag, path, plan)

    def write(self, table: TopicTable, sequence: str, start: float = 0.0, plan: StoragePlan = PLAN) -> DataFileEntry:
        """A durable data file of ten rows, not committed yet."""
        times = DAY * NANOSECONDS_PER_DAY + np.arange(ROWS)
        values = start + np.arange(ROWS, dtype=np.float64)
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array(times),
                pa.StructArray.from_arrays([pa.array(values), pa.array(-values)], ["x", "y"]),
                pa.array(np.arange(ROWS, dtype=np.uint32)),
                *(pa.nulls(ROWS, field.type) for field in list(plan.arrow_schema)[len(SCHEMA) :]),
            ],
            schema=plan.arrow_schema,
        )
        schema = parquet_schema(table.schema, plan)
        envelope = Envelope(schema, sequence, f"{sequence}:session")
        rows = envelope.add(pa.Table.from_batches([plan.to_storage(batch)]))
        ordinal = next(_ordinals)
        uri = data_file_uri(table.location, sequence, DAY, str(uuid.uuid4()), ordinal)
        buffer = io.BytesIO()
        writer = pq.ParquetWriter(buffer, envelope.file_schema, store_schema=False)
        writer.write_table(rows)
        writer.close()
        with self.warehouse.open_output(uri) as stream:
            stream.write(buffer.getvalue())
        leaves = parquet_leaves(schema)
        counts = [count_elements(rows.combine_chunks().to_batches()[0], leaves)]
        metrics = column_metrics(writer.writer.metadata, leaves, counts)
        return DataFileEntry(
            uri,
            sequence,
            DAY,
            ROWS,
            len(buffer.getvalue()),
            int(times[0]),
            int(times[-1]),
            ordinal,
            metrics.column_sizes,
            metrics.value_counts,
            metrics.null_value_counts,
            metrics.nan_value_counts,
            metrics.lower_bounds,
            metrics.upper_bounds,
            split_offsets=(4,),
        )

    def commit(
        self,
        changes: Sequence[TableChange],
        apply: Callable[[Connection], None] = nothing,
        summary: Mapping[str, str] | None = None,
    ) -> None:
        self.committer.commit(lambda: CommitPlan(changes, apply, summary or {}))

    def append(self, table: TopicTable, sequence: str) -> None:
        self.commit([TableChange(table.identifier, add=[self.write(table, sequence)])])

    def delete(self, table: TopicTable, sequence: str) -> None:
        self.commit([TableChange(table.identifier, delete_sequence=sequence)])

    def iceberg(self) -> SqlCatalog:
        """The catalog as a program of somebody else opens it."""
        return open_sql_catalog(self.database, self.warehouse)

    def stock_table(self, identifier: str) -> Table:
        catalog = self.iceberg()
        try:
            return catalog.load_table(identifier)
        finally:
            catalog.close()

    def sequences_in(self, identifier: str) -> list[str]:
        """The sequence of every data file that stock PyIceberg plans to read, sorted."""
        return sorted(task.file.partition[0] for task in self.stock_table(identifier).scan().plan_files())

    def pointers(self) -> dict[str, str]:
        with self.database.snapshot() as connection:
            return read_pointers(connection)

    def stored(self, table_location: str, directory: str = "") -> set[str]:
        return {file.uri for file in self.warehouse.list_files(f"{table_location}/{directory}".rstrip("/"))}

    def close(self) -> None:
        self.committer.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def child_environment(crash_at: str = "") -> dict[str, str]:
    """Environment of a test process; it may be told where to die."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if crash_at:
        crash_file = Path(tempfile.mkdtemp(prefix="crash-")) / "crash-at"
        crash_file.write_text(crash_at)
        environment["LAKEHOUSE_CRASH_FILE"] = str(crash_file)
    return environment
