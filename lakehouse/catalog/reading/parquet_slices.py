"""The rows of one Parquet file inside a time window, read as little and as lazily as possible."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import DamagedDataError
from lakehouse.catalog.iceberg.column_history import ColumnHistory
from lakehouse.catalog.iceberg.data_files import is_own_file
from lakehouse.catalog.reading.file_columns import FileColumns, WantedColumns
from lakehouse.catalog.reading.merge import TimedBatch
from lakehouse.catalog.reading.remote_file import RemoteFiles, Span
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, UNBOUNDED, TimeInterval, TimeWindow
from lakehouse.ontology.storage_names import SEQUENCE_COLUMN, TIMESTAMP_COLUMN

FOOTER_CACHE_BYTES = 64 << 20
# Column chunks are read in pieces of this size, so that a chunk of blobs is never in memory as a whole.
READ_BUFFER_BYTES = 1 << 20
DEFAULT_SORTING_BYTES = 64 << 20
TIMESTAMPS_PER_BATCH = 1 << 16
SORTED_FLAGS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of one file says.

    Attributes:
        metadata: The parsed footer.
        file_size: Bytes of the whole file, where that had to be asked for.
        whole: All of it, if it is not larger than what is read to find a footer in an object store.
        row_counts: Rows of each row group.
        starts_ns, ends_ns: Bounds of `timestamp_ns` in each row group; the widest possible without statistics.
        column_bytes: Size before compression of all leaves of each top-level column.
    """

    metadata: pq.FileMetaData
    file_size: int
    whole: Span | None
    row_counts: np.ndarray
    starts_ns: np.ndarray
    ends_ns: np.ndarray
    column_bytes: dict[str, int]

    @property
    def nbytes(self) -> int:
        # The parsed form takes about twice the serialized one.
        own = 2 * self.metadata.serialized_size + 24 * len(self.row_counts)
        return own + (len(self.whole.content) if self.whole is not None else 0)

    def row_groups(self, window: TimeWindow) -> list[int]:
        """Indices of the row groups which may hold rows of the window, in file order."""
        overlaps = self.row_counts > 0
        if window.start_ns is not None:
            overlaps &= self.ends_ns >= window.start_ns
        if window.end_ns is not None:
            overlaps &= self.starts_ns < window.end_ns
        return [int(index) for index in np.flatnonzero(overlaps)]

    def bytes_per_row(self, columns: Collection[str]) -> float:
        """Average size of a row in these top-level columns, from the sizes before compression; at least 1."""
        total = sum(size for name, size in self.column_bytes.items() if name in columns)
        return max(total / max(self.metadata.num_rows, 1), 1.0)

    def lies_inside(self, row_group: int, window: TimeWindow) -> bool:
        """Whether all rows of the row group are inside."""
        return window.contains(int(self.starts_ns[row_group]), int(self.ends_ns[row_group]))

    def interval(self, row_group: int) -> TimeInterval | None:
        """First and last timestamp of the row group; None when the footer does not say."""
        start_ns, end_ns = int(self.starts_ns[row_group]), int(self.ends_ns[row_group])
        return None if start_ns == INT64_MIN or end_ns == INT64_MAX else TimeInterval(start_ns, end_ns)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a file are wanted.

    Attributes:
        window: Time window.
        sequence: Keep only rows of this sequence; None when the file holds no others.
        deleted: Ascending positions in the file of rows to leave out; None when there are none.
        columns: Where the file has other names than the topic: the rows get those of the topic. None where it has not.
    """

    window: TimeWindow
    sequence: str | None = None
    deleted: np.ndarray | None = None
    columns: FileColumns | None = None

    @property
    def is_by_time_only(self) -> bool:
        """Whether every row inside the window is wanted, so that counts of metadata hold."""
        return self.sequence is None and self.deleted is None


class ParquetSlices:
    """Reads data files; keeps the footers of recently used ones (data files are immutable).

    Args:
        warehouse: Where the files are.
        sorting_bytes: Memory for the rows that are sorted at a time where a file is not in time order.
    """

    def __init__(self, warehouse: Warehouse, sorting_bytes: int = DEFAULT_SORTING_BYTES) -> None:
        self._warehouse = warehouse
        self._remote = RemoteFiles(warehouse)
        self._sorting_bytes = sorting_bytes
        self._footers: BoundedCache[str, Footer] = BoundedCache(FOOTER_CACHE_BYTES, lambda footer: footer.nbytes)
        self._sorted: BoundedCache[str, bool] = BoundedCache(SORTED_FLAGS_KEPT)

    def footer(self, path: str) -> Footer:
        """The footer of a data file.

        Raises:
            StorageError: If the file is gone, damaged, or has no `timestamp_ns` column.
        """
        return self._footers.get(path, lambda: self._load_footer(path))

    def columns(self, path: str, history: ColumnHistory | None, wanted: WantedColumns) -> FileColumns | None:
        """Where a file has the columns of a topic; None where it has them under the same names.

        Args:
            path: URI.
            history: Columns of the table; None for a file that is in no table yet.
            wanted: Columns of the topic.

        Raises:
            ChangedTableError: If another engine took a column away that the rows cannot be without.
            StorageError: If the file is gone or damaged.
        """
        if history is None or wanted.have_their_names(history):
            return None
        schema = self.footer(path).metadata.schema.to_arrow_schema()
        return FileColumns.find(schema, history, wanted, is_as_uploaded=is_own_file(path))

    def timestamps(
        self, path: str, row_groups: Sequence[int], selection: Selection, foreseen: Sequence[str] = ()
    ) -> Iterator[np.ndarray]:
        """The selected timestamps of some row groups, in file order, reading only what that takes.

        Args:
            path: URI.
            row_groups: Numbers of row groups, ascending.
            selection: The rows wanted.
            foreseen: Columns that will probably be asked for next. An object store is asked for them at once.
        """
        for batch in self.rows(path, row_groups, selection, [TIMESTAMP_COLUMN], TIMESTAMPS_PER_BATCH, foreseen):
            yield batch.timestamps

    def is_sorted(self, path: str) -> bool:
        """Whether the rows are in time order, found by looking at all of them."""
        return self._sorted.get(path, lambda: self._look_whether_sorted(path))

    def read(
        self, path: str, selection: Selection, columns: Sequence[str], rows_per_batch: int
    ) -> Iterator[TimedBatch]:
        """Rows of a file that is in time order.

        Args:
            path: URI.
            selection: The rows wanted.
            columns: Top-level columns wanted, as the file calls them, `timestamp_ns` among them; others may come along.
            rows_per_batch: Largest number of rows in a batch.
        """
        row_groups = self.footer(path).row_groups(selection.window)
        return self.rows(path, row_groups, selection, columns, rows_per_batch)

    def read_unsorted(
        self, path: str, selection: Selection, columns: Sequence[str], rows_per_batch: int, bytes_per_row: float
    ) -> Iterator[TimedBatch]:
        """Rows of a file in any order, such as another engine's compaction leaves behind, put in time order.

        The window is walked in time slices of bounded size. Row groups that overlap several slices are read again for
        each; equal timestamps keep the order of the file.
        """
        footer = self.footer(path)
        found = list(self.timestamps(path, footer.row_groups(selection.window), selection))
        timestamps = np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
        slice_rows = max(1, int(self._sorting_bytes / bytes_per_row))
        edges = np.unique(timestamps[::slice_rows]).tolist()
        for start_ns, end_ns in pairwise([*edges, selection.window.end_ns]):
            time_slice = replace(selection, window=TimeWindow(start_ns, end_ns))
            pieces = list(self.rows(path, footer.row_groups(time_slice.window), time_slice, columns, rows_per_batch))
            together = np.concatenate([piece.timestamps for piece in pieces])
            order = np.argsort(together, kind="stable")
            rows = pa.concat_batches([piece.rows for piece in pieces])
            for first in range(0, len(order), rows_per_batch):
                part = order[first : first + rows_per_batch]
                yield TimedBatch(together[part], rows.take(pa.array(part)))

    def rows(
        self,
        path: str,
        row_groups: Sequence[int],
        selection: Selection,
        columns: Sequence[str],
        rows_per_batch: int,
        foreseen: Sequence[str] = (),
    ) -> Iterator[TimedBatch]:
        """The selected rows of some row groups, in file order; the file is open while this runs.

        Args:
            path: URI.
            row_groups: Numbers of row groups, ascending.
            selection: The rows wanted.
            columns: Columns or Parquet paths of single leaves, as the file calls them, `timestamp_ns` among them.
            rows_per_batch: Largest number of rows in a batch.
            foreseen: See `timestamps`.
        """
        if not row_groups:
            return
        footer = self.footer(path)
        wanted = columns if selection.sequence is None else [*columns, SEQUENCE_COLUMN]
        with self._opened(path, footer, row_groups, wanted, foreseen) as (file, available):
            for row_group in available:
                is_inside = selection.is_by_time_only and footer.lies_inside(row_group, selection.window)
                position = int(footer.row_counts[:row_group].sum())
                for rows in file.iter_batches(rows_per_batch, row_groups=[row_group], columns=wanted):
                    batch = TimedBatch(rows.column(TIMESTAMP_COLUMN).to_numpy(zero_copy_only=False), rows)
                    selected = batch if is_inside else _select(batch, position, selection)
                    position += rows.num_rows
                    if len(selected.timestamps):
                        yield selected if selection.columns is None else _renamed(selected, selection.columns)

    @contextmanager
    def _opened(
        self, path: str, footer: Footer, row_groups: Sequence[int], columns: Sequence[str], foreseen: Sequence[str]
    ) -> Iterator[tuple[pq.ParquetFile, Iterable[int]]]:
        """The file, and row groups in the order in which they can be read from it."""
        if self._warehouse.is_local:
            # Pages are read as they are decoded, so that memory stays at a page per column.
            options = {"buffer_size": READ_BUFFER_BYTES, "pre_buffer": False}
            with (
                self._warehouse.open_input(path) as source,
                pq.ParquetFile(source, metadata=footer.metadata, **options) as file,
            ):
                yield file, row_groups
            return
        if footer.whole is not None:
            yield pq.ParquetFile(pa.BufferReader(footer.whole.content), metadata=footer.metadata), row_groups
            return
        remote = self._remote.file(path, footer.file_size)
        available = self._remote.fetched(remote, path, footer.metadata, row_groups, columns, foreseen)
        with closing(available):
            yield pq.ParquetFile(remote, metadata=footer.metadata, pre_buffer=False), available

    def _load_footer(self, path: str) -> Footer:
        try:
            if self._warehouse.is_local:
                with self._warehouse.open_input(path) as source:
                    return _summarize(pq.read_metadata(source))
            size, tail = self._remote.tail(path)
            metadata = pq.read_metadata(self._remote.file(path, size, tail))
            return _summarize(metadata, size, tail if tail.start == 0 else None)
        except pa.ArrowInvalid as error:
            raise DamagedDataError("a data file is damaged: it has no readable Parquet footer") from error

    def _look_whether_sorted(self, path: str) -> bool:
        last_ns = INT64_MIN
        everything = range(self.footer(path).metadata.num_row_groups)
        for timestamps in self.timestamps(path, everything, Selection(UNBOUNDED)):
            if len(timestamps) == 0:
                continue
            if timestamps[0] < last_ns or np.any(timestamps[1:] < timestamps[:-1]):
                return False
            last_ns = int(timestamps[-1])
        return True


def _summarize(metadata: pq.FileMetaData, file_size: int = 0, whole: Span | None = None) -> Footer:
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if TIMESTAMP_COLUMN not in paths:
        raise DamagedDataError(
            f"a data file has no column {TIMESTAMP_COLUMN}: if another engine wrote it while the column had another "
            "name, the file has to be rewritten there"
        )
    timestamp_column = paths.index(TIMESTAMP_COLUMN)
    top_level = [path.partition(".")[0] for path in paths]
    starts, ends, counts = [], [], []
    column_bytes = dict.fromkeys(top_level, 0)
    for row_group in map(metadata.row_group, range(metadata.num_row_groups)):
        statistics = row_group.column(timestamp_column).statistics
        has_bounds = statistics is not None and statistics.has_min_max
        counts.append(row_group.num_rows)
        starts.append(statistics.min if has_bounds else INT64_MIN)
        ends.append(statistics.max if has_bounds else INT64_MAX)
        for index, name in enumerate(top_level):
            column_bytes[name] += row_group.column(index).total_uncompressed_size
    return Footer(
        metadata,
        file_size,
        whole,
        np.array(counts, np.int64),
        np.array(starts, np.int64),
        np.array(ends, np.int64),
        column_bytes,
    )


def _select(batch: TimedBatch, position: int, selection: Selection) -> TimedBatch:
    """The selected rows of a batch whose first row is at `position` in the file."""
    window, timestamps = selection.window, batch.timestamps
    is_selected = np.ones(len(timestamps), dtype=bool)
    if window.start_ns is not None:
        is_selected &= timestamps >= window.start_ns
    if window.end_ns is not None:
        is_selected &= timestamps < window.end_ns
    if selection.deleted is not None:
        first, last = np.searchsorted(selection.deleted, [position, position + len(timestamps)])
        is_selected[selection.deleted[first:last] - position] = False
    if selection.sequence is not None:
        is_selected &= _equals(batch.rows.column(SEQUENCE_COLUMN), selection.sequence)
    kept = np.flatnonzero(is_selected)
    if len(kept) == 0:
        return batch.slice(0, 0)
    if kept[-1] - kept[0] + 1 == len(kept):  # one run, as always in files of our own: nothing is copied
        return batch.slice(int(kept[0]), int(kept[-1]) + 1)
    return TimedBatch(timestamps[kept], batch.rows.take(pa.array(kept)))


def _renamed(batch: TimedBatch, columns: FileColumns) -> TimedBatch:
    return TimedBatch(batch.timestamps, columns.renamed(batch.rows))


def _equals(column: pa.Array, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)
