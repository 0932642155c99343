"""What a gateway refuses, with which words, and that it goes on serving."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from lakehouse.catalog import work_limit
from lakehouse.catalog.access.permissions import parse_permissions
from lakehouse.catalog.errors import ResourceExhaustedError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.authorizer import KeyRequired
from lakehouse.flight_gateway.limits import RateLimit, RequestLimits, TooManyCallsError
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.raw_client import SERVICE, RawClient, plain_batch, status_of, upload_messages

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def lakehouse(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path, **request.param)) as lakehouse:
        yield lakehouse


@pytest.fixture
def raw(lakehouse: Lakehouse) -> Iterator[RawClient]:
    with Gateway(lakehouse, port=0) as gateway:
        client = RawClient(int(gateway.uri.rpartition(":")[2]))
        yield client
        client.close()


@pytest.mark.parametrize("lakehouse", [{"max_open_uploads": 2}], indirect=True)
def test_one_upload_too_many_is_refused_and_can_be_made_later(raw: RawClient) -> None:
    raw.action("sequence_create", locator="drive", user_metadata={})
    session = raw.action("session_create", locator="drive")
    topics = [raw.add_topic("drive", session, path) for path in "abc"]
    refused: list[str] = []

    def nested(remaining: list[Any]) -> Iterator[bytes]:
        """An upload that goes on only when those of the remaining topics were tried."""
        messages = upload_messages(remaining[0], plain_batch(1, 2, 3))
        yield messages[0]
        while raw.describe(remaining[0].locator).schema.names == []:
            time.sleep(0.01)
        if len(remaining) == 2:
            refused.append(status_of(lambda: raw.upload(remaining[1], plain_batch(1))).text)
        else:
            assert list(raw.channel.stream_stream(SERVICE + "DoPut")(nested(remaining[1:]))) == []
        yield from messages[1:]

    assert list(raw.channel.stream_stream(SERVICE + "DoPut")(nested(topics))) == []
    assert refused == ["this server has 2 uploads open, which is its limit; finish some of them first"]
    raw.upload(topics[2], plain_batch(1))
    raw.action("session_finalize", session_uuid=session["uuid"])


@pytest.mark.parametrize("lakehouse", [{"max_request_body": 64 * 1024}], indirect=True)
def test_requests_beyond_their_size_are_refused_before_they_are_parsed(raw: RawClient) -> None:
    raw.action("sequence_create", locator="drive", user_metadata={"text": "x" * 60_000})
    refused = status_of(lambda: raw.action("sequence_create", b"[" * 70_000))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.text == "Bad request: the request holds 70,000 bytes; at most 65,536 are accepted"


@pytest.mark.parametrize("lakehouse", [{"query_time_limit": 1}], indirect=True)
def test_a_search_ends_when_its_time_is_over(
    lakehouse: Lakehouse, raw: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sequence in ("one", "two"):
        topic = raw.new_topic(sequence)
        raw.upload(topic, plain_batch(*range(100)))
        raw.action("session_finalize", session_uuid=topic.session_uuid)
    query = {"ontology": {"Plain.x": {"$gt": 1}}}
    clusters = {"locator": "one/imu/front", "ontology": query["ontology"], "clustering_dt_ns": 0}
    assert len(raw.action("query", query)["items"]) == 2
    footer = lakehouse.queries._content._slices.footer

    def slow_footer(path: str) -> Any:
        time.sleep(1.1)
        return footer(path)

    monkeypatch.setattr(lakehouse.queries._content._slices, "footer", slow_footer)
    for call in (lambda: raw.action("query", query), lambda: raw.stream("topic_filter_clusterize", clusters)):
        refused = status_of(call)
        assert refused.code is EXHAUSTED
        assert "takes longer than this server allows" in refused.text
    monkeypatch.undo()
    assert len(raw.action("query", query)["items"]) == 2


@pytest.mark.parametrize("lakehouse", [{"query_memory": 1000}], indirect=True)
def test_little_memory_makes_queries_scan_in_small_pieces_with_the_same_answer(
    lakehouse: Lakehouse, raw: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = raw.new_topic("drive")
    raw.upload(topic, plain_batch(*range(5000)))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    sizes: list[int] = []
    rows = lakehouse.queries._content._slices.rows

    def watched(path: str, groups: Any, selection: Any, columns: Any, rows_per_batch: int) -> Any:
        sizes.append(rows_per_batch)
        return rows(path, groups, selection, columns, rows_per_batch)

    monkeypatch.setattr(lakehouse.queries._content._slices, "rows", watched)
    (found,) = raw.action("query", ontology={"Plain.x": {"$gt": 4998}})["items"]
    assert found["sequence"] == "drive"
    assert sizes
    assert max(sizes) * 16 <= 1000


@pytest.mark.parametrize("lakehouse", [{"key_rate_limit": 0.5}], indirect=True)
def test_a_key_that_calls_too_often_hears_when_to_come_again(lakehouse: Lakehouse) -> None:
    busy, quiet = (lakehouse.api_keys.create(parse_permissions("read"))[0].reveal() for _ in range(2))
    with Gateway(lakehouse, port=0, authorizer=KeyRequired(lakehouse.api_keys)) as gateway:
        port = int(gateway.uri.rpartition(":")[2])
        raw, other = RawClient(port, busy), RawClient(port, quiet)
        for _ in range(5):
            raw.names()
        with pytest.raises(grpc.RpcError) as refused:
            raw.unary("GetFlightInfo", resource_locator="drive")
        error: Any = refused.value
        assert error.code() is EXHAUSTED
        assert "too many calls with this API key; try again in" in error.details()
        hints = dict(error.trailing_metadata())
        assert 0 < int(hints["grpc-retry-pushback-ms"]) <= 2001
        assert other.names() == []
        raw.close()
        other.close()


def test_buckets_fill_again_and_callers_do_not_share_them() -> None:
    now = [0.0]
    limit = RateLimit(2.0, clock=lambda: now[0])
    for caller in ("one", "two"):
        for _ in range(20):
            limit.take(caller)
        with pytest.raises(TooManyCallsError) as refused:
            limit.take(caller)
        assert refused.value.retry_after_s == pytest.approx(0.5)
    now[0] = 0.5
    limit.take("one")
    with pytest.raises(TooManyCallsError):
        limit.take("one")
    now[0] = 1000.0
    for number in range(2000):
        limit.take(f"caller {number}")
        now[0] += 1
    assert len(limit._buckets) < 1100


def test_the_time_a_client_takes_to_fetch_results_does_not_count(tmp_path: Path) -> None:
    limits = RequestLimits(Settings.load(home=tmp_path, query_time_limit=1))

    def work() -> Iterator[int]:
        for number in range(3):
            work_limit.check()
            yield number

    for _ in limits.timed_results(work()):
        time.sleep(0.6)

    def endless() -> Iterator[int]:
        while True:
            time.sleep(0.3)
            work_limit.check()
            yield 0

    with pytest.raises(ResourceExhaustedError):
        list(limits.timed_results(endless()))
    work_limit.check()
