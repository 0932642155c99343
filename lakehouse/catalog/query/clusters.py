"""When conditions held: matching timestamps joined to intervals, and intervals of several topics intersected (13)."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lakehouse.catalog.time_window import TimeInterval

_LARGEST_GAP = 2**64 - 1


def clusterize(timestamps: Iterable[npt.NDArray[np.int64]], dt_ns: int) -> Iterator[TimeInterval]:
    """Join timestamps to clusters (protocol section 13.1).

    Args:
        timestamps: Ascending over all arrays, in nanoseconds.
        dt_ns: Largest gap inside a cluster; 0: all timestamps are one cluster.
    """
    start_ns: int | None = None
    end_ns = 0
    largest_gap = np.uint64(min(dt_ns, _LARGEST_GAP))
    for times in timestamps:
        if len(times) == 0:
            continue
        if start_ns is None:
            start_ns = int(times[0])
        elif dt_ns and int(times[0]) - end_ns > dt_ns:
            yield TimeInterval(start_ns, end_ns)
            start_ns = int(times[0])
        if dt_ns:
            # Unsigned, because two 64-bit times may be further apart than a signed number can say.
            unsigned = times.view(np.uint64)
            breaks = np.flatnonzero(unsigned[1:] - unsigned[:-1] > largest_gap)
            starts = [start_ns, *times[breaks + 1].tolist()]
            for first_ns, last_ns in zip(starts, times[breaks].tolist(), strict=False):
                yield TimeInterval(first_ns, last_ns)
            start_ns = starts[-1]
        end_ns = int(times[-1])
    if start_ns is not None:
        yield TimeInterval(start_ns, end_ns)


def intersect(clusterings: Sequence[Iterable[TimeInterval]], dt_ns: int) -> Iterator[TimeInterval]:
    """Where intervals of all topics overlap, or miss each other by at most `dt_ns` (protocol section 13.2).

    A near miss yields the region around its middle. A topic without any interval leaves nothing (section 17, item 8).
    Naming a topic twice is the caller's to undo: equal lists miss themselves nearly.

    Args:
        clusterings: Intervals of each topic in time order.
        dt_ns: Largest distance of a near miss, in nanoseconds; 0 or more.
    """
    cursors = [iter(each) for each in clusterings]
    current: list[TimeInterval] = []
    for cursor in cursors:
        first = next(cursor, None)
        if first is None:
            return
        current.append(first)
    while current:
        start_ns = max(interval.start_ns for interval in current)
        earliest = min(range(len(current)), key=lambda number: current[number].end_ns)
        end_ns = current[earliest].end_ns
        if start_ns <= end_ns:
            yield TimeInterval(start_ns, end_ns)
        elif start_ns <= end_ns + dt_ns:
            yield TimeInterval(start_ns - dt_ns // 2, end_ns + dt_ns - dt_ns // 2)
        following = next(cursors[earliest], None)
        if following is None:
            return
        current[earliest] = following
