"""Clusters of timestamps and intersections of clusters (protocol section 13)."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.query.clusters import clusterize, intersect
from lakehouse.catalog.time_window import TimeInterval

TIMES = st.one_of(st.integers(-50, 50), st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 0]))
INTERVALS = st.lists(st.integers(-100, 100), max_size=12).map(
    lambda ends: [TimeInterval(*pair) for pair in zip(*[iter(sorted(ends))] * 2, strict=False)]
)


def clusters(times: list[int], dt_ns: int, pieces: int = 1) -> list[tuple[int, int]]:
    arrays = np.array_split(np.array(times, np.int64), pieces)
    return [(each.start_ns, each.end_ns) for each in clusterize(arrays, dt_ns)]


def crossings(dt_ns: int, *lists: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found = intersect([[TimeInterval(*each) for each in intervals] for intervals in lists], dt_ns)
    return [(each.start_ns, each.end_ns) for each in found]


@given(
    times=st.lists(TIMES, max_size=30).map(sorted),
    dt_ns=st.sampled_from([1, 2, 5, 10**18, 2**64]),
    pieces=st.integers(1, 5),
)
def test_clusters_equal_a_walk_over_all_timestamps(times: list[int], dt_ns: int, pieces: int) -> None:
    walked: list[list[int]] = []
    for time in times:
        if walked and time - walked[-1][-1] <= dt_ns:
            walked[-1].append(time)
        else:
            walked.append([time])
    assert clusters(times, dt_ns, pieces) == [(cluster[0], cluster[-1]) for cluster in walked]


def test_without_a_gap_all_matches_are_one_cluster() -> None:
    assert clusters([-5, 3, 10**18], 0, 2) == [(-5, 10**18)]
    assert clusters([], 0) == []


def test_a_gap_of_exactly_dt_stays_in_the_cluster() -> None:
    assert clusters([0, 10, 20, 31], 10) == [(0, 20), (31, 31)]


def test_clusters_come_as_soon_as_they_are_complete() -> None:
    def source() -> Iterator[np.ndarray]:
        yield np.array([0, 100, 200], np.int64)
        raise AssertionError("read further than asked")

    found = clusterize(source(), 10)
    assert [next(found), next(found)] == [TimeInterval(0, 0), TimeInterval(100, 100)]


@pytest.mark.parametrize(
    ("dt_ns", "first", "second", "expected"),
    [
        (20, [(100, 140)], [(155, 200)], [(145, 150)]),
        (0, [(100, 110), (500, 510)], [(105, 115), (495, 505)], [(105, 110), (500, 505)]),
        (14, [(100, 140)], [(155, 200)], []),
        (15, [(100, 140)], [(155, 200)], [(148, 148)]),
        (21, [(-140, -100)], [(-85, -50)], [(-95, -89)]),
        (0, [(0, 10)], [], []),
        (0, [(0, 10)], [(10, 10)], [(10, 10)]),
    ],
)
def test_intersections(dt_ns: int, first: list, second: list, expected: list) -> None:
    assert crossings(dt_ns, first, second) == expected
    assert crossings(dt_ns, second, first) == expected


def test_one_topic_alone_is_its_own_intersection() -> None:
    assert crossings(50, [(0, 10), (20, 30)]) == [(0, 10), (20, 30)]


@given(st.lists(INTERVALS, min_size=1, max_size=4))
def test_without_tolerance_an_intersection_is_what_all_have_in_common(lists: list[list[TimeInterval]]) -> None:
    found = list(intersect(lists, 0))
    covered = [time for time in range(-101, 102) if all(any(_holds(each, time) for each in one) for one in lists)]
    assert sorted({time for each in found for time in range(each.start_ns, each.end_ns + 1)}) == covered
    assert all(before.start_ns <= after.start_ns for before, after in pairwise(found))


def _holds(interval: TimeInterval, time: int) -> bool:
    return interval.start_ns <= time <= interval.end_ns
