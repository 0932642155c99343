"""Bounds of the elements of lists and maps, kept in the header of the manifest that lists the files.

Iceberg knows bounds of columns that hold one value per row; its engines neither write nor expect any for elements.
An Avro file, however, may carry metadata under keys of anybody's choice, and readers skip what they do not know (Avro
specification, "Object Container Files"). There the bounds of elements share the fate of their manifest: written,
made visible, merged, expired and deleted with it, without a file of their own. A manifest that another engine rewrote
has none, and a file without any is simply not excluded.

The form is a version, a digest of the paths the records are about, and a compressed Arrow IPC stream with one row per
file and field; all in base64, since PyIceberg takes every value of the header for text. Files are numbered as the
manifest lists them, deleted entries left out; records whose digest does not fit the entries beside them are not
believed.
"""

import base64
import binascii
import hashlib
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from lakehouse.catalog.iceberg.bounds import ElementBounds

HEADER_KEY = "mosaico.element-bounds"

_VERSION = b"\x01"
_DIGEST_BYTES = 16
_HEAD_BYTES = len(_VERSION) + _DIGEST_BYTES
_SCHEMA = pa.schema(
    [
        pa.field("file", pa.int32(), nullable=False),
        pa.field("field_id", pa.int32(), nullable=False),
        pa.field("lower", pa.binary()),
        pa.field("upper", pa.binary()),
        pa.field("values", pa.int64(), nullable=False),
        pa.field("nulls", pa.int64(), nullable=False),
        pa.field("nans", pa.int64()),
    ]
)

logger = logging.getLogger(__name__)


class ElementColumns(NamedTuple):
    """What is recorded of one field, one entry per file, null where nothing is; see `ElementBounds`."""

    lower: pa.Array
    upper: pa.Array
    value_counts: pa.Array
    null_counts: pa.Array
    nan_counts: pa.Array


@dataclass(frozen=True, eq=False)
class ElementRecords:
    """Bounds of elements in numbered files.

    Attributes:
        rows: One row per file and field, in the columns of the stored form.
    """

    rows: pa.Table

    @classmethod
    def of(cls, files: Sequence[Mapping[int, ElementBounds]]) -> Self:
        """The records of files, numbered from 0; each by field id."""
        records = [
            (number, field_id, each.lower, each.upper, each.value_count, each.null_count, each.nan_count)
            for number, of_file in enumerate(files)
            for field_id, each in of_file.items()
        ]
        columns = zip(*records, strict=True) if records else ([] for _ in _SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        return cls(pa.Table.from_arrays(arrays, schema=_SCHEMA))

    def columns(self, field_id: int, file_count: int) -> ElementColumns:
        """What is recorded of one field in each file."""
        found = np.flatnonzero(self.rows["field_id"].to_numpy() == field_id)
        positions = np.full(file_count, -1, np.int64)
        positions[self.rows["file"].to_numpy()[found]] = found
        chosen = self.rows.take(pa.array(positions, mask=positions < 0))
        return ElementColumns(
            *(chosen[name].combine_chunks() for name in ("lower", "upper", "values", "nulls", "nans"))
        )

    def encode(self, paths: Sequence[str]) -> bytes:
        """The stored form, for a manifest that lists files of these paths, in this order."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            writer.write_table(self.rows.combine_chunks())
        return base64.b64encode(_VERSION + _digest(paths) + zlib.compress(memoryview(sink.getvalue()), 1))


class ElementReference(NamedTuple):
    """Where the bounds of one file are recorded."""

    records: ElementRecords
    number: int


def gather(references: Iterable[ElementReference | None]) -> ElementRecords | None:
    """The records of files from anywhere, numbered in the order given; None if there are none."""
    numbers: dict[int, tuple[ElementRecords, list[tuple[int, int]]]] = {}
    for position, reference in enumerate(references):
        if reference is not None:
            _records, pairs = numbers.setdefault(id(reference.records), (reference.records, []))
            pairs.append((reference.number, position))
    parts = [_renumbered(records.rows, pairs) for records, pairs in numbers.values()]
    rows = pa.concat_tables(parts) if parts else _SCHEMA.empty_table()
    return ElementRecords(rows) if rows.num_rows else None


def decode_records(stored: bytes | None, paths: Sequence[str]) -> ElementRecords | None:
    """Read what `ElementRecords.encode` wrote.

    Returns:
        None if there is nothing, or nothing to be believed: of another version, about other files, or damaged.
    """
    if not stored:
        return None
    try:
        content = base64.b64decode(stored, validate=True)
        version, digest, compressed = content[:1], content[1:_HEAD_BYTES], content[_HEAD_BYTES:]
        if version != _VERSION:
            return None
        if digest != _digest(paths):
            logger.warning("a manifest carries bounds of elements that are about other files")
            return None
        rows = pa.ipc.open_stream(zlib.decompress(compressed)).read_all()
        rows.validate(full=True)
    except (binascii.Error, zlib.error, pa.ArrowException, OSError) as error:
        logger.warning("the bounds of elements in a manifest are damaged: %s", error)
        return None
    return ElementRecords(rows) if rows.schema.equals(_SCHEMA) else None


def _renumbered(rows: pa.Table, pairs: Sequence[tuple[int, int]]) -> pa.Table:
    """The rows of some files, under new numbers."""
    old, new = np.array(pairs, np.int64).T
    numbers = rows["file"].to_numpy()
    positions = np.full(max(int(old.max()), int(numbers.max(initial=0))) + 1, -1, np.int32)
    positions[old] = new
    renumbered = positions[numbers]
    moved = rows.set_column(0, _SCHEMA.field("file"), pa.array(renumbered, pa.int32()))
    return moved.filter(pa.array(renumbered >= 0))


def _digest(paths: Sequence[str]) -> bytes:
    return hashlib.blake2b("\n".join(paths).encode(), digest_size=_DIGEST_BYTES).digest()
