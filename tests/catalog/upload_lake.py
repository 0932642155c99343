"""Uploads into a table that stock PyIceberg created and keeps: nothing of our own commits in between."""

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform

from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.settings import MIB, Settings
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.writing.encoder_pool import EncoderPool
from lakehouse.catalog.writing.memory_budget import UploadBudget
from lakehouse.catalog.writing.uploads import TopicUpload, UploadLimits, UploadResult, UploadTarget
from lakehouse.ontology.arrow_iceberg import StoragePlan, parquet_schema, plan_storage, topic_table_schema

PARTITIONING = PartitionSpec(
    PartitionField(1, 1000, IdentityTransform(), "sequence"),
    PartitionField(4, 1001, DayTransform(), "recorded_at_day"),
)
NUMBERS = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("value", pa.float64())])


class UploadLake:
    """A warehouse, a stock catalog on SQLite, and what uploads share."""

    def __init__(
        self, home: Path, *, row_group: int = 16 * MIB, file: int = 128 * MIB, budget: int = 512 * MIB, workers: int = 2
    ) -> None:
        self.warehouse = Warehouse.open(Settings.load(home=home, store_endpoint=""))
        self.catalog = SqlCatalog(
            "lake",
            uri=f"sqlite:///{home / 'stock.db'}",
            warehouse=self.warehouse.uri,
            **self.warehouse.iceberg_properties(),
        )
        self.catalog.create_namespace("tests")
        self.limits = UploadLimits(row_group, file)
        self.budget = UploadBudget(budget)
        self.pool = EncoderPool(workers)

    def table(self, plan: StoragePlan) -> Table:
        name = ("tests", f"t{uuid.uuid4().hex}")
        return self.catalog.create_table(name, schema=topic_table_schema(plan), partition_spec=PARTITIONING)

    def upload(self, schema: pa.Schema = NUMBERS, table: Table | None = None, sequence: str = "drive") -> TopicUpload:
        plan = plan_storage(schema)
        table = self.table(plan) if table is None else table
        target = UploadTarget(
            topic_uuid=str(uuid.uuid4()),
            sequence=sequence,
            session=f"{sequence}:01ARZ3NDEKTSV4RRFFQ69G5FAV",
            table_location=table.location(),
            plan=plan,
            parquet_schema=parquet_schema(table.schema(), plan),
        )
        return TopicUpload(target, self.limits, self.warehouse, self.budget, self.pool)

    def store(
        self, batches: Sequence[pa.RecordBatch], table: Table | None = None, sequence: str = "drive"
    ) -> UploadResult:
        with self.upload(batches[0].schema, table, sequence) as upload:
            for batch in batches:
                upload.write(batch)
            return upload.finish()

    def files(self) -> list[str]:
        """Data files in the warehouse."""
        found = (stored.uri for stored in self.warehouse.list_files(self.warehouse.uri))
        return sorted(uri for uri in found if uri.endswith(".parquet"))

    def close(self) -> None:
        self.pool.close()
        self.catalog.close()


def append(table: Table, entries: Iterable[DataFileEntry]) -> None:
    """Commit entries as any program would that uses stock PyIceberg."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        for entry in entries:
            snapshot.append_data_file(entry.to_iceberg())


def local_path(entry: DataFileEntry) -> str:
    return entry.path.removeprefix("file://")


def numbers(times: Sequence[int] | np.ndarray, values: Sequence[float] | np.ndarray | None = None) -> pa.RecordBatch:
    """A batch of `NUMBERS`; by default each row's value is its position."""
    times = pa.array(np.asarray(times, np.int64))
    values = pa.array(np.arange(len(times), dtype=np.float64) if values is None else np.asarray(values, np.float64))
    return pa.RecordBatch.from_arrays([times, values], schema=NUMBERS)
