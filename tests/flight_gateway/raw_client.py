"""A client that speaks to a gateway in single messages, and the rows it likes to upload."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from lakehouse.flight_gateway.ipc_encoder import BatchEncoder
from lakehouse.flight_gateway.wire import write_flight_data

SERVICE = "/arrow.flight.protocol.FlightService/"

PLAIN_SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("x", pa.float64())])


def plain_batch(*timestamps: int) -> pa.RecordBatch:
    """Rows of PLAIN_SCHEMA; x numbers them in order of arrival."""
    return pa.record_batch(
        [pa.array(timestamps, pa.int64()), pa.array(map(float, range(len(timestamps))), pa.float64())],
        schema=PLAIN_SCHEMA,
    )


@dataclass(frozen=True)
class NewTopic:
    """A topic that was just created, with the capabilities of its creator."""

    sequence: str
    session_uuid: str
    session_locator: str
    locator: str
    uuid: str


@dataclass(frozen=True)
class Status:
    """How a call ended."""

    code: grpc.StatusCode
    text: str


class _KeySender(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor
):
    """Sends an API key with every call, as the SDK does."""

    def __init__(self, api_key: str) -> None:
        self._header = ("mosaico-api-key-token", api_key)

    def _intercept(self, proceed: Any, details: Any, request: Any) -> Any:
        return proceed(details._replace(metadata=[*(details.metadata or ()), self._header]), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _intercept


class RawClient:
    """Speaks to the gateway in messages, so that tests see exact status codes and can send what no client would."""

    def __init__(self, port: int, api_key: str = "") -> None:
        self.port = port
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=unlimited)
        self.channel = grpc.intercept_channel(channel, _KeySender(api_key)) if api_key else channel

    def close(self) -> None:
        self.channel.close()

    def action(self, name: str, body: Any = None, **fields: Any) -> Any:
        """Do an action; the `response` member of its result. `body` is sent as it is when it is bytes."""
        (response,) = self.stream(name, fields if body is None else body)
        return response

    def stream(self, name: str, body: Any) -> list[Any]:
        """Do an action that answers in pieces; the `response` members of all results."""
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        action = flight.Action(name, encoded).serialize()
        responses = []
        for result in self.channel.unary_stream(SERVICE + "DoAction")(action, timeout=60):
            envelope = json.loads(flight.Result.deserialize(result).body.to_pybytes())
            assert set(envelope) == {"action", "response"}
            assert envelope["action"] == name
            responses.append(envelope["response"])
        return responses

    def describe(self, locator: str, **bounds: Any) -> flight.FlightInfo:
        return flight.FlightInfo.deserialize(self.unary("GetFlightInfo", resource_locator=locator, **bounds))

    def schema(self, locator: str) -> pa.Schema:
        return flight.SchemaResult.deserialize(self.unary("GetSchema", resource_locator=locator)).schema

    def unary(self, rpc: str, **command: Any) -> bytes:
        return self.unary_raw(rpc, flight.FlightDescriptor.for_command(json.dumps(command)).serialize())

    def unary_raw(self, rpc: str, message: bytes) -> bytes:
        encoded: bytes = self.channel.unary_unary(SERVICE + rpc)(message, timeout=60)
        return encoded

    def names(self, criteria: bytes = b"") -> list[str]:
        infos = self.channel.unary_stream(SERVICE + "ListFlights")(criteria, timeout=60)
        return [part.decode() for info in infos for part in flight.FlightInfo.deserialize(info).descriptor.path]

    def put(self, messages: Iterator[bytes] | list[bytes]) -> list[bytes]:
        return list(self.channel.stream_stream(SERVICE + "DoPut")(iter(messages), timeout=120))

    def get(self, ticket: bytes) -> list[bytes]:
        return list(self.channel.unary_stream(SERVICE + "DoGet")(flight.Ticket(ticket).serialize(), timeout=120))

    def new_topic(self, sequence: str, path: str = "imu/front", **overrides: Any) -> NewTopic:
        """Create sequence, session and topic."""
        self.action("sequence_create", locator=sequence, user_metadata={})
        session = self.action("session_create", locator=sequence)
        return self.add_topic(sequence, session, path, **overrides)

    def add_topic(self, sequence: str, session: dict[str, str], path: str, **overrides: Any) -> NewTopic:
        request = {
            "session_uuid": session["uuid"],
            "locator": f"{sequence}/{path}",
            "serialization_format": "default",
            "ontology_tag": "Plain",
            "user_metadata": {},
        }
        created = self.action("topic_create", request | overrides)
        return NewTopic(sequence, session["uuid"], session["locator"], f"{sequence}/{path}", created["uuid"])

    def upload(self, topic: NewTopic, *batches: pa.RecordBatch, schema: pa.Schema = PLAIN_SCHEMA) -> None:
        assert self.put(upload_messages(topic, *batches, schema=schema)) == []


def upload_messages(topic: NewTopic, *batches: pa.RecordBatch, schema: pa.Schema = PLAIN_SCHEMA) -> list[bytes]:
    """The messages of a well-behaved DoPut."""
    encoder = BatchEncoder(schema)
    messages = [with_descriptor(upload_command(topic.locator, topic.uuid), encoder.schema_message())]
    for batch in batches:
        messages += encoder.batch_messages(batch)
    return messages


def upload_command(locator: str, topic_uuid: str) -> bytes:
    command = json.dumps({"resource_locator": locator, "topic_uuid": topic_uuid})
    return flight.FlightDescriptor.for_command(command).serialize()


def with_descriptor(descriptor: bytes, message: bytes) -> bytes:
    """A FlightData message with a descriptor in front (field 1)."""
    return b"\x0a" + write_flight_data([descriptor], [])[1:] + message


def status_of(call: Callable[[], object]) -> Status:
    """How the call ends, which must be with an error whose text may leave the server."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    text = error.details()
    assert len(text) <= 1000
    assert text.isascii()
    assert text.isprintable()
    for leak in ("Traceback", "site-packages", ".py", "/tmp", "sqlite", "Detail:"):
        assert leak not in text
    return Status(error.code(), text)
