"""The Parquet encoder alone: rows that are in memory, in their final form, to durable files; and the way back.

The files are what an upload of the same rows writes: same schema, same encodings, same row groups, same sizes. All that
an upload does around it (receiving, validating, buffering, counting, describing) is left out.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from bench.client import Transfer
from bench.rows import RowSource
from lakehouse.catalog.iceberg.leaves import parquet_leaves
from lakehouse.catalog.reading.parquet_slices import READ_BUFFER_BYTES
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.writing.encoding import choose_encoding
from lakehouse.ontology.arrow_iceberg import (
    TIMESTAMP_COLUMN,
    StoragePlan,
    parquet_schema,
    plan_storage,
    topic_table_schema,
)
from lakehouse.ontology.envelope import Envelope


def encode_topics(rows: RowSource, size: int, topics: int, threads: int, directory: str) -> Transfer:
    """Write `topics` copies of a topic of `size` bytes into `directory`, `threads` of them at a time."""
    files = list(_files(rows, size))
    target = Path(directory)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    plan = plan_storage(rows.schema)
    stored = parquet_schema(topic_table_schema(plan), plan)
    envelope, leaves = Envelope(stored, "bench", "bench:session"), parquet_leaves(stored)
    completed = [[envelope.add(_in_storage_form(group, plan)) for group in groups] for groups in files]

    def encode(topic: int) -> None:
        for number, groups in enumerate(completed):
            path = str(target / f"{topic}-{number}.parquet")
            options = choose_encoding(groups[0], leaves, frozenset()).writer_options()
            with (
                LocalFileSystem().open_output_stream(path) as sink,
                pq.ParquetWriter(sink, envelope.file_schema, store_schema=False, **options) as writer,
            ):
                for group in groups:
                    writer.write_table(group, row_group_size=group.num_rows)
            _synchronize(path)

    with ThreadPoolExecutor(threads) as pool:
        processor, started = time.process_time(), time.monotonic()
        list(pool.map(encode, range(topics)))
        ended, processor = time.monotonic(), time.process_time() - processor
    shutil.rmtree(target)
    row_count = sum(group.num_rows for groups in completed for group in groups)
    arrow_size = sum(batch.nbytes for batch in rows.take(size))
    return Transfer(started, ended, ended, topics * row_count, topics * arrow_size, processor)


def decode_files(
    rows: RowSource, files: Sequence[tuple[str, Sequence[int]]], batch_rows: int, size: int, start_ns: int = 0
) -> Transfer:
    """Read the payload of row groups one after another, and let go of it at once.

    Args:
        rows: Rows of the kind that the files hold.
        files: Paths, and which of their row groups.
        batch_rows: Rows in a batch.
        size: Bytes of Arrow data wanted from them, as a client of the gateway would count them.
        start_ns: The first batch is the first one with rows from this time on.
    """
    columns = plan_storage(rows.schema).storage_schema.names
    first, count = 0.0, 0
    processor, started = time.process_time(), time.monotonic()
    for path, row_groups in files:
        with pa.OSFile(path) as source, pq.ParquetFile(source, buffer_size=READ_BUFFER_BYTES) as file:
            for batch in file.iter_batches(batch_rows, row_groups=row_groups, columns=columns):
                if not first and batch.column(TIMESTAMP_COLUMN)[-1].as_py() >= start_ns:
                    first = time.monotonic()
                count += batch.num_rows
    return Transfer(started, first, time.monotonic(), count, size, time.process_time() - processor)


def decode_row_group(rows: RowSource, path: str, number: int) -> Transfer:
    """Read the payload of one row group at once."""
    columns = plan_storage(rows.schema).storage_schema.names
    with pa.OSFile(path) as source, pq.ParquetFile(source) as file:
        started = time.monotonic()
        group = file.read_row_group(number, columns=columns)
        ended = time.monotonic()
    return Transfer(started, ended, ended, group.num_rows, group.nbytes)


def _synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(rows: RowSource, size: int) -> Iterator[list[pa.Table]]:
    """The row groups of each file that an upload makes of these rows."""
    settings = Settings.load()
    groups: list[pa.Table] = []
    file_size = 0
    for group in _row_groups(rows.take(size), settings.encoding_buffer_size):
        if groups and file_size + group.nbytes > settings.max_chunk_size:
            yield groups
            groups, file_size = [], 0
        groups.append(group)
        file_size += group.nbytes
    yield groups


def _row_groups(batches: Iterator[pa.RecordBatch], target: int) -> Iterator[pa.Table]:
    collected: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        collected.append(batch)
        size += batch.nbytes
        if size >= target:
            yield from _split(pa.Table.from_batches(collected), round(size / target))
            collected, size = [], 0
    if collected:
        yield pa.Table.from_batches(collected)


def _split(table: pa.Table, pieces: int) -> Iterator[pa.Table]:
    for number in range(pieces):
        first, last = table.num_rows * number // pieces, table.num_rows * (number + 1) // pieces
        yield table.slice(first, last - first)


def _in_storage_form(group: pa.Table, plan: StoragePlan) -> pa.Table:
    return pa.Table.from_batches([plan.to_storage(batch) for batch in group.to_batches()])
