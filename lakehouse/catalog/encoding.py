"""How each column of a data file is encoded, chosen from the first rows that go into it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.catalog.leaves import Leaf

SAMPLE_ROWS = 4096
# Values of one leaf that are looked at; lists and blobs bring many per row.
SAMPLE_VALUES = 8192
# Dictionaries pay when a value returns this often on average.
REPETITION = 4
BLOB_BYTES = 1024

ZSTD, UNCOMPRESSED = "zstd", "none"
PLAIN, BYTE_STREAM_SPLIT, DELTA = "PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"


@dataclass(frozen=True, slots=True)
class ColumnEncoding:
    """Encoding of one leaf.

    Attributes:
        encoding: Parquet encoding, or None for a dictionary.
        codec: Compression of the encoded pages.
        statistics: Whether the footer gets smallest and largest value.
    """

    encoding: str | None = None
    codec: str = ZSTD
    statistics: bool = True


@dataclass(slots=True)
class FileEncoding:
    """Encodings of all leaves of a file, by Parquet path."""

    columns: dict[str, ColumnEncoding] = field(default_factory=dict)

    def writer_options(self) -> dict[str, Any]:
        """Arguments for `pyarrow.parquet.ParquetWriter`."""
        columns = self.columns
        return {
            "use_dictionary": [path for path, chosen in columns.items() if chosen.encoding is None],
            "column_encoding": {path: chosen.encoding for path, chosen in columns.items() if chosen.encoding},
            "compression": {path: chosen.codec for path, chosen in columns.items()},
            "compression_level": {path: 1 for path, chosen in columns.items() if chosen.codec == ZSTD},
            "write_statistics": [path for path, chosen in columns.items() if chosen.statistics],
        }


def choose_encoding(rows: pa.Table, leaves: Sequence[Leaf]) -> FileEncoding:
    """Choose for every leaf from the first rows of a file."""
    sample = _sample(rows)
    chosen = FileEncoding()
    paths = Counter(leaf.parquet_path for leaf in leaves)
    for leaf in leaves:
        if paths[leaf.parquet_path] > 1:
            # A dot in a name can make two paths look alike to the writer; both get what suits every type.
            chosen.columns[leaf.parquet_path] = ColumnEncoding(PLAIN)
        else:
            chosen.columns[leaf.parquet_path] = _choose(leaf, leaf.values(sample))
    return chosen


def _sample(rows: pa.Table) -> pa.RecordBatch:
    head = rows.slice(0, SAMPLE_ROWS).combine_chunks()
    batches = head.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)


def _choose(leaf: Leaf, values: pa.Array) -> ColumnEncoding:
    kind = leaf.type
    if pat.is_dictionary(values.type):
        return ColumnEncoding()
    values = values.slice(0, SAMPLE_VALUES).drop_null()
    if pat.is_boolean(kind):
        return ColumnEncoding(PLAIN)
    if pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind):
        large = len(values) > 0 and values.nbytes / len(values) >= BLOB_BYTES
        return ColumnEncoding(PLAIN, UNCOMPRESSED if large else ZSTD, statistics=False)
    if len(values) == 0 or _repeats(values):
        return ColumnEncoding()
    if leaf.is_top_level:
        # Iceberg's vectorised Spark reader, used when only top-level primitives are projected, knows no other.
        return ColumnEncoding(PLAIN)
    if pat.is_floating(kind):
        return ColumnEncoding(BYTE_STREAM_SPLIT)
    if pat.is_integer(kind) or pat.is_temporal(kind):
        return ColumnEncoding(DELTA)
    return ColumnEncoding(PLAIN)


def _repeats(values: pa.Array) -> bool:
    return bool(pc.count_distinct(values).as_py() * REPETITION <= len(values))
