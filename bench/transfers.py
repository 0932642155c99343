"""What the client processes do: functions that a worker calls with its own rows."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from bench.client import Client, TopicHandle, Transfer
from bench.rows import RowSource

# The stand-in asks for no right to upload.
ANY_UUID = "00000000-0000-4000-8000-000000000000"


def create_topic(rows: RowSource, port: int, session: str, locator: str) -> TopicHandle:
    with Client(port) as client:
        return client.create_topic(session, locator, rows.tag, rows.serialization_format)


def upload(rows: RowSource, port: int, topic: TopicHandle, size: int) -> Transfer:
    with Client(port) as client:
        return client.upload(topic, rows.schema, rows.take(size))


def download(
    rows: RowSource, port: int, locator: str, start_ns: int | None = None, end_ns: int | None = None
) -> Transfer:
    with Client(port) as client:
        return client.download(client.ticket(locator, start_ns, end_ns))


def copy_topic(rows: RowSource, port: int, locator: str, other_port: int, other_locator: str) -> tuple[Transfer, int]:
    """Upload to another server exactly the batches that this one sends; also returns the rows of the largest."""
    largest = 0

    def counted(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nonlocal largest
        for batch in batches:
            largest = max(largest, batch.num_rows)
            yield batch

    with Client(port) as source, Client(other_port) as target:
        batches = counted(source.batches(source.ticket(locator)))
        done = target.upload(TopicHandle(other_locator, ANY_UUID), rows.schema, batches)
    return done, largest


def together(done: Sequence[Transfer], processor_seconds: float) -> Transfer:
    """Transfers that ran at the same time, as one."""
    return Transfer(
        min(each.started for each in done),
        min(each.first for each in done),
        max(each.ended for each in done),
        sum(each.rows for each in done),
        sum(each.size for each in done),
        processor_seconds,
    )
