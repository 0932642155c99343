"""Rows which other engines deleted one by one (Iceberg spec, "Row-level Deletes").

We never write such deletions. Spark and Trino do, as files of positions in format version 2 and as deletion vectors in
version 3, and rows that were deleted must never be returned.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap64

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.storage import Warehouse

CACHE_BYTES = 64 << 20
_PATH_COLUMN, _POSITION_COLUMN = "file_path", "pos"
# A deletion vector: length, these bytes, a bitmap, checksum (Puffin spec, "deletion-vector-v1").
_VECTOR_MAGIC = bytes.fromhex("d1d33964")
_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class RowDeletion:
    """A stored set of positions of deleted rows.

    Attributes:
        path: URI of a position delete file, which may tell of many data files, or of a Puffin file.
        vector: Offset and size in bytes of a deletion vector in the Puffin file; it tells of one data file.
    """

    path: str
    vector: tuple[int, int] | None = None


class RowDeletes:
    """Reads row deletions, which are immutable, and keeps recently used ones.

    Args:
        warehouse: Where the files are.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._found: BoundedCache[RowDeletion, dict[str, np.ndarray]] = BoundedCache(
            CACHE_BYTES, lambda found: sum(len(path) + positions.nbytes for path, positions in found.items())
        )

    def positions(self, deletions: Sequence[RowDeletion], data_file: str) -> np.ndarray | None:
        """Positions of the deleted rows of a data file, ascending and without repetition; None if there are none.

        Args:
            deletions: What may tell of rows of this file; vectors do.
            data_file: URI.

        Raises:
            StorageError: If what was deleted cannot be read.
        """
        found = [self._found.get(each, partial(self._load, each, data_file)).get(data_file) for each in deletions]
        present = [positions for positions in found if positions is not None and len(positions)]
        return np.unique(np.concatenate(present)) if present else None

    def _load(self, deletion: RowDeletion, data_file: str) -> dict[str, np.ndarray]:
        try:
            with self._warehouse.open_input(deletion.path) as source:
                if deletion.vector is not None:
                    offset, size = deletion.vector
                    source.seek(offset)
                    return {data_file: decode_vector(source.read(size))}
                table = pq.read_table(source, columns=[_PATH_COLUMN, _POSITION_COLUMN])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError("what another engine deleted from the table cannot be read") from error
        paths = table.column(_PATH_COLUMN).combine_chunks().dictionary_encode()
        codes, positions = paths.indices.to_numpy(), table.column(_POSITION_COLUMN).to_numpy()
        return {name: positions[codes == code] for code, name in enumerate(paths.dictionary.to_pylist())}


def decode_vector(blob: bytes) -> np.ndarray:
    """The positions that a deletion vector names, ascending.

    Raises:
        ValueError: If it is cut off or damaged.
    """
    length = int.from_bytes(blob[:_NUMBER_BYTES], "big")
    content, checksum = blob[_NUMBER_BYTES : _NUMBER_BYTES + length], blob[_NUMBER_BYTES + length :]
    is_whole = len(content) == length and len(checksum) == _NUMBER_BYTES
    if not is_whole or content[: len(_VECTOR_MAGIC)] != _VECTOR_MAGIC:
        raise ValueError("no deletion vector")
    if int.from_bytes(checksum, "big") != zlib.crc32(content):
        raise ValueError("a deletion vector does not have its checksum")
    return np.asarray(BitMap64.deserialize(content[len(_VECTOR_MAGIC) :]).to_array(), np.int64)
