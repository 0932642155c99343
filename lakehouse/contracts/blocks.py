"""The rows of a topic in blocks of bounded size."""

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from lakehouse.catalog.errors import DamagedDataError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import TopicRecord

BLOCK_ROWS = 65_536
BLOCK_BYTES = 64 << 20


def read_blocks(lake: Lakehouse, topic: TopicRecord) -> Iterator[pl.DataFrame]:
    """The rows of a topic in time order.

    Raises:
        NotFoundError: If the topic is gone.
        DamagedDataError: If its rows cannot be decoded.
        StorageError: If they cannot be read for another reason.
    """
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in lake.reader.read(topic):
        batches.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield _frame(batches)
            batches, rows, size = [], 0, 0
    if batches:
        yield _frame(batches)


def _frame(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    try:
        frame = pl.from_arrow(pa.Table.from_batches(batches), rechunk=True)
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise DamagedDataError(f"rows cannot be taken apart into columns: {error}") from error
    assert isinstance(frame, pl.DataFrame)
    return frame
