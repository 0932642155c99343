"""The rows of one Parquet file inside a time window, read as little and as lazily as possible."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.merge import TimedBatch
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, UNBOUNDED, TimeWindow
from lakehouse.ontology.storage_names import SEQUENCE_COLUMN, TIMESTAMP_COLUMN

FOOTER_CACHE_BYTES = 64 << 20
# Column chunks are read in pieces of this size, so that a chunk of blobs is never in memory as a whole.
READ_BUFFER_BYTES = 1 << 20
# Memory for one time slice of a file whose rows are not in time order.
UNSORTED_SLICE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of one file says.

    Attributes:
        metadata: The parsed footer.
        row_counts: Rows of each row group.
        starts_ns, ends_ns: Bounds of `timestamp_ns` in each row group; the widest possible without statistics.
        column_bytes: Size before compression of all leaves of each top-level column.
    """

    metadata: pq.FileMetaData
    row_counts: np.ndarray
    starts_ns: np.ndarray
    ends_ns: np.ndarray
    column_bytes: dict[str, int]

    @property
    def nbytes(self) -> int:
        # The parsed form takes about twice the serialized one.
        return 2 * self.metadata.serialized_size + 24 * len(self.row_counts)

    def row_groups(self, window: TimeWindow) -> np.ndarray:
        """Indices of the row groups which may hold rows of the window, in file order."""
        overlaps = self.row_counts > 0
        if window.start_ns is not None:
            overlaps &= self.ends_ns >= window.start_ns
        if window.end_ns is not None:
            overlaps &= self.starts_ns < window.end_ns
        return np.flatnonzero(overlaps)

    def bytes_per_row(self, columns: Collection[str]) -> float:
        """Average size of a row in these top-level columns, from the sizes before compression; at least 1."""
        total = sum(size for name, size in self.column_bytes.items() if name in columns)
        return max(total / max(self.metadata.num_rows, 1), 1.0)

    def lies_inside(self, row_group: int, window: TimeWindow) -> bool:
        return window.contains(int(self.starts_ns[row_group]), int(self.ends_ns[row_group]))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a file are wanted.

    Attributes:
        window: Time window.
        sequence: Keep only rows of this sequence; None when the file holds no others.
    """

    window: TimeWindow
    sequence: str | None = None


class ParquetSlices:
    """Opens data files; keeps the footers of recently used ones (data files are immutable).

    Args:
        warehouse: Where the files are.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._footers: BoundedCache[str, Footer] = BoundedCache(FOOTER_CACHE_BYTES, lambda footer: footer.nbytes)
        self._sorted: BoundedCache[str, bool] = BoundedCache(100_000)

    def footer(self, path: str) -> Footer:
        """The footer of a data file.

        Raises:
            FileNotFoundError: If the file is gone.
            StorageError: If it is no Parquet file with a `timestamp_ns` column.
        """
        return self._footers.get(path, lambda: self._load_footer(path))

    def timestamps(self, path: str, row_groups: Sequence[int], selection: Selection) -> Iterator[np.ndarray]:
        """The selected timestamps of some row groups, reading only what that takes."""
        for batch in self._selected(path, row_groups, selection.sequence, [TIMESTAMP_COLUMN], 1 << 16):
            yield batch.timestamps[_is_inside(batch.timestamps, selection.window)]

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
            columns: Top-level columns wanted, `timestamp_ns` among them.
            rows_per_batch: Largest number of rows in a batch.
        """
        footer = self.footer(path)
        for row_group in footer.row_groups(selection.window).tolist():
            is_inside = footer.lies_inside(row_group, selection.window)
            for batch in self._selected(path, [row_group], selection.sequence, columns, rows_per_batch):
                timed = batch if is_inside else _inside(batch, selection.window)
                if len(timed.timestamps):
                    yield timed

    def read_unsorted(
        self, path: str, selection: Selection, columns: Sequence[str], rows_per_batch: int, bytes_per_row: float
    ) -> Iterator[TimedBatch]:
        """Rows of a file in any order, such as another engine's compaction leaves behind, put in time order.

        The window is walked in time slices of bounded size. Row groups that overlap several slices are read again for
        each; equal timestamps keep the order of the file.
        """
        footer = self.footer(path)
        row_groups = footer.row_groups(selection.window).tolist()
        found = list(self.timestamps(path, row_groups, selection))
        timestamps = np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
        slice_rows = max(1, int(UNSORTED_SLICE_BYTES / max(bytes_per_row, 1.0)))
        edges = np.unique(timestamps[::slice_rows]).tolist()
        for start_ns, end_ns in zip(edges, [*edges[1:], selection.window.end_ns], strict=True):
            time_slice = TimeWindow(start_ns, end_ns)
            pieces = []
            for batch in self._selected(
                path, footer.row_groups(time_slice).tolist(), selection.sequence, columns, rows_per_batch
            ):
                inside = _inside(batch, time_slice)
                if len(inside.timestamps):
                    pieces.append(inside)
            if not pieces:
                continue
            all_timestamps = np.concatenate([piece.timestamps for piece in pieces])
            order = np.argsort(all_timestamps, kind="stable")
            rows = pa.concat_batches([piece.rows for piece in pieces])
            for first in range(0, len(order), rows_per_batch):
                part = order[first : first + rows_per_batch]
                yield TimedBatch(all_timestamps[part], rows.take(pa.array(part)))

    def _selected(
        self,
        path: str,
        row_groups: Sequence[int],
        sequence: str | None,
        columns: Sequence[str],
        rows_per_batch: int,
    ) -> Iterator[TimedBatch]:
        wanted = columns if sequence is None else [*columns, SEQUENCE_COLUMN]
        for batch in self._batches(path, row_groups, wanted, rows_per_batch):
            yield _timed(batch if sequence is None else _only_sequence(batch, sequence))

    def _batches(
        self, path: str, row_groups: Sequence[int], columns: Sequence[str], rows_per_batch: int
    ) -> Iterator[pa.RecordBatch]:
        if not row_groups:
            return
        with (
            self._warehouse.open_input(path) as source,
            pq.ParquetFile(source, metadata=self.footer(path).metadata, buffer_size=READ_BUFFER_BYTES) as file,
        ):
            yield from file.iter_batches(rows_per_batch, row_groups=row_groups, columns=columns)

    def _load_footer(self, path: str) -> Footer:
        try:
            with self._warehouse.open_input(path) as source:
                metadata = pq.read_metadata(source)
        except pa.ArrowInvalid as error:
            raise StorageError("a data file is damaged: it has no readable Parquet footer") from error
        return _summarize(metadata)

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


def _summarize(metadata: pq.FileMetaData) -> Footer:
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if TIMESTAMP_COLUMN not in paths:
        raise StorageError(f"a data file has no column {TIMESTAMP_COLUMN}")
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
        metadata, np.array(counts, np.int64), np.array(starts, np.int64), np.array(ends, np.int64), column_bytes
    )


def _timed(batch: pa.RecordBatch) -> TimedBatch:
    return TimedBatch(batch.column(TIMESTAMP_COLUMN).to_numpy(zero_copy_only=False), batch)


def _only_sequence(batch: pa.RecordBatch, sequence: str) -> pa.RecordBatch:
    return batch.filter(pc.equal(batch.column(SEQUENCE_COLUMN), sequence))


def _is_inside(timestamps: np.ndarray, window: TimeWindow) -> np.ndarray:
    is_inside = np.ones(len(timestamps), dtype=bool)
    if window.start_ns is not None:
        is_inside &= timestamps >= window.start_ns
    if window.end_ns is not None:
        is_inside &= timestamps < window.end_ns
    return is_inside


def _inside(batch: TimedBatch, window: TimeWindow) -> TimedBatch:
    is_inside = _is_inside(batch.timestamps, window)
    if is_inside.all():
        return batch
    kept = np.flatnonzero(is_inside)
    if len(kept) == 0:
        return batch.slice(0, 0)
    if kept[-1] - kept[0] + 1 == len(kept):  # one run, as always in sorted files: no copy
        return batch.slice(int(kept[0]), int(kept[-1]) + 1)
    return TimedBatch(batch.timestamps[kept], batch.rows.take(pa.array(kept)))
