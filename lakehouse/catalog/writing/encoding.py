"""How each column of a data file is encoded, chosen from the first rows that go into it.

Write speed (MB/s of one core) and compression ratio, 100,000 values a column:

| values                | PLAIN zstd-1 | BYTE_STREAM_SPLIT zstd-1 | dictionary zstd-1 | DELTA, no codec |
|-----------------------|--------------|--------------------------|-------------------|-----------------|
| random-walk doubles   | 1073, 1.06   | 1135, 1.23               | 232, 0.84         |                 |
| rounded to 4 decimals | 366, 2.66    | 1125, 1.23               | 320, 2.88         |                 |
| 16-bit sensor, scaled | 307, 1.79    | 790, 1.24                | 487, 3.16         |                 |
| float32 as double     | 349, 1.74    | 879, 2.06                | 177, 1.14         |                 |
| each value 10 times   | 1533, 9.76   | 680, 10.75               | 796, 8.22         |                 |
| timestamps, jitter    | 594, 1.61    |                          | 203, 1.14         | 1428, 3.49      |
| counters              | 566, 7.75    |                          | 294, 2.69         | 2018, 288       |

No column uses LZ4: in Parquet it exists in two forms, and not every engine reads the modern one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.catalog.iceberg.leaves import Leaf

SAMPLE_ROWS = 8192
# Values of one leaf that are looked at; lists bring many per row.
SAMPLE_VALUES = 8192
# Dictionaries pay when a value returns this often on average.
REPETITION = 4
# Byte streams are split unless plain values come out smaller by this factor: splitting is far cheaper.
PLAIN_ADVANTAGE = 1.25
# A codec must gain this much to be worth its time.
CODEC_GAIN = 1.05

BLOB_BYTES = 1024
BLOB_SAMPLES, BLOB_SAMPLE_BYTES = 4, 1 << 16
# JPEG, PNG and video gain nothing; raw frames and point clouds may.
BLOB_CODEC_GAIN = 1.5

ZSTD, UNCOMPRESSED = "zstd", "none"
ZSTD_LEVEL = 1
PLAIN, BYTE_STREAM_SPLIT, DELTA = "PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"

_CODEC = pa.Codec(ZSTD, compression_level=ZSTD_LEVEL)


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


@dataclass(frozen=True, slots=True)
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
            "compression_level": {path: ZSTD_LEVEL for path, chosen in columns.items() if chosen.codec == ZSTD},
            "write_statistics": [path for path, chosen in columns.items() if chosen.statistics],
        }


def choose_encoding(rows: pa.Table, leaves: Sequence[Leaf], columns_with_nan: frozenset[int]) -> FileEncoding:
    """Choose for every leaf from the first rows of a file.

    Args:
        rows: The first rows.
        leaves: The leaves of the file.
        columns_with_nan: Field ids of the columns that get no statistics. Parquet's leave NaN out, and some engines
            then take a filter for granted, or for impossible, that it is not for NaN.
    """
    sample = _first_rows(rows)
    paths = Counter(leaf.parquet_path for leaf in leaves)
    chosen: dict[str, ColumnEncoding] = {}
    for leaf in leaves:
        path = leaf.parquet_path
        # A dot in a name can make two paths look alike to the writer; both then get what suits every type.
        encoding = _choose(leaf, leaf.values(sample)) if paths[path] == 1 else ColumnEncoding(PLAIN)
        if leaf.field_id in columns_with_nan or (path in chosen and not chosen[path].statistics):
            encoding = replace(encoding, statistics=False)
        chosen[path] = encoding
    return FileEncoding(chosen)


def _first_rows(rows: pa.Table) -> pa.RecordBatch:
    """The first batch if it is not tiny; else the first rows joined."""
    first = next((batch for batch in rows.to_batches() if batch.num_rows), None)
    if first is not None and (first.num_rows == rows.num_rows or first.num_rows >= SAMPLE_ROWS // 4):
        return first.slice(0, SAMPLE_ROWS)
    return pa.concat_batches(rows.slice(0, SAMPLE_ROWS).to_batches())


def _choose(leaf: Leaf, values: pa.Array) -> ColumnEncoding:
    kind = leaf.type
    if pat.is_dictionary(values.type):
        return ColumnEncoding()
    if pat.is_boolean(kind):
        return ColumnEncoding(PLAIN)
    values = values.slice(0, SAMPLE_VALUES).drop_null()
    if pat.is_binary(kind) or pat.is_large_binary(kind) or pat.is_fixed_size_binary(kind):
        return ColumnEncoding(PLAIN, _blob_codec(values), statistics=False)
    if len(values) == 0 or _repeats(values):
        return ColumnEncoding()
    if leaf.is_top_level:
        # Iceberg's vectorised Spark reader, used where only top-level primitives are projected, knows no other.
        return ColumnEncoding(PLAIN)
    if pat.is_floating(kind):
        return _float_encoding(values)
    if pat.is_integer(kind) or pat.is_temporal(kind):
        return ColumnEncoding(DELTA, UNCOMPRESSED)
    return ColumnEncoding(PLAIN)


def _repeats(values: pa.Array) -> bool:
    return bool(pc.count_distinct(values).as_py() * REPETITION <= len(values))


def _float_encoding(values: pa.Array) -> ColumnEncoding:
    numbers = values.to_numpy(zero_copy_only=False)
    split = np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T)
    plain_size, split_size = _compressed_size(numbers), _compressed_size(split)
    if plain_size * PLAIN_ADVANTAGE < split_size:
        return ColumnEncoding(PLAIN)
    if split_size * CODEC_GAIN > numbers.nbytes:
        return ColumnEncoding(PLAIN, UNCOMPRESSED)
    return ColumnEncoding(BYTE_STREAM_SPLIT)


def _blob_codec(values: pa.Array) -> str:
    if len(values) == 0 or values.nbytes / len(values) < BLOB_BYTES:
        return ZSTD
    # From the middle of a value, behind headers and palettes.
    samples = []
    for value in values[:: max(1, len(values) // BLOB_SAMPLES)]:
        content = value.as_buffer()
        if content is not None:
            size = min(content.size, BLOB_SAMPLE_BYTES)
            samples.append(content.slice((content.size - size) // 2, size))
    gain = sum(sample.size for sample in samples) / max(1, sum(_compressed_size(sample) for sample in samples))
    return ZSTD if gain >= BLOB_CODEC_GAIN else UNCOMPRESSED


def _compressed_size(data: Any) -> int:
    return len(_CODEC.compress(pa.py_buffer(data)))
