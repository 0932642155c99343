"""Merging streams that are each sorted by time into one, vectorised and with bounded memory.

The merge never compares single rows. Every open stream shows one batch; all rows up to the earliest "last timestamp
shown" are final, because no stream can still bring an earlier one. They are cut off, put together and sorted stably.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TimedBatch:
    """Rows with their timestamps, ascending.

    Attributes:
        timestamps: int64 nanoseconds, one per row.
        rows: The rows, never empty.
    """

    timestamps: np.ndarray
    rows: pa.RecordBatch

    def slice(self, start: int, stop: int) -> "TimedBatch":
        return TimedBatch(self.timestamps[start:stop], self.rows.slice(start, stop - start))


@dataclass(frozen=True, slots=True)
class TimeSortedStream:
    """A source of batches, opened only when the merge reaches its first timestamp.

    Attributes:
        start_ns: No row is earlier.
        arrival: Rank among the streams of one merge: equal timestamps come in this order.
        open: Starts reading. The iterator is closed by the merge, also when the merge is abandoned.
    """

    start_ns: int
    arrival: int
    open: Callable[[], Iterator[TimedBatch]]


class _OpenStream:
    """The batch a stream shows now, cut from the front as rows are emitted."""

    def __init__(self, stream: TimeSortedStream) -> None:
        self.arrival = stream.arrival
        self.is_exhausted = False
        self._batches = stream.open()
        self._shown: TimedBatch | None = None

    def show(self) -> None:
        """Read the next batch if the last one is used up. Not done earlier: what is ready must not wait for it."""
        if self._shown is None and not self.is_exhausted:
            self._shown = next(self._batches, None)
            self.is_exhausted = self._shown is None

    @property
    def last_ns(self) -> int:
        assert self._shown is not None
        return int(self._shown.timestamps[-1])

    def cut(self, limit_ns: int, *, including_limit: bool) -> TimedBatch | None:
        """Remove and return the rows before `limit_ns` (or up to it)."""
        assert self._shown is not None
        shown, length = self._shown, len(self._shown.timestamps)
        count = int(np.searchsorted(shown.timestamps, limit_ns, side="right" if including_limit else "left"))
        if count == 0:
            return None
        self._shown = shown.slice(count, length) if count < length else None
        return shown.slice(0, count) if count < length else shown

    def close(self) -> None:
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def merge_by_time(streams: Sequence[TimeSortedStream]) -> Generator[pa.RecordBatch, None, None]:
    """All rows of all streams in time order; equal timestamps in the order of `arrival`, then of the stream.

    Streams that do not overlap pass through one after another, without copying. Memory is bounded by one batch of every
    stream that overlaps the current time.
    """
    waiting = sorted(streams, key=lambda stream: (stream.start_ns, stream.arrival), reverse=True)
    active: list[_OpenStream] = []
    try:
        while waiting or active:
            for each in active:
                each.show()
            active = _without_exhausted(active)
            limit_ns = min((each.last_ns for each in active), default=None)
            # A stream that may begin at or before the limit must show its rows before anything there is final.
            while waiting and (limit_ns is None or waiting[-1].start_ns <= limit_ns):
                opened = _OpenStream(waiting.pop())
                active.append(opened)
                opened.show()
                if not opened.is_exhausted:
                    limit_ns = opened.last_ns if limit_ns is None else min(limit_ns, opened.last_ns)
            active = _without_exhausted(active)
            if limit_ns is not None:
                yield _take_final_rows(active, limit_ns)
    finally:
        for each in active:
            each.close()


def _take_final_rows(active: list[_OpenStream], limit_ns: int) -> pa.RecordBatch:
    active.sort(key=lambda each: each.arrival)
    # The first stream, by arrival, whose batch ends at the limit may go on with equal timestamps. Those of streams that
    # arrived later have to wait for it.
    holder = next(each for each in active if each.last_ns == limit_ns)
    pieces = []
    for each in active:
        piece = each.cut(limit_ns, including_limit=each.arrival <= holder.arrival)
        if piece is not None:
            pieces.append(piece)
    if len(pieces) == 1:
        return pieces[0].rows
    rows = pa.concat_batches([piece.rows for piece in pieces])
    order = np.argsort(np.concatenate([piece.timestamps for piece in pieces]), kind="stable")
    return rows.take(pa.array(order))


def _without_exhausted(active: list[_OpenStream]) -> list[_OpenStream]:
    for each in active:
        if each.is_exhausted:
            each.close()
    return [each for each in active if not each.is_exhausted]


def largest_overlap(starts_ns: Sequence[int], ends_ns: Sequence[int]) -> int:
    """The largest number of streams that overlap at one moment, at least 1.

    Args:
        starts_ns, ends_ns: First and last time of each.
    """
    if len(starts_ns) < 2:
        return 1
    starts, ends = np.sort(np.array(starts_ns, np.int64)), np.sort(np.array(ends_ns, np.int64))
    # At each start: streams begun so far, less those that ended before.
    return int((np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="left")).max())
