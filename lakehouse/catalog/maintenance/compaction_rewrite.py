"""Rewriting a group of data files as few: the same rows, in the order in which they are read, bounds and all."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from lakehouse.catalog import crash_points
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.bounds import count_rows
from lakehouse.catalog.iceberg.data_files import DataFileEntry, compacted_file_uri
from lakehouse.catalog.iceberg.leaves import Leaf, parquet_leaves
from lakehouse.catalog.maintenance.compaction_groups import PartitionFile
from lakehouse.catalog.reading.merge import TimedBatch, TimeSortedStream, largest_overlap, merge_by_time
from lakehouse.catalog.reading.parquet_slices import ParquetSlices, Selection
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import UNBOUNDED
from lakehouse.catalog.writing.data_file_writer import DataFileWriter, FilePlace
from lakehouse.catalog.writing.encoding import choose_encoding
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

_ROWS_AT_ONCE = 1 << 15
# Rows of all files that overlap, as they are merged.
_OPEN_BYTES = 64 << 20


@dataclass(frozen=True)
class CompactionGroup:
    """Files of one topic and day which become fewer.

    Attributes:
        sequence, day: The partition.
        topic_uuid: Names the topic.
        files: In order of arrival.
    """

    sequence: str
    day: int
    topic_uuid: str
    files: Sequence[PartitionFile]

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class RewrittenGroup:
    """A group and the durable files that hold its rows, not part of the table yet.

    Attributes:
        started: When the first of them was begun, Unix time in seconds.
    """

    group: CompactionGroup
    entries: Sequence[DataFileEntry]
    started: float


class GroupRewriter:
    """Rewrites groups; safe in several threads.

    Args:
        warehouse: Where the files are.
        file_bytes: Size, as stored, at which a file ends.
        row_group_bytes: Arrow data of a row group.
    """

    def __init__(self, warehouse: Warehouse, file_bytes: int, row_group_bytes: int) -> None:
        self._warehouse = warehouse
        self._slices = ParquetSlices(warehouse)
        self._file_bytes = file_bytes
        self._row_group_bytes = min(row_group_bytes, max(file_bytes, 1))

    def rewrite(self, group: CompactionGroup) -> RewrittenGroup:
        """Write the rows of a group into new files, durably.

        Raises:
            StorageError: If a file cannot be read or written, or does not hold what the table says; no file is left.
        """
        started = time.time()
        schema = self._common_schema(group)
        output = _Output(self._warehouse, group, schema, self._file_bytes)
        try:
            for rows in _row_groups(self._merged(group, schema), schema, self._row_group_bytes):
                output.write(rows)
            entries = output.close()
            if sum(entry.record_count for entry in entries) != group.rows:
                raise StorageError("data files hold another number of rows than the table says; left as they are")
            crash_points.reach("compaction-write:after")
            self._warehouse.make_durable(*(entry.path for entry in entries))
        except BaseException:
            output.discard()
            raise
        return RewrittenGroup(group, entries, started)

    def _common_schema(self, group: CompactionGroup) -> pa.Schema:
        """The columns of the files, Iceberg field ids included; one upload wrote them all, so they agree."""
        schemas = [self._slices.footer(file.path).metadata.schema.to_arrow_schema() for file in group.files]
        if any(not schema.equals(schemas[0], check_metadata=True) for schema in schemas[1:]):
            raise StorageError("data files of one topic have different columns; left as they are")
        return schemas[0].remove_metadata()

    def _merged(self, group: CompactionGroup, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        overlap = largest_overlap([file.start_ns for file in group.files], [file.end_ns for file in group.files])
        bytes_each = max(_OPEN_BYTES // overlap, 1)
        streams = [
            TimeSortedStream(file.start_ns, rank, partial(self._open, file, schema, bytes_each))
            for rank, file in enumerate(group.files)
        ]
        return merge_by_time(streams)

    def _open(self, file: PartitionFile, schema: pa.Schema, bytes_each: int) -> Iterator[TimedBatch]:
        bytes_per_row = self._slices.footer(file.path).bytes_per_row(schema.names)
        rows = int(min(max(bytes_each / bytes_per_row, 1), _ROWS_AT_ONCE))
        return self._slices.read(file.path, Selection(UNBOUNDED), schema.names, rows)


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema, target_bytes: int) -> Iterator[pa.Table]:
    """The batches joined to tables of about a size."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if waiting and size + batch.nbytes > target_bytes:
            yield _table(waiting, schema)
            waiting, size = [], 0
        waiting.append(batch)
        size += batch.nbytes
    if waiting:
        yield _table(waiting, schema)


def _table(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    rows = pa.Table.from_batches(batches)
    return rows if rows.schema.equals(schema, check_metadata=True) else rows.cast(schema)


class _Output:
    """The new files of a group, one after another in time."""

    def __init__(self, warehouse: Warehouse, group: CompactionGroup, schema: pa.Schema, file_bytes: int) -> None:
        self._warehouse = warehouse
        self._group = group
        self._schema = schema
        self._leaves = parquet_leaves(schema)
        self._file_bytes = file_bytes
        self._columns_with_nan = _columns_with_nan(group.files, self._leaves)
        self._token = uuid.uuid4().hex[:8]
        self._entries: list[DataFileEntry] = []
        self._writer: DataFileWriter | None = None

    def write(self, rows: pa.Table) -> None:
        times = rows.column(TIMESTAMP_COLUMN)
        counts = count_rows(rows, self._leaves)
        writer = self._writer = self._writer or self._begin(rows)
        writer.write(rows, counts, times[0].as_py(), times[-1].as_py(), rows.nbytes)
        if writer.stored_bytes >= self._file_bytes:
            self._end()

    def close(self) -> list[DataFileEntry]:
        self._end()
        return self._entries

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()
        self._warehouse.discard(entry.path for entry in self._entries)

    def _begin(self, rows: pa.Table) -> DataFileWriter:
        group, position = self._group, len(self._entries)
        first = group.files[0]
        assert first.arrival is not None
        return DataFileWriter(
            self._warehouse,
            FilePlace(
                compacted_file_uri(first.path, first.arrival, position, self._token),
                group.sequence,
                group.day,
                first.arrival[0],
            ),
            self._schema,
            self._leaves,
            choose_encoding(rows, self._leaves, self._columns_with_nan),
            self._columns_with_nan,
        )

    def _end(self) -> None:
        if self._writer is not None:
            self._entries.append(self._writer.close())
            self._writer = None


def _columns_with_nan(files: Sequence[PartitionFile], leaves: Sequence[Leaf]) -> frozenset[int]:
    """As the writer of uploads decides it: columns of one value per row in which NaN occurs."""
    found = frozenset().union(*(file.has_nan for file in files))
    return found & {leaf.field_id for leaf in leaves if not leaf.is_repeated}
