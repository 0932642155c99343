"""Rows which other engines deleted by position (Iceberg spec, "Position Delete Files").

We never write such files. Spark and Trino do, and rows that were deleted must never be returned.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.storage import Warehouse

CACHE_BYTES = 64 << 20
_PATH_COLUMN, _POSITION_COLUMN = "file_path", "pos"


class RowDeletes:
    """Reads position delete files, which are immutable, and keeps recently used ones.

    Args:
        warehouse: Where the files are.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._files: BoundedCache[str, dict[str, np.ndarray]] = BoundedCache(
            CACHE_BYTES, lambda found: sum(len(path) + positions.nbytes for path, positions in found.items())
        )

    def positions(self, delete_files: Sequence[str], data_file: str) -> np.ndarray | None:
        """Positions of the deleted rows of a data file, ascending and without repetition; None if there are none.

        Raises:
            StorageError: If a delete file cannot be read.
        """
        found = [self._files.get(path, lambda path=path: self._load(path)).get(data_file) for path in delete_files]  # type: ignore[misc]
        present = [positions for positions in found if positions is not None]
        return np.unique(np.concatenate(present)) if present else None

    def _load(self, path: str) -> dict[str, np.ndarray]:
        try:
            with self._warehouse.open_input(path) as source:
                table = pq.read_table(source, columns=[_PATH_COLUMN, _POSITION_COLUMN])
        except (pa.ArrowException, OSError) as error:
            raise StorageError("a row delete file of the table cannot be read") from error
        paths = table.column(_PATH_COLUMN).combine_chunks().dictionary_encode()
        codes, positions = paths.indices.to_numpy(), table.column(_POSITION_COLUMN).to_numpy()
        return {name: positions[codes == code] for code, name in enumerate(paths.dictionary.to_pylist())}
