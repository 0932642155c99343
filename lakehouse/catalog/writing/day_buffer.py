"""Rows of one UTC day, buffered until they make a row group."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.catalog.iceberg.data_files import NANOSECONDS_PER_DAY
from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN

# Small batches are joined in groups of this many, so that one-row batches do not drown in per-array overhead.
BATCHES_TO_JOIN = 64
OVERHEAD_PER_COLUMN = 256
# What a buffered batch may keep alive beyond its own size.
TOLERATED_EXCESS = 2
UNCOUNTED_BYTES = 1 << 16
# Share of a disordered buffer, its latest rows, that waits for stragglers: 1/8.
HELD_BACK = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of one batch that fall on one day, in order of arrival."""

    day: int
    rows: pa.RecordBatch
    start_ns: int
    end_ns: int
    is_sorted: bool


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of one day on their way to the encoder.

    Attributes:
        order: Positions of the rows by time, equal times by arrival; None when they stand so already.
        size: Bytes of Arrow data.
    """

    day: int
    batches: tuple[pa.RecordBatch, ...]
    order: npt.NDArray[np.int64] | None
    size: int

    def rows(self) -> pa.Table:
        """The rows, sorted by time."""
        table = pa.Table.from_batches(self.batches)
        return table if self.order is None else table.take(pa.array(self.order))


def split_by_day(batch: pa.RecordBatch) -> Iterator[Piece]:
    """Split by UTC day of `timestamp_ns`; a batch of one day, the usual case, is passed on as it is."""
    times = _times(batch)
    is_sorted = bool(np.all(times[1:] >= times[:-1]))
    start_ns, end_ns = (times[0], times[-1]) if is_sorted else (times.min(), times.max())
    first_day, last_day = int(start_ns) // NANOSECONDS_PER_DAY, int(end_ns) // NANOSECONDS_PER_DAY
    if first_day == last_day:
        yield Piece(first_day, batch, int(start_ns), int(end_ns), is_sorted)
        return
    order = np.arange(len(times)) if is_sorted else np.argsort(times, kind="stable")
    times = times[order]
    days = np.floor_divide(times, NANOSECONDS_PER_DAY)
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for first, last in pairwise(starts):
        # Copied, because a slice would keep the whole batch in memory until the last of its days is written.
        rows = batch.take(pa.array(order[first:last]))
        yield Piece(int(days[first]), rows, int(times[first]), int(times[last - 1]), True)


class DayBuffer:
    """Collects pieces of one day."""

    def __init__(self, day: int) -> None:
        self.day = day
        self.size = 0
        self.saw_disorder = False
        self._joined: list[pa.RecordBatch] = []
        self._small: list[pa.RecordBatch] = []
        self._end_ns: int | None = None
        self._is_sorted = True

    @property
    def is_empty(self) -> bool:
        return not self._joined and not self._small

    def append(self, piece: Piece) -> int:
        """Add rows; returns by how many bytes the buffer grew."""
        if not piece.is_sorted or (self._end_ns is not None and piece.start_ns < self._end_ns):
            self._is_sorted = False
            self.saw_disorder = True
        self._end_ns = piece.end_ns if self._end_ns is None else max(self._end_ns, piece.end_ns)
        self._small.append(owned(piece.rows))
        if len(self._small) >= BATCHES_TO_JOIN:
            self._joined.append(pa.concat_batches(self._small))
            self._small.clear()
        size = _size(piece.rows)
        self.size += size
        return size

    def take(self, *, everything: bool) -> RowGroup:
        """Remove and return the rows, all but the held back ones of a disordered buffer unless `everything` is set.

        Recordings are often a little out of order. Rows that come late by less than what is held back still find their
        place, so that files do not end at every straggler.
        """
        batches = (*self._joined, *self._small)
        size, ordered = self.size, self._is_sorted
        self._joined, self._small = [], []
        self.size, self._end_ns, self._is_sorted = 0, None, True
        if ordered and (everything or not self.saw_disorder):
            return RowGroup(self.day, batches, None, size)
        times = np.concatenate([_times(batch) for batch in batches])
        order = np.argsort(times, kind="stable")
        count = len(order) - (0 if everything else len(order) // HELD_BACK)
        if count < len(order):
            held = pa.Table.from_batches(batches).take(pa.array(order[count:])).combine_chunks().to_batches()[0]
            held_times = _times(held)
            grown = self.append(Piece(self.day, held, int(held_times[0]), int(held_times[-1]), True))
            size = max(0, size - grown)
        return RowGroup(self.day, batches, order[:count], size)


def owned(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch`, copied if it keeps much more memory alive than it shows.

    A received batch points into its whole message, and a slice into all of its parent: a few bytes of rows could
    otherwise hold megabytes that no limit counts.
    """
    kept: dict[int, int] = {}
    for column in batch.columns:
        for buffer in column.buffers():
            while buffer is not None and buffer.parent is not None:
                buffer = buffer.parent
            if buffer is not None:
                kept[buffer.address] = buffer.size
    if sum(kept.values()) <= TOLERATED_EXCESS * batch.nbytes + UNCOUNTED_BYTES:
        return batch
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def _times(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    times: npt.NDArray[np.int64] = batch.column(TIMESTAMP_COLUMN).to_numpy()
    return times


def _size(batch: pa.RecordBatch) -> int:
    return int(batch.nbytes) + OVERHEAD_PER_COLUMN * batch.num_columns
