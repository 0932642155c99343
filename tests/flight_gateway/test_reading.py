"""DoGet: rows come back exactly, in time order, and never in an empty batch (protocol section 10)."""

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from lakehouse.flight_gateway.server import Gateway
from lakehouse.flight_gateway.wire import read_flight_data
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import PLAIN_SCHEMA, RawClient, plain_batch, status_of
from tests.warehouses import BOTH

WAREHOUSES = BOTH


def ticket_of(raw: RawClient, locator: str, **bounds: int) -> flight.Ticket:
    return raw.describe(locator, **bounds).endpoints[0].ticket


def rows(arrow: flight.FlightClient, ticket: flight.Ticket) -> list[tuple[int, float]]:
    found = []
    for chunk in arrow.do_get(ticket):
        assert chunk.data.num_rows > 0
        assert chunk.app_metadata is None
        found += zip(*(column.to_pylist() for column in chunk.data.columns), strict=True)
    return found


@pytest.fixture(params=["open session", "finalized session"])
def finalized(request: pytest.FixtureRequest) -> bool:
    return request.param == "finalized session"


def test_unsorted_rows_come_back_sorted_and_duplicates_keep_their_order(
    raw: RawClient, arrow: flight.FlightClient, name: str, finalized: bool
) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(30, 10, 20, 10), plain_batch(10, 5, 30))
    if finalized:
        raw.action("session_finalize", session_uuid=topic.session_uuid)
    assert rows(arrow, ticket_of(raw, topic.locator)) == [
        (5, 1.0),
        (10, 1.0),
        (10, 3.0),
        (10, 0.0),
        (20, 2.0),
        (30, 0.0),
        (30, 2.0),
    ]


def test_the_ticket_carries_the_window(raw: RawClient, arrow: flight.FlightClient, name: str, finalized: bool) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(*range(0, 100, 10)))
    if finalized:
        raw.action("session_finalize", session_uuid=topic.session_uuid)

    def stamps(**bounds: int) -> list[int]:
        return [stamp for stamp, _ in rows(arrow, ticket_of(raw, topic.locator, **bounds))]

    assert stamps(timestamp_ns_start=20, timestamp_ns_end=50) == [20, 30, 40]
    assert stamps(timestamp_ns_start=81) == [90]
    assert stamps(timestamp_ns_end=1) == [0]
    assert stamps(timestamp_ns_end=90) == list(range(0, 90, 10))
    assert stamps(timestamp_ns_end=91) == list(range(0, 100, 10))
    assert stamps(timestamp_ns_start=11, timestamp_ns_end=19) == []
    assert stamps(timestamp_ns_start=10, timestamp_ns_end=10) == []


def test_an_empty_window_or_topic_gives_the_schema_and_no_batch(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic)
    for bounds in ({}, {"timestamp_ns_start": 1, "timestamp_ns_end": 2}):
        assert len(raw.get(ticket_of(raw, topic.locator, **bounds).ticket)) == 1


def test_timestamps_beyond_doubles_are_exact(raw: RawClient, arrow: flight.FlightClient, name: str) -> None:
    stamps = [-(2**63), -(2**53) - 1, 2**53 + 1, 1_760_000_000_000_000_001, 1_760_000_000_000_000_002, 2**63 - 1]
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(*reversed(stamps)))
    assert [stamp for stamp, _ in rows(arrow, ticket_of(raw, topic.locator))] == stamps
    start = ticket_of(raw, topic.locator, timestamp_ns_start=1_760_000_000_000_000_002)
    assert [stamp for stamp, _ in rows(arrow, start)] == stamps[4:]


def test_the_schema_comes_back_with_field_metadata_and_list_names(
    raw: RawClient, arrow: flight.FlightClient, name: str
) -> None:
    schema = pa.schema(
        [
            pa.field("timestamp_ns", pa.int64(), nullable=False),
            pa.field(
                "pose",
                pa.struct(
                    [
                        pa.field(
                            "position", pa.list_(pa.field("item", pa.float64(), nullable=False), 3), nullable=False
                        ),
                        pa.field("label", pa.large_utf8(), metadata={"description": "what it is"}),
                    ]
                ),
                metadata={"description": "where it is"},
            ),
            pa.field("points", pa.list_(pa.field("element", pa.list_(pa.float32())))),
            pa.field("table", pa.map_(pa.utf8(), pa.uint64())),
        ],
        metadata={"origin": "lab"},
    )
    content = [
        [1, 2],
        [{"position": [1.0, 2.0, 3.0], "label": "a"}, {"position": [0.0] * 3, "label": None}],
        [[[1.0], []], None],
        [[("a", 2**64 - 1)], []],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(content, schema, strict=True)]
    batch = pa.record_batch(arrays, schema=schema)
    topic = raw.new_topic(name)
    raw.upload(topic, batch, schema=schema)
    assert raw.schema(topic.locator).equals(schema, check_metadata=True)
    read = arrow.do_get(ticket_of(raw, topic.locator)).read_all()
    for got, sent in zip(read.schema, schema, strict=True):
        assert got.equals(sent, check_metadata=True)
    assert read.schema.metadata[b"origin"] == b"lab"
    assert read.to_pylist() == pa.Table.from_batches([batch]).to_pylist()


@pytest.mark.parametrize(
    "ticket",
    [
        b"",
        b"drive",
        b"{}",
        b"null",
        b"\xff\xff",
        b'{"resource_locator":"a/b"}',
        pytest.param(b"[" * 100_000, id="nested"),
    ],
)
def test_a_forged_ticket_is_an_invalid_argument(raw: RawClient, ticket: bytes) -> None:
    assert status_of(lambda: raw.get(ticket)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_topic_without_upload_cannot_be_read(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    assert status_of(lambda: raw.get(ticket_of(raw, topic.locator).ticket)).code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_deleted_topic_is_not_found(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    ticket = ticket_of(raw, topic.locator).ticket
    raw.action("topic_delete", locator=topic.locator)
    assert status_of(lambda: raw.get(ticket)).code is grpc.StatusCode.NOT_FOUND


def test_tickets_do_not_expire_when_the_session_is_finalized(
    raw: RawClient, arrow: flight.FlightClient, name: str
) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1, 2))
    ticket = ticket_of(raw, topic.locator)
    before = rows(arrow, ticket)
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    assert rows(arrow, ticket) == before


def test_messages_stay_near_the_announced_size(raw: RawClient, name: str) -> None:
    schema = pa.schema([PLAIN_SCHEMA.field(0), pa.field("image", pa.binary())])
    images = pa.array([bytes([i]) * (1 << 20) for i in range(40)], pa.binary())
    topic = raw.new_topic(name)
    batch = pa.record_batch([pa.array(range(40), pa.int64()), images], schema=schema)
    raw.upload(topic, batch, schema=schema)
    target = raw.action("info")["config"]["grpc_target_encode_message_size"]
    _, *messages = raw.get(ticket_of(raw, topic.locator).ticket)
    assert len(messages) >= 2
    assert max(len(read_flight_data(message).body) for message in messages) <= target + (1 << 21)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_bodies_can_be_compressed(served: Served, raw: RawClient, name: str, compression: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(*range(5000)))
    ticket = ticket_of(raw, topic.locator)
    gateway = Gateway(served.lakehouse, port=0, body_compression=compression)
    with flight.FlightClient(f"grpc://127.0.0.1:{gateway.start()}") as client:
        assert [stamp for stamp, _ in rows(client, ticket)] == list(range(5000))
    gateway.stop()
