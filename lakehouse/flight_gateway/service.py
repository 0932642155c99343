"""The RPCs of the Flight service, on raw messages: decode, authorize, call the lakehouse, encode."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar, cast

import grpc
import pyarrow as pa
from pyarrow import flight

from lakehouse.catalog import audit
from lakehouse.catalog.access.permissions import Permission
from lakehouse.catalog.errors import (
    BadRequestError,
    NotFoundError,
    StateError,
    UnsupportedOperationError,
    UploadCancelledError,
    quoted,
)
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator, TopicLocator, parse_resource
from lakehouse.catalog.records import TopicRecord, TopicState
from lakehouse.flight_gateway import descriptions, payloads
from lakehouse.flight_gateway.actions import ACTIONS, find_action
from lakehouse.flight_gateway.authorizer import ANYBODY, Authorizer
from lakehouse.flight_gateway.errors import status_of, wire_text
from lakehouse.flight_gateway.ipc_decoder import DecodedUpload
from lakehouse.flight_gateway.ipc_encoder import BatchEncoder
from lakehouse.flight_gateway.limits import RequestLimits, TooManyCallsError, retry_hint
from lakehouse.flight_gateway.metrics import GatewayMetrics
from lakehouse.flight_gateway.request_log import RequestLog
from lakehouse.flight_gateway.tickets import Ticket
from lakehouse.flight_gateway.wire import read_criteria

SERVICE_NAME = "arrow.flight.protocol.FlightService"
# As the audit log names it.
DOOR = "gateway"


class FlightService:
    """Answers the RPCs of one gateway.

    Args:
        metrics: Counts the calls.
        body_compression: `lz4` or `zstd` to compress the bodies of DoGet, or None.
    """

    def __init__(
        self,
        lakehouse: Lakehouse,
        authorizer: Authorizer,
        metrics: GatewayMetrics,
        body_compression: str | None = None,
    ) -> None:
        self._metrics = metrics
        self._lakehouse = lakehouse
        self._limits = RequestLimits(lakehouse.settings)
        self._authorizer = authorizer
        self._body_compression = body_compression

    def handler(self) -> grpc.GenericRpcHandler:
        """The service as gRPC wants it: messages go in and out as bytes."""
        unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        duplex = grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "DoAction": streaming(self.do_action),
                "DoPut": duplex(self.do_put),
                "DoGet": streaming(self.do_get),
                "GetFlightInfo": unary(self.get_flight_info),
                "GetSchema": unary(self.get_schema),
                "ListFlights": streaming(self.list_flights),
                "ListActions": streaming(self._unsupported("ListActions")),
                "PollFlightInfo": unary(self._unsupported("PollFlightInfo")),
                "Handshake": duplex(self._unsupported("Handshake")),
                "DoExchange": duplex(self._unsupported("DoExchange")),
            },
        )

    def do_action(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._serving("DoAction", context) as log:
            message = _decoded(flight.Action, log.received(request))
            log.subject = name = message.type
            log.action = name if name in ACTIONS else ""
            needed = ACTIONS[name].permission if name in ACTIONS else Permission.ANY
            log.caller = self._authorize(needed, context)
            self._limits.check_body(message.body.size)
            # Not around the loop: between two messages a generator may continue in another context.
            with audit.acting_as(log.caller, door=DOOR, origin=context.peer()):
                responses = find_action(name).responses(self._lakehouse, message.body.to_pybytes(), self._limits)
            for response in responses:
                yield log.sent(flight.Result(payloads.envelope(name, response)).serialize())

    def do_put(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Returns only once the rows are durable, because the client takes the end of the RPC for the receipt."""
        with self._serving("DoPut", context) as log:
            log.caller = self._authorize(Permission.WRITE, context)
            decoded = DecodedUpload(_Counted(requests, log), self._lakehouse.settings.max_grpc_message_size)
            request = payloads.UploadRequest.parse(_command(decoded.descriptor))
            log.subject = str(request.locator)
            topics = self._lakehouse.topics
            with (
                self._limits.upload(),
                audit.acting_as(log.caller, door=DOOR, origin=context.peer()),
                topics.begin_upload(request.locator, request.topic_uuid, decoded.read_schema()) as upload,
            ):
                for batch in decoded.batches():
                    upload.write(batch)
                    log.rows += batch.num_rows
                    del batch
                if not context.is_active():
                    raise UploadCancelledError("the upload was cancelled by the client")
                upload.finish()
        return iter(())

    def do_get(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._serving("DoGet", context) as log:
            log.caller = self._authorize(Permission.READ, context)
            ticket = Ticket.from_bytes(_decoded(flight.Ticket, log.received(request)).ticket)
            log.subject = str(ticket.locator)
            topic = self._lakehouse.topics.get(ticket.locator)
            _check_readable(topic, ticket)
            reader = self._lakehouse.reader
            rows = descriptions.rows_in_window(topic, ticket.window, reader)
            metadata = descriptions.topic_schema_metadata(topic, rows)
            schema = descriptions.with_metadata(descriptions.stored_schema(topic), metadata)
            encoder = BatchEncoder(schema, self._body_compression)
            yield log.sent(encoder.schema_message())
            found = cast(Generator[pa.RecordBatch, None, None], reader.read(topic, ticket.window))
            with closing(found) as batches:
                for batch in batches:
                    log.rows += batch.num_rows
                    messages = encoder.batch_messages(batch)
                    del batch
                    for message in messages:
                        yield log.sent(message)

    def get_flight_info(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._serving("GetFlightInfo", context) as log:
            log.caller = self._authorize(Permission.READ, context)
            resource_request = payloads.ResourceRequest.parse(_command(log.received(request)))
            log.subject = resource_request.resource_locator
            resource = parse_resource(resource_request.resource_locator)
            descriptor, window = _decoded(flight.FlightDescriptor, request), resource_request.window
            reader = self._lakehouse.reader
            if isinstance(resource, TopicLocator):
                topic = self._lakehouse.topics.get(resource)
                info = descriptions.describe_topic(topic, window, reader, descriptor)
            elif isinstance(resource, SessionLocator):
                raise BadRequestError(f"{quoted(resource)} is a session; only sequences and topics can be described")
            else:
                sequence = self._lakehouse.sequences.describe(resource)
                info = descriptions.describe_sequence(sequence, window, reader, descriptor)
            encoded: bytes = info.serialize()
            log.sent(encoded)
        return encoded

    def get_schema(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._serving("GetSchema", context) as log:
            log.caller = self._authorize(Permission.READ, context)
            log.subject = payloads.ResourceRequest.parse(_command(log.received(request))).resource_locator
            topic = self._lakehouse.topics.get(TopicLocator.parse(log.subject))
            encoded: bytes = flight.SchemaResult(descriptions.stored_schema(topic)).serialize()
            log.sent(encoded)
        return encoded

    def list_flights(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._serving("ListFlights", context) as log:
            log.caller = self._authorize(Permission.READ, context)
            if read_criteria(request) not in (b"", b"/"):
                raise BadRequestError("ListFlights accepts no criteria but an empty one or '/'")
            for name in self._lakehouse.sequences.names():
                yield log.sent(descriptions.list_entry(name).serialize())

    def _unsupported(self, rpc: str) -> Callable[..., None]:
        def refuse(request: object, context: grpc.ServicerContext) -> None:
            with self._serving(rpc, context) as log:
                log.caller = self._authorize(Permission.ANY, context)
                raise UnsupportedOperationError(f"{rpc} is not supported by this server")

        return refuse

    def _authorize(self, permission: Permission, context: grpc.ServicerContext) -> str:
        caller = self._authorizer.check(permission, dict(context.invocation_metadata()))
        if caller != ANYBODY:
            self._limits.rate.take(caller)
        return caller

    @contextmanager
    def _serving(self, rpc: str, context: grpc.ServicerContext) -> Iterator[RequestLog]:
        """Turn whatever ends the block into a status for the client and a record in the log."""
        log = RequestLog(rpc, context.peer(), self._metrics)
        try:
            yield log
        except Exception as error:
            code, text = status_of(error)
            log.end(code, text)
            if isinstance(error, TooManyCallsError):
                context.set_trailing_metadata(retry_hint(error))
            context.abort(code, text)
        except GeneratorExit:
            log.end(grpc.StatusCode.CANCELLED)
            raise
        else:
            log.end(grpc.StatusCode.OK)


class _Counted:
    """The messages of a client, counted. No generator: whoever reads asks again after the end."""

    def __init__(self, messages: Iterator[bytes], log: RequestLog) -> None:
        self._messages = messages
        self._log = log

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._log.received(next(self._messages))


_Message = TypeVar("_Message", flight.Action, flight.Ticket, flight.FlightDescriptor)


def _decoded(kind: type[_Message], request: bytes) -> _Message:
    try:
        return kind.deserialize(request)
    except (pa.ArrowException, ValueError) as error:
        raise BadRequestError(f"malformed message: {wire_text(str(error))}") from None


def _command(descriptor: bytes | pa.Buffer | None) -> bytes:
    """The command of a descriptor message.

    Raises:
        BadRequestError: If it is missing, malformed, or names a path instead.
    """
    if descriptor is None:
        raise BadRequestError("Unsupported descriptor: the first message must carry one")
    try:
        decoded = flight.FlightDescriptor.deserialize(bytes(descriptor))
    except (pa.ArrowException, ValueError):
        decoded = None
    if decoded is None or decoded.descriptor_type != flight.DescriptorType.CMD:
        raise BadRequestError("Unsupported descriptor: it must be a command with a JSON object")
    command: bytes = decoded.command
    return command


def _check_readable(topic: TopicRecord, ticket: Ticket) -> None:
    if not ticket.names(topic):
        raise NotFoundError("topic", ticket.locator)
    if topic.state is not TopicState.FINALIZED:
        raise StateError(f"topic {quoted(topic.locator)} has no finished upload to read yet")
