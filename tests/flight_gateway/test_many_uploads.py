"""Hundreds of open uploads, and uploads far larger than a message (checklist items 2 and 25)."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest
from mosaicolabs import CompressedImage, Message, MosaicoClient

from tests.flight_gateway.raw_client import PLAIN_SCHEMA, SERVICE, RawClient, plain_batch, upload_messages

OPEN_UPLOADS = 300


@pytest.mark.slow
def test_hundreds_of_uploads_are_open_at_once_and_actions_are_still_answered(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    release = threading.Event()
    uploads = []
    for number in range(OPEN_UPLOADS):
        topic = raw.add_topic(name, session, f"sensors/{number}")
        first, *rest = upload_messages(topic, plain_batch(*range(10)))

        def requests(first: bytes = first, rest: list[bytes] = rest) -> Iterator[bytes]:
            yield first
            release.wait()
            yield from rest

        uploads.append(raw.channel.stream_stream(SERVICE + "DoPut")(requests(), timeout=200))
    assert raw.action("info")["version"]
    raw.action("sequence_create", locator=f"{name}-other")
    assert len(raw.describe(name).endpoints) == OPEN_UPLOADS
    assert not any(upload.done() for upload in uploads)
    release.set()
    for upload in uploads:
        assert list(upload) == []
    raw.action("session_finalize", session_uuid=session["uuid"])
    described = raw.describe(name)
    assert all(b'"total_row_count":10,' in endpoint.app_metadata for endpoint in described.endpoints)


def test_a_topic_larger_than_a_message_is_written_and_read_by_the_sdk(sdk: MosaicoClient, name: str) -> None:
    image = bytes(range(256)) * (1 << 12)
    with sdk.sequence_create(name, {}) as writer:
        topic = writer.topic_create("camera", {}, CompressedImage)
        for number in range(60):
            topic.push(Message(timestamp_ns=number, data=CompressedImage(data=image, format="jpeg")))
    handler = sdk.topic_handler(name, "camera")
    assert handler is not None
    found = [(message.timestamp_ns, message.data.data == image) for message in handler.get_data_streamer()]
    assert found == [(number, True) for number in range(60)]


def test_a_large_upload_takes_bounded_time(raw: RawClient, name: str) -> None:
    schema = pa.schema([PLAIN_SCHEMA.field(0), *(pa.field(f"v{i}", pa.float64()) for i in range(10))])
    rows = 400_000
    column = pa.array([0.1 * i for i in range(rows)], pa.float64())
    topic = raw.new_topic(name)
    batches = [
        pa.record_batch([pa.array(range(i * rows, (i + 1) * rows), pa.int64()), *[column] * 10], schema=schema)
        for i in range(3)
    ]
    raw.upload(topic, *batches, schema=schema)
    assert b'"total_row_count":1200000,' in raw.describe(topic.locator).endpoints[0].app_metadata
