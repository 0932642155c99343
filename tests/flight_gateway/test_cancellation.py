"""Clients that go away leave no thread, file or lock behind (protocol sections 8.5 and 10.5)."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import grpc
import pyarrow as pa
from pyarrow import flight

from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import (
    PLAIN_SCHEMA,
    SERVICE,
    RawClient,
    plain_batch,
    status_of,
    upload_messages,
)
from tests.waiting import eventually
from tests.warehouses import BOTH

WAREHOUSES = BOTH


def is_locked(raw: RawClient, locator: str) -> bool:
    return json.loads(raw.describe(locator).endpoints[0].app_metadata)["locked"]


def data_files(served: Served) -> set[str]:
    warehouse = served.lakehouse.warehouse
    return {file.uri for file in warehouse.list_files(warehouse.uri) if file.uri.endswith(".parquet")}


def busy_threads(served: Served) -> int:
    """Threads that are inside the gateway's service at the moment."""
    frames = sys._current_frames()
    busy = 0
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        # A thread that runs on may pull its frames away under the walk: what is found then is no frame any more.
        while isinstance(frame, FrameType):
            if frame.f_code.co_filename.endswith(("flight_gateway/service.py", "grpc/_server.py")) and (
                thread.name.startswith("flight")
            ):
                busy += 1
                break
            frame = frame.f_back
        else:
            busy += frame is not None
    return busy


def test_a_cancelled_upload_is_never_taken_for_a_complete_one(served: Served, raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    before = data_files(served)
    generator = random.Random(3)
    topics = [raw.add_topic(name, session, f"t{i}") for i in range(100)]
    for topic in topics:
        messages = upload_messages(topic, plain_batch(*range(2000)), plain_batch(*range(2000)))
        all_sent, done = threading.Event(), threading.Event()

        def requests(messages: list[bytes], all_sent: threading.Event, done: threading.Event) -> Iterator[bytes]:
            yield from messages
            all_sent.set()
            done.wait()

        call = raw.channel.stream_stream(SERVICE + "DoPut")(requests(messages, all_sent, done))
        all_sent.wait()
        time.sleep(generator.random() * 0.01)
        call.cancel()
        done.set()
    assert eventually(lambda: busy_threads(served) == 0)
    for topic in topics:
        assert not is_locked(raw, topic.locator)
    refused = status_of(lambda: raw.action("session_finalize", session_uuid=session["uuid"]))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert data_files(served) == before
    for topic in topics:
        raw.action("topic_delete", locator=topic.locator)


VANISHING_CLIENT = """
import sys, pyarrow as pa, pyarrow.flight as flight
client = flight.FlightClient(sys.argv[1])
schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("x", pa.float64())])
writer, _ = client.do_put(flight.FlightDescriptor.for_command(sys.argv[2]), schema)
writer.write_batch(pa.record_batch([pa.array(range(100_000)), pa.array([0.5] * 100_000)], schema=schema))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_client_that_is_killed_aborts_its_uploads(served: Served, raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    before = data_files(served)
    command = json.dumps({"resource_locator": topic.locator, "topic_uuid": topic.uuid})
    arguments = [sys.executable, "-c", VANISHING_CLIENT, f"grpc://127.0.0.1:{served.port}", command]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"written\n"
        assert eventually(lambda: busy_threads(served) == 1)
        client.kill()
    assert eventually(lambda: busy_threads(served) == 0)
    assert not is_locked(raw, topic.locator)
    assert data_files(served) == before


def test_cancelled_readers_free_everything(served: Served, raw: RawClient, name: str) -> None:
    schema = pa.schema([PLAIN_SCHEMA.field(0), pa.field("image", pa.binary())])
    images = pa.array([bytes([i]) * (1 << 20) for i in range(40)], pa.binary())
    topic = raw.new_topic(name)
    raw.upload(topic, pa.record_batch([pa.array(range(40), pa.int64()), images], schema=schema), schema=schema)
    ticket = flight.Ticket(raw.describe(topic.locator).endpoints[0].ticket.ticket).serialize()
    calls = [raw.channel.unary_stream(SERVICE + "DoGet")(ticket) for _ in range(20)]
    for call in calls:
        next(call)
    assert eventually(lambda: busy_threads(served) > 0)
    for call in calls:
        call.cancel()
    assert eventually(lambda: busy_threads(served) == 0)
    raw.action("sequence_delete", locator=name)


def test_a_slow_reader_still_gets_everything(served: Served, raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, *(plain_batch(*range(i * 10_000, (i + 1) * 10_000)) for i in range(10)))
    with flight.FlightClient(f"grpc://127.0.0.1:{served.port}") as client:
        reader = client.do_get(raw.describe(topic.locator).endpoints[0].ticket)
        rows = 0
        for chunk in reader:
            time.sleep(0.02)
            rows += chunk.data.num_rows
    assert rows == 100_000
