"""What a client does to a gateway, on the plain Arrow Flight client, each step with the time it took."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.flight as flight

from bench.gateway_process import HOST


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rows that went one way.

    Attributes:
        started, first, ended: Moments of the machine's monotonic clock in seconds: call, first batch, last answer.
        size: Bytes of Arrow data.
        processor_seconds: Time on all processors of whoever did the work that is measured.
    """

    started: float
    first: float
    ended: float
    rows: int
    size: int
    processor_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def megabytes_per_second(self) -> float:
        return self.size / self.seconds / 1e6

    @property
    def seconds_to_first(self) -> float:
        return self.first - self.started

    @property
    def processor_seconds_per_gigabyte(self) -> float:
        return self.processor_seconds / self.size * 1e9


@dataclass(frozen=True, slots=True)
class TopicHandle:
    """A topic and the UUID that entitles to upload it."""

    locator: str
    uuid: str


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._client = flight.FlightClient(f"grpc://{HOST}:{port}")

    def action(self, name: str, **body: Any) -> dict[str, Any]:
        results = list(self._client.do_action(flight.Action(name, json.dumps(body).encode())))
        response: dict[str, Any] | None = json.loads(results[0].body.to_pybytes())["response"]
        return response or {}

    def open_session(self, sequence: str) -> str:
        """A new sequence with one session; returns the session's UUID."""
        self.action("sequence_create", locator=sequence, user_metadata={})
        return str(self.action("session_create", locator=sequence)["uuid"])

    def create_topic(self, session_uuid: str, locator: str, tag: str, serialization_format: str) -> TopicHandle:
        response = self.action(
            "topic_create",
            session_uuid=session_uuid,
            locator=locator,
            ontology_tag=tag,
            serialization_format=serialization_format,
            user_metadata={},
        )
        return TopicHandle(locator, str(response["uuid"]))

    def upload(self, topic: TopicHandle, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Transfer:
        """Send rows; ends when the server has said that they are durable."""
        command = json.dumps({"resource_locator": topic.locator, "topic_uuid": topic.uuid}).encode()
        rows = size = 0
        started = time.monotonic()
        writer, _ = self._client.do_put(flight.FlightDescriptor.for_command(command), schema)
        with writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
                size += batch.nbytes
            writer.done_writing()
        ended = time.monotonic()
        return Transfer(started, ended, ended, rows, size)

    def ticket(self, locator: str, start_ns: int | None = None, end_ns: int | None = None) -> flight.Ticket:
        command: dict[str, Any] = {"resource_locator": locator}
        if start_ns is not None:
            command["timestamp_ns_start"] = start_ns
        if end_ns is not None:
            command["timestamp_ns_end"] = end_ns
        descriptor = flight.FlightDescriptor.for_command(json.dumps(command).encode())
        return self._client.get_flight_info(descriptor).endpoints[0].ticket

    def batches(self, ticket: flight.Ticket) -> Iterator[pa.RecordBatch]:
        for chunk in self._client.do_get(ticket):
            yield chunk.data

    def download(self, ticket: flight.Ticket) -> Transfer:
        """Receive rows and let go of them at once."""
        rows = size = 0
        started = time.monotonic()
        first = 0.0
        for batch in self.batches(ticket):
            first = first or time.monotonic()
            rows += batch.num_rows
            size += batch.nbytes
        return Transfer(started, first, time.monotonic(), rows, size)

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
