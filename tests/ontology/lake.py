"""A small real Iceberg catalog, and Parquet files written and read as uploads and queries do."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from lakehouse.ontology.arrow_iceberg import StoragePlan, parquet_schema, topic_table_schema
from lakehouse.ontology.envelope import Envelope


class Lake:
    """A warehouse below `directory` with its catalog in SQLite."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.catalog = SqlCatalog("lake", uri=f"sqlite:///{directory}/lake.db", warehouse=f"file://{directory}/lake")
        self.catalog.create_namespace("topics")

    def create_table(self, plan: StoragePlan, ontology_tag: str | None = None) -> Table:
        self._count += 1
        schema = topic_table_schema(plan, ontology_tag)
        spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "sequence"))
        return self.catalog.create_table(f"topics.topic_{self._count}", schema, partition_spec=spec)

    def append(self, table: Table, plan: StoragePlan, batches: list[pa.RecordBatch], sequence: str = "drive") -> Path:
        """Write one data file and commit it."""
        self._count += 1
        path = self._directory / f"{self._count}.parquet"
        row_count = write_parquet(path, plan, parquet_schema(table.schema(), plan), batches, sequence)
        data_file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path.as_uri(),
            file_format=FileFormat.PARQUET,
            partition=Record(sequence),
            record_count=row_count,
            file_size_in_bytes=path.stat().st_size,
        )
        data_file.spec_id = table.spec().spec_id
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
            append.append_data_file(data_file)
        return path


def write_parquet(
    path: Path, plan: StoragePlan, schema: pa.Schema, batches: list[pa.RecordBatch], sequence: str = "drive"
) -> int:
    envelope = Envelope(schema, sequence, "drive:1")
    with pq.ParquetWriter(path, envelope.file_schema, store_schema=False, store_decimal_as_integer=True) as writer:
        for batch in batches:
            rows = envelope.add(pa.Table.from_batches([plan.to_storage(batch)]))
            rows.validate(full=True)
            writer.write_table(rows)
    return sum(batch.num_rows for batch in batches)


def read_parquet(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=1000)


def scan(table: Table) -> Iterator[pa.RecordBatch]:
    yield from table.scan().to_arrow().to_batches()
