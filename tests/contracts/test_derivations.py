"""What rules derive, against the same computed row by row by other means, however rows are cut into blocks."""

import io
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lakehouse.contracts.rules.catalogue import TOPIC_RULES
from lakehouse.contracts.rules.position import ground_distance_m
from lakehouse.contracts.rules.rule import MISSING, VALUE, Rows, count_per_list, flat_elements, list_lengths
from lakehouse.contracts.rules.sequences import tree_defects

NS = 1_000_000_000
START = 1_700_000_000_123_456_789
steps = st.lists(st.integers(0, 3 * NS), min_size=1, max_size=60)
cuts = st.lists(st.integers(1, 20), min_size=1, max_size=10)
floats = st.floats(allow_nan=True, allow_infinity=True, width=64)
quick = settings(max_examples=60, deadline=None)


def times_of(intervals: Sequence[int]) -> list[int]:
    return [START + int(total) for total in np.cumsum(intervals)]


def derive(
    rule: str, table: pa.Table, parameters: dict[str, Any], path: str = "", block_sizes: Sequence[int] = (10**9,)
) -> dict[str, list[Any]]:
    """What a rule derives from a topic that is read in blocks of these sizes, the last one for all the rest."""
    kind = TOPIC_RULES[rule]
    bound = kind(tuple(path.split(".")) if path else (), kind.parameters.model_validate(parameters), table.schema)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    found: dict[str, list[Any]] = {}
    start, last_ns = 0, None
    sizes = list(block_sizes)
    while start < len(frame):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        rows = Rows(frame[start : start + size], last_ns, start)
        for column, values in bound.derive(rows).items():
            found.setdefault(column, []).extend(values.tolist())
        start, last_ns = start + size, int(rows.times[-1])
    for column, value in bound.finish().items():
        found.setdefault(column, []).append(value)
    return found


def table_of(times: Sequence[int], **columns: Any) -> pa.Table:
    return pa.table({"timestamp_ns": pa.array(times, pa.int64()), **columns})


def same(found: Sequence[float], expected: Sequence[float]) -> bool:
    return np.allclose(found, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@quick
@given(steps, cuts)
def test_gaps_are_the_seconds_since_the_row_before(intervals: list[int], sizes: list[int]) -> None:
    times = times_of(intervals)
    found = derive("gaps", table_of(times), {"maxSeconds": 1}, block_sizes=sizes)[VALUE]
    assert math.isnan(found[0])
    assert same(found[1:], [(b - a) / NS for a, b in itertools.pairwise(times)])


@quick
@given(steps, cuts, st.floats(0.5, 500))
def test_jitter_is_the_share_by_which_an_interval_is_off(intervals: list[int], sizes: list[int], hz: float) -> None:
    times = times_of(intervals)
    found = derive("jitter", table_of(times), {"maxRelative": 0.1, "nominalHz": hz}, block_sizes=sizes)[VALUE]
    periods = [(b - a) / NS * hz for a, b in itertools.pairwise(times)]
    assert same(found[1:], [math.nan if each > 10 else abs(each - 1) for each in periods])


def test_without_a_nominal_rate_the_median_interval_is_the_period() -> None:
    times = times_of([0, 100, 100, 300, 100])
    assert same(derive("gaps", table_of(times), {"maxPeriods": 2})[VALUE][1:], [1, 1, 3, 1])


@quick
@given(steps, cuts)
def test_the_rate_is_rows_per_second(intervals: list[int], sizes: list[int]) -> None:
    times = times_of(intervals)
    (found,) = derive("rate", table_of(times), {"minHz": 1}, block_sizes=sizes)[VALUE]
    span = (times[-1] - times[0]) / NS
    assert same([found], [(len(times) - 1) / span if span > 0 and len(times) > 1 else math.nan])


@quick
@given(st.lists(st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)), min_size=1, max_size=40), cuts)
def test_header_time_is_compared_with_the_last_known_header(seconds: list[int | None], sizes: list[int]) -> None:
    stamps = [None if each is None else {"seconds": each, "nanoseconds": 5} for each in seconds]
    stamp = pa.struct([("seconds", pa.int32()), ("nanoseconds", pa.uint32())])
    header = pa.array([{"timestamp": each} for each in stamps], pa.struct([("timestamp", stamp)]))
    found = derive("monotonic_time", table_of(range(len(seconds)), header=header), {"clock": "header"}, "", sizes)
    expected, last = [], None
    for each in seconds:
        expected.append(math.nan if each is None or last is None else float(each - last))
        last = each if each is not None else last
    assert same(found[VALUE], expected)


@quick
@given(st.lists(st.one_of(st.none(), st.tuples(*[st.floats(-2, 2) | st.just(math.nan)] * 4)), min_size=1), cuts)
def test_quaternion_norm(quaternions: list[tuple[float, ...] | None], sizes: list[int]) -> None:
    rows = [None if q is None else dict(zip("xyzw", q, strict=True)) for q in quaternions]
    column = pa.array(rows, pa.struct([(part, pa.float64()) for part in "xyzw"]))
    found = derive("quaternion_norm", table_of(range(len(rows)), q=column), {}, "q", sizes)
    expected = [math.nan if q is None else math.sqrt(sum(part**2 for part in q)) for q in quaternions]
    assert same(found[VALUE], expected)
    assert found[MISSING] == [float(q is not None and any(map(math.isnan, q))) for q in quaternions]


def test_an_unknown_orientation_is_not_judged() -> None:
    kind = pa.struct([*((part, pa.float64()) for part in "xyzw"), ("covariance", pa.list_(pa.float64()))])
    zero = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 0.0}
    column = pa.array([{**zero, "covariance": [-1.0] + [0.0] * 8}, {**zero, "covariance": [0.0] * 9}], kind)
    found = derive("quaternion_norm", table_of([1, 2], q=column), {}, "q")[VALUE]
    assert math.isnan(found[0])
    assert found[1] == 0.0


matrices = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.floats(-5, 5), min_size=size * size, max_size=size * size)
)


@quick
@given(st.lists(st.one_of(st.none(), matrices, st.just([1.0, 2.0]), st.just([math.nan] * 9)), min_size=1), cuts)
def test_covariances_against_eigenvalues_of_each_matrix(values: list[list[float] | None], sizes: list[int]) -> None:
    column = pa.array(values, pa.list_(pa.float64()))
    found = derive("covariance", table_of(range(len(values)), c=column), {}, "c", sizes)[VALUE]
    for flat, defect in zip(values, found, strict=True):
        size = math.isqrt(len(flat or []))
        if not flat or flat[0] == -1 or not any(flat):
            assert math.isnan(defect)
        elif size * size != len(flat) or any(map(math.isnan, flat)):
            assert defect == math.inf
        else:
            matrix = np.array(flat).reshape(size, size)
            is_symmetric = np.allclose(matrix, matrix.T, rtol=0, atol=1e-6 * np.abs(matrix).max())
            lowest = np.real(np.linalg.eigvals((matrix + matrix.T) / 2)).min() / np.abs(matrix).max()
            if lowest > -0.5e-6 and is_symmetric:
                assert defect <= 1e-5
            if lowest < -1e-5:
                assert defect > 1e-6


@quick
@given(st.lists(st.lists(st.floats(-3, 3), min_size=9, max_size=9), min_size=1, max_size=8))
def test_products_of_a_matrix_with_its_transpose_are_covariances(factors: list[list[float]]) -> None:
    good = [np.array(f).reshape(3, 3) @ np.array(f).reshape(3, 3).T for f in factors]
    column = pa.array([m.ravel().tolist() for m in good], pa.list_(pa.float64()))
    found = derive("covariance", table_of(range(len(good)), c=column), {}, "c")[VALUE]
    assert all(math.isnan(defect) or defect <= 1e-6 for defect in found)


@quick
@given(st.lists(st.tuples(st.integers(0, NS), st.sampled_from([0.0, -0.0, 1.0, math.nan, None])), min_size=1), cuts)
def test_frozen_counts_the_seconds_since_the_last_change(
    rows: list[tuple[int, float | None]], sizes: list[int]
) -> None:
    times = times_of([step for step, _ in rows])
    values = [value for _, value in rows]
    found = derive("frozen", table_of(times, v=pa.array(values, pa.float64())), {"maxSeconds": 1}, "v", sizes)[VALUE]
    since, last = times[0], object()
    for at, value, seconds in zip(times, values, found, strict=True):
        # Bit by bit: NaN equals itself, and the two zeros differ. Null counts as NaN here.
        key = repr(math.nan if value is None else value)
        since, last = (since, last) if key == last else (at, key)
        assert math.isnan(seconds) if value is None else same([seconds], [(at - since) / NS])


@quick
@given(st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), floats), max_size=6)), min_size=1, max_size=20))
def test_elements_are_counted_per_list(values: list[list[float | None] | None]) -> None:
    column = pl.Series(values, dtype=pl.List(pl.Float64))
    counts = count_per_list(flat_elements(column) > 1, list_lengths(column))
    assert counts.tolist() == [sum(e is not None and e > 1 for e in each or []) for each in values]


@quick
@given(st.lists(st.one_of(st.none(), floats), min_size=1), floats, floats)
def test_every_number_a_range_lets_pass_is_inside_or_flagged(
    values: list[float | None], one: float, other: float
) -> None:
    low, high = sorted([0.0 if math.isnan(each) or math.isinf(each) else each for each in (one, other)])
    column = pa.array(values, pa.float64())
    found = derive("range", table_of(range(len(values)), v=column), {"min": low, "max": high}, "v")
    for value, derived, missing in zip(values, found[VALUE], found[MISSING], strict=True):
        assert missing == float(value is not None and math.isnan(value))
        assert (value is None and math.isnan(derived)) or repr(derived) == repr(value)


latitude, longitude = st.floats(-89, 89), st.floats(-180, 180)


@quick
@given(latitude, longitude, latitude, longitude)
def test_ground_distance_against_the_angle_between_vectors(a: float, b: float, c: float, d: float) -> None:
    def vector(lat: float, lon: float) -> np.ndarray:  # type: ignore[type-arg]
        phi, lam = math.radians(lat), math.radians(lon)
        return np.array([math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)])

    u, v = vector(a, b), vector(c, d)
    angle = math.atan2(float(np.linalg.norm(np.cross(u, v))), float(u @ v))
    (found,) = ground_distance_m(np.array([a]), np.array([b]), np.array([c]), np.array([d]))
    assert found == pytest.approx(angle * 6_371_008.8, rel=1e-6, abs=0.5)


def gps_table(rows: list[tuple[int, float, float, int]]) -> pa.Table:
    position = pa.array([{"x": lat, "y": lon} for _, lat, lon, _ in rows])
    status = pa.array([{"status": fix} for *_, fix in rows], pa.struct([("status", pa.int8())]))
    return table_of([at for at, *_ in rows], position=position, status=status)


@pytest.mark.parametrize("sizes", [[10], [1], [2, 1]])
def test_a_jump_is_measured_from_the_last_row_with_a_fix(sizes: list[int]) -> None:
    rows = [
        (0, 50.0, 8.0, 0),
        (NS, 0.0, 0.0, -1),
        (2 * NS, 50.001, 8.0, 0),
        (3 * NS, 51.0, 8.0, 0),
        (4 * NS, 51.0, 8.0, 0),
    ]
    found = derive("gps_jump", gps_table(rows), {"maxSpeed": 100}, "position", sizes)[VALUE]
    assert math.isnan(found[0])
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(111.19 / 2, rel=1e-3), "metres per degree of latitude / 1000, over two seconds"
    assert found[3] == pytest.approx(111_083, rel=1e-3)
    assert found[4] == 0


def test_fixes_off_the_earth_and_at_null_island_are_told_apart() -> None:
    rows = [(0, 50.0, 8.0, 0), (1, 91.0, 8.0, 0), (2, 50.0, 181.0, 0), (3, 0.0, 0.0, 0), (4, math.nan, 8.0, 0)]
    found = derive("gps_bounds", gps_table([*rows, (5, 95.0, 8.0, -1)]), {}, "position")[VALUE]
    assert same(found, [0, 2, 3, 4, 1, math.nan])


def encoded(kind: str, size: tuple[int, int] = (4, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 128).save(buffer, kind)
    return buffer.getvalue()


def test_images_are_opened_and_compared_with_what_they_announce() -> None:
    png = encoded("png")
    rows = [
        (png, "png", 4, 3, 4, 0),
        (png, "png", 2, 3, 4, 0),  # two bytes per pixel, packed as grey
        (png, "png", 5, 3, 5, 3),
        (png[: len(png) // 2], "png", 4, 3, 4, 2),
        (b"", "png", 4, 3, 4, 1),
        (bytes(12), "raw", 4, 3, 4, 0),
        (bytes(11), "raw", 4, 3, 4, 4),
        (encoded("jpeg"), "jpeg", 4, 3, 4, 0),
        (b"\x00\x00\x01\x67", "h264", 4, 3, 4, math.nan),
    ]
    names = ("data", "format", "width", "height", "stride")
    columns = {name: pa.array([row[place] for row in rows]) for place, name in enumerate(names)}
    found = derive("image_decodes", table_of(range(len(rows)), **columns), {"decodeEvery": 1})[VALUE]
    assert same(found, [row[5] for row in rows])


def test_a_point_cloud_has_the_bytes_it_announces() -> None:
    number = pa.uint32()
    columns: dict[str, Any] = {
        "data": pa.array([bytes(24), bytes(23), bytes(24)]),
        "width": pa.array([2, 2, 3], number),
        "height": pa.array([1, 1, 1], number),
        "point_step": pa.array([12, 12, 12], number),
        "row_step": pa.array([24, 24, 24], number),
    }
    assert derive("point_cloud_layout", table_of([1, 2, 3], **columns), {})[VALUE] == [0, 1, 12]


def test_a_scan_has_one_range_per_step() -> None:
    columns: dict[str, Any] = {
        "ranges": pa.array([[1.0] * 361, [1.0] * 360, [1.0] * 100, [1.0]], pa.list_(pa.float32())),
        "angle_min": pa.array([-math.pi] * 4, pa.float32()),
        "angle_max": pa.array([math.pi] * 4, pa.float32()),
        "angle_increment": pa.array([math.radians(1)] * 3 + [0.0], pa.float32()),
    }
    found = derive("scan_geometry", table_of(range(4), **columns), {})[VALUE]
    assert [each <= 1.5 for each in found] == [True, True, False, False]


@pytest.mark.parametrize(
    ("edges", "defects"),
    [
        ([], []),
        ([("map", "odom"), ("odom", "base"), ("base", "imu")], []),
        ([("map", "odom"), ("base", "imu")], ["2 separate trees, at base, map"]),
        ([("map", "base"), ("odom", "base")], ["base has parents map, odom"]),
        ([("a", "b"), ("b", "a")], ["a cycle through a"]),
    ],
)
def test_frames_form_one_tree(edges: list[tuple[str, str]], defects: list[str]) -> None:
    assert tree_defects(set(edges)) == defects


def test_every_rule_type_says_what_it_is() -> None:
    documented: Callable[[Any], bool] = lambda kind: bool(kind.__doc__ and kind.name and kind.dimension)  # noqa: E731
    assert all(documented(kind) for kind in TOPIC_RULES.values())
