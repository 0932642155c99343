"""Queries and clusters on the wire, message by message."""

import itertools
import json
import threading
from typing import Any

import grpc
import pyarrow as pa
import pytest

from lakehouse.flight_gateway.actions import ACTIONS
from lakehouse.flight_gateway.authorizer import Permission
from tests.flight_gateway.raw_client import NewTopic, RawClient, status_of
from tests.warehouses import BOTH

WAREHOUSES = BOTH
_numbers = itertools.count()
POINT = pa.struct([("x", pa.float64()), ("y", pa.float64())])
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("x", pa.float64()),
        pa.field("y", pa.float64()),
        pa.field("label", pa.string()),
        pa.field("axes", pa.list_(pa.float64())),
        pa.field("points", pa.list_(POINT)),
        pa.field("grid", pa.list_(pa.list_(pa.float64()))),
        pa.field("big", pa.int64()),
    ]
)


def rows(*found: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(found), schema=SCHEMA)


class Drives:
    """Fills a lake; every test module and test has names of its own."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw

    def record(
        self,
        sequence: str,
        topics: dict[str, pa.RecordBatch | None],
        *,
        tag: str = "State",
        finalize: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> list[NewTopic]:
        self.raw.action("sequence_create", locator=sequence, user_metadata=metadata or {})
        return self.extend(sequence, topics, tag=tag, finalize=finalize)

    def extend(
        self, sequence: str, topics: dict[str, pa.RecordBatch | None], *, tag: str = "State", finalize: bool = True
    ) -> list[NewTopic]:
        session = self.raw.action("session_create", locator=sequence)
        created = []
        for path, batch in topics.items():
            topic = self.raw.add_topic(sequence, session, path, ontology_tag=tag)
            created.append(topic)
            if batch is not None:
                self.raw.upload(topic, batch, schema=SCHEMA)
        if finalize:
            self.raw.action("session_finalize", session_uuid=session["uuid"])
        return created


@pytest.fixture(scope="module")
def drives(raw: RawClient) -> Drives:
    return Drives(raw)


@pytest.fixture
def tag() -> str:
    """An ontology tag that no other test uses, so that queries on it see this test's topics only."""
    return f"Tag{next(_numbers)}"


def locators(raw: RawClient, **request: Any) -> list[str]:
    items = raw.action("query", request)["items"]
    for item in items:
        assert set(item) == {"sequence", "topics"}
        assert item["topics"]
        assert all(set(topic) == {"locator", "ontology_tag"} for topic in item["topics"])
        assert all(topic["locator"].partition("/")[0] == item["sequence"] for topic in item["topics"])
    assert [item["sequence"] for item in items] == sorted({item["sequence"] for item in items})
    return [topic["locator"] for item in items for topic in item["topics"]]


def clusters(raw: RawClient, action: str = "topic_filter_clusterize", **request: Any) -> list[tuple[int, int]]:
    found = raw.stream(action, request)
    assert [each["id"] for each in found] == list(range(len(found)))
    assert all(set(each) == {"ts", "id"} and set(each["ts"]) == {"start_ns", "end_ns"} for each in found)
    return [(each["ts"]["start_ns"], each["ts"]["end_ns"]) for each in found]


def test_the_answer_has_the_shape_of_the_protocol(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    drives.record(
        name, {"b/2": rows({"timestamp_ns": 1}), "a": rows({"timestamp_ns": 1}), "b/10": None}, tag=tag, finalize=False
    )
    answer = raw.action("query", {"sequence": {"name": {"$eq": name}}})
    assert answer == {
        "items": [
            {
                "sequence": name,
                "topics": [{"locator": f"{name}/{path}", "ontology_tag": tag} for path in ("a", "b/10", "b/2")],
            }
        ]
    }


@pytest.mark.parametrize(
    "request_", [{}, {"sequence": {}}, {"topic": {"user_metadata": {}}, "ontology": {}}, {"no": 1}]
)
def test_a_query_that_asks_nothing_finds_nothing(raw: RawClient, request_: dict[str, Any]) -> None:
    assert raw.action("query", request_) == {"items": []}


def test_a_sequence_without_topics_is_never_found(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name, user_metadata={"a": 1})
    assert locators(raw, sequence={"name": {"$eq": name}}) == []
    assert locators(raw, sequence={"name": {"$eq": name}, "user_metadata": {"a": {"$eq": 1}}}) == []


def test_all_conditions_on_a_tag_have_to_hold_in_one_row(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    drives.record(
        name, {"a": rows({"timestamp_ns": 1, "x": 5.0, "y": 0.0}, {"timestamp_ns": 2, "x": 0.0, "y": 5.0})}, tag=tag
    )
    assert locators(raw, ontology={f"{tag}.x": {"$gt": 1}, f"{tag}.y": {"$gt": 1}}) == []
    assert locators(raw, ontology={f"{tag}.x": {"$gt": 1}, f"{tag}.timestamp_ns": {"$geq": 2}}) == []
    assert locators(raw, ontology={f"{tag}.x": {"$gt": 1}, f"{tag}.y": {"$lt": 1}}) == [f"{name}/a"]
    assert locators(raw, ontology={f"{tag}.x": {"$gt": 1}, f"{tag}.timestamp_ns": {"$lt": 2}}) == [f"{name}/a"]


def test_two_tags_intersect_sequences_and_unite_topics(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    other, high, low = f"{tag}b", rows({"timestamp_ns": 1, "x": 9.0}), rows({"timestamp_ns": 1, "x": 1.0})
    drives.record(f"{name}-both", {"a1": high, "a2": high, "a3": low}, tag=tag)
    drives.extend(f"{name}-both", {"b1": high, "b2": low}, tag=other)
    drives.record(f"{name}-one", {"a": high}, tag=tag)
    drives.record(f"{name}-half", {"a": high}, tag=tag)
    drives.extend(f"{name}-half", {"b": low}, tag=other)
    asked = {f"{tag}.x": {"$gt": 5}, f"{other}.x": {"$gt": 5}}
    assert locators(raw, ontology=asked) == [f"{name}-both/a1", f"{name}-both/a2", f"{name}-both/b1"]
    # The filter on topics admits one tag only, so that no sequence has both.
    assert locators(raw, ontology=asked, topic={"ontology_tag": {"$eq": tag}}) == []
    assert locators(raw, ontology=asked, topic={"name": {"$match": "/?1"}}) == [f"{name}-both/a1", f"{name}-both/b1"]
    assert locators(raw, ontology={f"{tag}.x": {"$gt": 5}, "Unheard.x": {"$gt": 5}}) == []


def test_conditions_on_names_metadata_and_rows_combine(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    for number, project in enumerate(("Apollo", "Gemini", "Apollo")):
        batch = rows({"timestamp_ns": 1, "x": float(number)})
        drives.record(
            f"{name}-{number}", {"imu/front": batch, "imu/rear": batch}, tag=tag, metadata={"project": project}
        )
    found = locators(
        raw,
        sequence={"name": {"$match": f"{name}-*"}, "user_metadata": {"project": {"$eq": "Apollo"}}},
        topic={"name": {"$eq": "/imu/front"}},
        ontology={f"{tag}.x": {"$geq": 1}},
    )
    assert found == [f"{name}-2/imu/front"]


LISTS = [
    {"axes": [1.0, 5.0], "points": [{"x": 1.0, "y": 0.0}, {"x": 7.0, "y": 0.0}]},
    {"axes": [], "points": []},
    {"axes": None, "points": None},
    {"axes": [9.0, 9.0], "points": [{"x": 9.0, "y": 0.0}]},
]


@pytest.mark.parametrize(
    ("path", "operators", "expected"),
    [
        ("axes[0]", {"$eq": 1}, [0]),
        ("axes[1]", {"$geq": 5}, [0, 3]),
        ("axes[2]", {"$neq": 0}, []),
        ("axes[?]", {"$gt": 4}, [0, 3]),
        ("axes[?]", {"$neq": 9}, [0]),
        ("axes[!]", {"$gt": 4}, [1, 3]),
        ("points[?].x", {"$gt": 6}, [0, 3]),
        ("points[0].x", {"$eq": 1}, [0]),
        ("points[!].x", {"$gt": 6}, [1, 3]),
        ("axes", {"$eq": [1, 5]}, [0]),
        ("axes", {"$eq": []}, [1]),
        ("axes", {"$neq": [1, 5]}, [1, 3]),
        ("points", {"$ex": None}, None),
        ("absent", {"$eq": 1}, []),
        ("x.y", {"$eq": 1}, []),
    ],
)
def test_conditions_on_lists(
    raw: RawClient, drives: Drives, name: str, tag: str, path: str, operators: Any, expected: list[int] | None
) -> None:
    drives.record(name, {f"t{n}": rows({"timestamp_ns": 1, **values}) for n, values in enumerate(LISTS)}, tag=tag)
    found = locators(raw, ontology={f"{tag}.{path}": operators})
    if expected is not None:
        assert found == [f"{name}/t{number}" for number in expected]


BAD_ONTOLOGY: list[dict[str, Any]] = [
    {"axes[0].x[1]": {"$eq": 1}},
    {"axes[?][?]": {"$eq": 1}},
    {"axes[x]": {"$eq": 1}},
    {"axes[-1]": {"$eq": 1}},
    {"axes[": {"$eq": 1}},
    {"axes": {"$gt": 1}},
    {"axes": {"$eq": [0] * 1025}},
    {"grid[0]": {"$eq": 1}},
    {"grid[?]": {"$gt": 1}},
    {"x": {}},
    {"x": {"$like": 1}},
    {"x": {"$between": [2, 1]}},
    {"x": {"$in": []}},
    {"label": {"$match": "a" * 257}},
    {"label": {"$match": ""}},
    {"label": {"$match": "[a"}},
    {"label": {"$match": 5}},
    {"x": None},
    {"": {"$eq": 1}},
]


@pytest.mark.parametrize("ontology", BAD_ONTOLOGY, ids=lambda ontology: next(iter(ontology)) or "empty")
def test_bad_conditions_on_rows_are_invalid_arguments(
    raw: RawClient, drives: Drives, name: str, tag: str, ontology: dict[str, Any]
) -> None:
    drives.record(name, {"a": rows({"timestamp_ns": 1, "axes": [1.0], "grid": [[1.0]]})}, tag=tag)
    tagged = {f"{tag}.{path}": operators for path, operators in ontology.items()}
    assert status_of(lambda: raw.action("query", {"ontology": tagged})).code is grpc.StatusCode.INVALID_ARGUMENT
    request = {"locator": f"{name}/a", "ontology": tagged}
    refused = status_of(lambda: raw.stream("topic_filter_clusterize", request))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"\xff",
        b'{"sequence": []}',
        b'{"sequence": {"name": {"$lt": "a"}}}',
        b'{"sequence": {"name": {"$between": ["a", "b"]}}}',
        b'{"sequence": {"name": {}}}',
        b'{"topic": {"user_metadata": {"a..b": {"$eq": 1}}}}',
        b'{"topic": {"user_metadata": {"a": {"$eq": null}}}}',
        b'{"topic": {"user_metadata": {"a": {"$in": [1, "a"]}}}}',
        b'{"ontology": {"A.b": {"$eq": 1e999}}}',
        b'{"ontology": {"A.b": {"$eq": NaN}}}',
        b'{"ontology": {"A.b": {"$eq": ' + b"9" * 5000 + b"}}}",
        b'{"ontology": {"A.b": {"$eq": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}}",
        b'{"sequence": ' * 1000 + b"1" + b"}" * 1000,
        json.dumps({"ontology": {f"A.b{n}": {"$eq": n} for n in range(10_000)}}).encode(),
        json.dumps({"topic": {"user_metadata": {f"b{n}": {"$eq": n} for n in range(10_000)}}}).encode(),
        json.dumps({"ontology": {"A." + "b" * 10**6: {"$eq": 1}}}).encode(),
        json.dumps({"sequence": {"name": {"$match": "*a" * 500_000}}}).encode(),
        json.dumps({"sequence": {"name": {"$" + "a" * 10**6: 1}}}).encode(),
        b" " * (17 << 20),
    ],
    ids=lambda body: f"{body[:40]!r}",
)
def test_hostile_queries_are_refused_at_once(raw: RawClient, body: bytes) -> None:
    assert status_of(lambda: raw.action("query", body)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_query_with_a_megabyte_of_alternatives_is_answered(raw: RawClient, drives: Drives, name: str) -> None:
    drives.record(name, {"a": None}, finalize=False)
    names = [f"{name}-{number:012}" for number in range(50_000)]
    assert locators(raw, sequence={"name": {"$in": [*names, name]}}) == [f"{name}/a"]
    metadata = {"a": {"$in": [f"{number:020}" for number in range(50_000)]}}
    assert locators(raw, sequence={"name": {"$eq": name}, "user_metadata": metadata}) == []


@pytest.mark.timeout(120)
def test_a_catastrophic_pattern_is_answered_in_bounded_time(
    raw: RawClient, drives: Drives, name: str, tag: str
) -> None:
    drives.record(
        name, {"a": rows({"timestamp_ns": 1, "label": "a" * 100_000})}, tag=tag, metadata={"k": "a" * 100_000}
    )
    pattern = {"$match": "*a" * 127 + "*b"}
    assert locators(raw, sequence={"name": {"$eq": name}, "user_metadata": {"k": pattern}}) == []
    assert locators(raw, ontology={f"{tag}.label": pattern}) == []


def test_topics_of_open_sessions_are_found(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    batch = rows({"timestamp_ns": 1, "x": 5.0})
    (uploaded, _) = drives.record(name, {"done": batch, "created": None}, tag=tag, finalize=False)
    assert locators(raw, topic={"ontology_tag": {"$eq": tag}}) == [f"{name}/created", f"{name}/done"]
    assert locators(raw, ontology={f"{tag}.x": {"$eq": 5}}) == [f"{name}/done"]
    assert clusters(raw, locator=f"{name}/done", ontology={f"{tag}.x": {"$eq": 5}}) == [(1, 1)]
    assert uploaded.sequence == name


def test_deleted_topics_are_never_found(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    batch = rows({"timestamp_ns": 1, "x": 5.0})
    drives.record(name, {"a": batch, "b": batch}, tag=tag)
    asked = {"ontology": {f"{tag}.x": {"$eq": 5}}}
    raw.action("topic_delete", locator=f"{name}/a")
    assert locators(raw, **asked) == [f"{name}/b"]
    raw.action("sequence_delete", locator=name)
    assert locators(raw, **asked) == []
    assert locators(raw, topic={"ontology_tag": {"$eq": tag}}) == []
    drives.record(name, {"a": rows({"timestamp_ns": 1, "x": 6.0})}, tag=tag)
    assert locators(raw, **asked) == []
    assert locators(raw, ontology={f"{tag}.x": {"$eq": 6}}) == [f"{name}/a"]


def test_integers_beyond_doubles_are_exact(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    moment = 1761000000000000001
    drives.record(name, {"a": rows({"timestamp_ns": moment, "big": 2**53 + 1})}, tag=tag)
    assert locators(raw, ontology={f"{tag}.timestamp_ns": {"$eq": moment}}) == [f"{name}/a"]
    assert locators(raw, ontology={f"{tag}.timestamp_ns": {"$eq": moment - 1}}) == []
    assert locators(raw, ontology={f"{tag}.timestamp_ns": {"$gt": moment}}) == []
    assert locators(raw, ontology={f"{tag}.big": {"$eq": 2**53}}) == []
    assert locators(raw, ontology={f"{tag}.big": {"$gt": 2**53}}) == [f"{name}/a"]


def test_older_clients_are_told_when_rows_matched(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    values = [{"timestamp_ns": 10 * n, "x": float(n)} for n in (3, 1, 2, 4)]
    drives.record(name, {"a": rows(*values)}, tag=tag)
    request = {"ontology": {f"{tag}.x": {"$between": [2, 3]}, "include_timestamp_range": True}}
    (item,) = raw.action("query", request)["items"]
    assert item["topics"] == [{"locator": f"{name}/a", "ontology_tag": tag, "timestamp_range": [20, 30]}]
    for wanted in (False, None):
        request["ontology"]["include_timestamp_range"] = wanted  # type: ignore[assignment]
        assert locators(raw, **request) == [f"{name}/a"]
    request = {"topic": {"locator": {"$match": name[:-1]}}, "ontology": {"include_timestamp_range": True}}  # type: ignore[dict-item]
    assert f"{name}/a" in locators(raw, **request)


@pytest.fixture(scope="module")
def timeline(drives: Drives) -> str:
    """A topic with x = 1 at 0, 10, 20, 50, 60, 200 ns, and x = 0 at 30 and 40 ns."""
    times = {0: 1.0, 10: 1.0, 20: 1.0, 30: 0.0, 40: 0.0, 50: 1.0, 60: 1.0, 200: 1.0}
    drives.record("timeline", {"a": rows(*({"timestamp_ns": t, "x": x} for t, x in times.items()))}, tag="Timeline")
    return "timeline/a"


@pytest.mark.parametrize(
    ("gap", "window", "expected"),
    [
        (0, None, [(0, 200)]),
        (10, None, [(0, 20), (50, 60), (200, 200)]),
        (9, None, [(0, 0), (10, 10), (20, 20), (50, 50), (60, 60), (200, 200)]),
        (30, None, [(0, 60), (200, 200)]),
        (140, None, [(0, 200)]),
        (139, None, [(0, 60), (200, 200)]),
        (10, {"start_ns": 10, "end_ns": 60}, [(10, 20), (50, 50)]),
        (0, {"start_ns": 21, "end_ns": 50}, []),
        (0, {"start_ns": 10, "end_ns": 10}, []),
        (2**70, {"start_ns": -(2**63), "end_ns": 2**63 - 1}, [(0, 200)]),
    ],
)
def test_matching_rows_are_joined_to_clusters(
    raw: RawClient, timeline: str, gap: int, window: dict[str, int] | None, expected: list[tuple[int, int]]
) -> None:
    asked = {"locator": timeline, "clustering_dt_ns": gap, "ontology": {"Timeline.x": {"$eq": 1}}}
    assert clusters(raw, **asked, timestamp_range=window) == expected
    if window is None:
        assert clusters(raw, **asked) == expected


def test_no_matching_row_gives_an_empty_stream(raw: RawClient, timeline: str) -> None:
    assert clusters(raw, locator=timeline, clustering_dt_ns=5, ontology={"Timeline.x": {"$gt": 1}}) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ontology": {}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"ontology": None}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"ontology": {"Other.x": {"$eq": 1}}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"ontology": {"Timeline.x": {"$eq": 1}, "Other.x": {"$eq": 1}}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"clustering_dt_ns": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"clustering_dt_ns": 1.5}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"timestamp_range": {"start_ns": 2, "end_ns": 1}}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"timestamp_range": [1, 2]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"locator": "timeline"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"locator": None}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"locator": "timeline/b"}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_what_cannot_be_clustered_is_refused(
    raw: RawClient, timeline: str, changes: dict[str, Any], code: grpc.StatusCode
) -> None:
    request = {"locator": timeline, "clustering_dt_ns": 0, "ontology": {"Timeline.x": {"$eq": 1}}} | changes
    assert status_of(lambda: raw.stream("topic_filter_clusterize", request)).code is code
    both = {"topics": [request, {"locator": timeline, "ontology": {"Timeline.x": {"$eq": 1}}}], "intersect_dt_ns": 0}
    assert status_of(lambda: raw.stream("topic_filter_intersect", both)).code is code


def test_a_topic_that_was_never_uploaded_cannot_be_clustered(
    raw: RawClient, drives: Drives, name: str, tag: str
) -> None:
    drives.record(name, {"a": None}, tag=tag, finalize=False)
    request = {"locator": f"{name}/a", "ontology": {f"{tag}.x": {"$eq": 1}}}
    refused = status_of(lambda: raw.stream("topic_filter_clusterize", request))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION


def at(*times: int) -> pa.RecordBatch:
    return rows(*({"timestamp_ns": moment, "x": 1.0} for moment in times))


@pytest.mark.parametrize(
    ("first", "second", "gap", "miss", "expected"),
    [
        ([100, 140], [155, 200], 50, 20, [(145, 150)]),
        ([100, 110, 500, 510], [105, 115, 495, 505], 50, 0, [(105, 110), (500, 505)]),
        ([100, 140], [155, 200], 50, 14, []),
        ([100, 140], [155, 200], 50, 15, [(148, 148)]),
        ([0, 10, 100, 110], [10, 100], 10, 0, [(10, 10), (100, 100)]),
        ([0, 1000], [5, 6, 500, 501], 1000, 0, [(5, 501)]),
    ],
)
@pytest.mark.parametrize("across_sequences", [False, True])
def test_clusters_of_two_topics_are_intersected(
    raw: RawClient,
    drives: Drives,
    name: str,
    tag: str,
    first: list[int],
    second: list[int],
    gap: int,
    miss: int,
    expected: list[tuple[int, int]],
    across_sequences: bool,
) -> None:
    if across_sequences:
        drives.record(name, {"a": at(*first)}, tag=tag)
        drives.record(f"{name}-b", {"b": at(*second)}, tag=tag)
        found_in = [f"{name}/a", f"{name}-b/b"]
    else:
        drives.record(name, {"a": at(*first), "b": at(*second)}, tag=tag)
        found_in = [f"{name}/a", f"{name}/b"]
    topics = [{"locator": each, "clustering_dt_ns": gap, "ontology": {f"{tag}.x": {"$eq": 1}}} for each in found_in]
    assert clusters(raw, "topic_filter_intersect", topics=topics, intersect_dt_ns=miss) == expected
    assert clusters(raw, "topic_filter_intersect", topics=topics[::-1], intersect_dt_ns=miss) == expected
    twice = [topics[0], topics[1], topics[0]]
    assert clusters(raw, "topic_filter_intersect", topics=twice, intersect_dt_ns=miss) == expected
    without = [topics[0], topics[1] | {"ontology": {f"{tag}.x": {"$gt": 1}}}]
    assert clusters(raw, "topic_filter_intersect", topics=without, intersect_dt_ns=miss) == []


def test_one_topic_named_twice_intersects_to_its_own_clusters(raw: RawClient, timeline: str) -> None:
    topic = {"locator": timeline, "clustering_dt_ns": 10, "ontology": {"Timeline.x": {"$eq": 1}}}
    found = clusters(raw, "topic_filter_intersect", topics=[topic, topic], intersect_dt_ns=1000)
    assert found == [(0, 20), (50, 60), (200, 200)]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"topics": []},
        {"topics": None},
        {"topics": "timeline/a"},
        {"topics": [{"locator": "timeline/a", "ontology": {"Timeline.x": {"$eq": 1}}}]},
        {"topics": [5, 6]},
        {"topics": [{"locator": "timeline/a", "ontology": {"Timeline.x": {"$eq": 1}}}] * 2, "intersect_dt_ns": -1},
        {"topics": [{"locator": "timeline/a", "ontology": {"Timeline.x": {"$eq": 1}}}] * 2, "intersect_dt_ns": "1"},
        {"topics": [{"locator": "timeline/a", "ontology": {"Timeline.x": {"$eq": 1}}}] * 10_000},
    ],
    ids=range(9),
)
def test_bad_intersections_are_invalid_arguments(raw: RawClient, timeline: str, request_: dict[str, Any]) -> None:
    refused = status_of(lambda: raw.stream("topic_filter_intersect", request_))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("action", ["query", "topic_filter_clusterize", "topic_filter_intersect"])
def test_queries_need_the_permission_to_read(action: str) -> None:
    assert ACTIONS[action].permission is Permission.READ


def test_queries_stay_right_while_sessions_come_and_go(raw: RawClient, drives: Drives, name: str, tag: str) -> None:
    high, low = rows({"timestamp_ns": 1, "x": 9.0}), rows({"timestamp_ns": 1, "x": 1.0})
    drives.record(f"{name}-stays", {"a": high, "b": low}, tag=tag)
    failures: list[object] = []
    done = threading.Event()

    def ask() -> None:
        client = RawClient(raw.port)
        while not done.is_set():
            found = locators(client, ontology={f"{tag}.x": {"$gt": 5}}, sequence={"name": {"$match": f"{name}-*"}})
            if f"{name}-stays/a" not in found or any(not locator.endswith("/a") for locator in found):
                failures.append(found)
        client.close()

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(6):
        drives.record(f"{name}-{number % 2}", {"a": high, "b": low}, tag=tag)
        assert f"{name}-{number % 2}/a" in locators(raw, ontology={f"{tag}.x": {"$gt": 5}})
        raw.action("sequence_delete", locator=f"{name}-{number % 2}")
        assert locators(raw, ontology={f"{tag}.x": {"$gt": 5}}) == [f"{name}-stays/a"]
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
