"""Changes of single rows in the small, unpartitioned metadata tables.

Rows are appended as one small Parquet file per commit; rows are removed copy-on-write: the few files that hold them are
rewritten without. Maintenance merges small files, so there are never many.
"""

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.typedef import Record
from pyiceberg.types import PrimitiveType

from lakehouse.catalog.errors import ChangedTableError
from lakehouse.catalog.iceberg.arrow_schemas import arrow_schema
from lakehouse.catalog.iceberg.bounds import ElementCounts, column_metrics, count_elements
from lakehouse.catalog.iceberg.leaves import parquet_leaves
from lakehouse.catalog.iceberg.manifest_lists import DATA_CONTENT
from lakehouse.catalog.iceberg.manifests import DELETED, read_avro_entries
from lakehouse.catalog.iceberg.staging import REPLACE, FileChange, StagedTable, stage
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles

# Files of one size class are merged when there are this many; a row is rewritten once per class.
FILES_PER_SIZE_CLASS = 12
# Rows carry schemas of several kilobytes each: merging larger files would take too much memory.
LARGE_FILE_ROWS = 20_000


@dataclass(frozen=True)
class RowChange:
    """What a plan does to the rows of a metadata table.

    Attributes:
        key: What the rows are about (name of the sequence); two plans with one key are never committed together.
        append: Rows in the columns of the table; None: none.
        remove: Rows that have all these values are removed; empty: none.
        remove_below: Rows whose numbers in these columns are all below the limits are removed; empty: none.
    """

    key: str
    append: pa.Table | None = None
    remove: Mapping[str, str] = field(default_factory=dict)
    remove_below: Mapping[str, int] = field(default_factory=dict)


def stage_rows(
    files: TableFiles, identifier: str, base: TableDocument, changes: Sequence[RowChange], summary: Mapping[str, str]
) -> StagedTable | None:
    """Stage a snapshot with all changes.

    Returns:
        None if there is nothing to append and no row matches what is to be removed.

    Raises:
        ChangedTableError: If another engine has changed the table so that rows of ours do not fit; nothing is written.
        StorageError: If a file cannot be read or written.
    """
    base.check_writable()
    filters = [change for change in changes if change.remove or change.remove_below]
    appended = [
        _fitted(base, change.append) for change in changes if change.append is not None and change.append.num_rows
    ]
    replaced, survivors = _rewrite_without(files, base, filters) if filters else ([], [])
    if not replaced and not appended:
        return None
    rows = [table for table in (*survivors, *appended) if table.num_rows]
    added = [_write(files, base, [pa.concat_tables(rows)])] if rows else []
    change = FileChange(add=added, delete_paths=frozenset(file.file_path for file in replaced), summary=summary)
    return stage(files, identifier, base, change, data_files=[data_file.file_path for data_file in added])


@dataclass(frozen=True)
class MergedRows:
    """A durable file with the rows of several small ones, not part of the table yet."""

    merged: DataFile
    replaced: frozenset[str]


def merge_row_files(files: TableFiles, base: TableDocument) -> MergedRows | None:
    """Write one file in place of the small ones of a size; None if there are not enough to be worth it.

    Data files never change: the result stays good whatever is committed meanwhile, as long as all of them are live.

    Raises:
        ChangedTableError: If another engine has changed the table so that its files must be left alone.
        StorageError: If a file cannot be read or written.
    """
    classes: dict[int, list[DataFile]] = {}
    for data_file in _live_files(files, base):
        if data_file.record_count >= LARGE_FILE_ROWS:
            continue
        size_class = int(math.log(max(data_file.record_count, 1), FILES_PER_SIZE_CLASS))
        classes.setdefault(size_class, []).append(data_file)
    small = [file for group in classes.values() if len(group) >= FILES_PER_SIZE_CLASS for file in group]
    if not small:
        return None
    merged = _write(files, base, (_read(files, base, data_file) for data_file in small))
    return MergedRows(merged, frozenset(data_file.file_path for data_file in small))


def stage_merged_rows(files: TableFiles, identifier: str, base: TableDocument, rows: MergedRows) -> StagedTable | None:
    """Stage the snapshot that swaps the merged file in; None, and it is removed, if one of the small ones is gone."""
    live = {data_file.file_path for data_file in _live_files(files, base)}
    if not rows.replaced <= live:
        files.warehouse.delete([rows.merged.file_path])
        return None
    change = FileChange(add=[rows.merged], delete_paths=rows.replaced, operation=REPLACE)
    return stage(files, identifier, base, change)


def _rewrite_without(
    files: TableFiles, base: TableDocument, filters: Sequence[RowChange]
) -> tuple[list[DataFile], list[pa.Table]]:
    """The files that hold matching rows, and what remains of them."""
    replaced, survivors = [], []
    for data_file in _live_files(files, base):
        if not any(_may_match(base.schema, data_file, change) for change in filters):
            continue
        rows = _read(files, base, data_file)
        kept = rows
        for change in filters:
            kept = kept.filter(pc.invert(_matches(kept, change)))
        if kept.num_rows < rows.num_rows:
            replaced.append(data_file)
            survivors.append(kept)
    return replaced, survivors


def _matches(rows: pa.Table, change: RowChange) -> pa.ChunkedArray:
    """Which rows have all that is to be removed; never null."""
    equal = [pc.equal(rows[column], value) for column, value in change.remove.items()]
    below = [pc.less(rows[column], limit) for column, limit in change.remove_below.items()]
    return reduce(pc.and_, (pc.fill_null(condition, False) for condition in (*equal, *below)))


def _may_match(schema: Schema, data_file: DataFile, change: RowChange) -> bool:
    for column, value in change.remove.items():
        lower, upper = _bounds(schema, data_file, column)
        if (lower is not None and value < lower) or (upper is not None and value > upper):
            return False
    for column, limit in change.remove_below.items():
        lower, _ = _bounds(schema, data_file, column)
        if lower is not None and limit <= lower:
            return False
    return True


def _bounds(schema: Schema, data_file: DataFile, column: str) -> tuple[Any, Any]:
    """Smallest and largest value of a column in a file as far as they are known; texts may be cut."""
    found = schema.find_field(column)
    assert isinstance(found.field_type, PrimitiveType), "rows are removed by plain columns only"
    both = ((bounds or {}).get(found.field_id) for bounds in (data_file.lower_bounds, data_file.upper_bounds))
    lower, upper = (None if bound is None else from_bytes(found.field_type, bound) for bound in both)
    return lower, upper


def _live_files(files: TableFiles, base: TableDocument) -> list[DataFile]:
    """The data files.

    Raises:
        ChangedTableError: If what is in them is not what the table holds.
        StorageError: If a file cannot be read.
    """
    snapshot = base.current_snapshot
    if snapshot is None:
        return []
    records = [record for record in files.manifest_list(snapshot["manifest-list"]) if record.live_files]
    if any(record.content != DATA_CONTENT for record in records):
        raise ChangedTableError(
            f"single rows of table {base.name} were deleted by another engine: its data files have to be rewritten "
            "there before rows can be removed here"
        )
    if not base.columns.keeps_names:
        raise ChangedTableError(
            f"columns of table {base.name} were renamed by another engine: rows cannot be removed from it here"
        )
    return [
        entry.data_file
        for record in records
        for entry in read_avro_entries(files.read(record.path))
        if entry.status != DELETED
    ]


def _read(files: TableFiles, base: TableDocument, data_file: DataFile) -> pa.Table:
    with files.warehouse.open_input(data_file.file_path) as source:
        rows = pq.read_table(source)
    return _conformed(base.schema, rows)


def _conformed(schema: Schema, rows: pa.Table) -> pa.Table:
    """`rows` in the columns of the table; those that a file of an earlier release lacks are null."""
    target = arrow_schema(schema)
    columns = [
        rows[wanted.name].cast(wanted.type) if wanted.name in rows.schema.names else pa.nulls(len(rows), wanted.type)
        for wanted in target
    ]
    return pa.table(columns, schema=target)


def _fitted(base: TableDocument, rows: pa.Table) -> pa.Table:
    """Rows of ours in the columns of the table; those that somebody else has added are null."""
    for name in rows.schema.names:
        base.column_id(name)
    return _conformed(base.schema, rows)


def _write(files: TableFiles, base: TableDocument, tables: Iterable[pa.Table]) -> DataFile:
    """Write one file, a row group per table, so that no more than one of them is in memory."""
    schema = arrow_schema(base.schema)
    uri = f"{base.location}/data/{uuid.uuid4()}.parquet"
    leaves = parquet_leaves(schema)
    counts: list[list[ElementCounts | None]] = []
    with files.warehouse.open_output(uri) as stream:
        writer = pq.ParquetWriter(stream, schema, compression="zstd")
        for table in tables:
            rows = table.cast(schema).combine_chunks()
            writer.write_table(rows, row_group_size=rows.num_rows)
            counts += [count_elements(batch, leaves) for batch in rows.to_batches()]
        writer.close()
        size = stream.tell()
    footer = writer.writer.metadata
    metrics = column_metrics(footer, leaves, counts)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=uri,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=footer.num_rows,
        file_size_in_bytes=size,
        column_sizes=metrics.column_sizes,
        value_counts=metrics.value_counts,
        null_value_counts=metrics.null_value_counts,
        nan_value_counts=metrics.nan_value_counts,
        lower_bounds=metrics.lower_bounds,
        upper_bounds=metrics.upper_bounds,
        key_metadata=None,
        split_offsets=None,
        equality_ids=None,
        sort_order_id=None,
    )
