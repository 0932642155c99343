"""From the messages of a DoPut to record batches.

Arrow's own stream reader does the decoding. It pulls from a file-like object that hands out the parts of one message
at a time and ends short rather than run into the next message, so metadata cannot make it read beyond its own body.
Bodies reach Arrow as slices of the received bytes; only buffers that lie unaligned are copied.
"""

from collections import deque
from collections.abc import Iterator

import grpc
import pyarrow as pa
from pyarrow import ipc

from lakehouse.catalog.errors import BadRequestError, InvalidDataError, LakehouseError, UploadCancelledError, shorten
from lakehouse.flight_gateway.ipc_messages import MessageKind, inspect_message, layout_of
from lakehouse.flight_gateway.wire import FlightData, read_flight_data

_CONTINUATION = b"\xff\xff\xff\xff"
# A batch may occupy this many times the largest message once it is decompressed, and so may all its dictionaries.
_EXPANSION_LIMIT = 8
# A value takes one bit at least. Structs and values without any width come on top, but not in unlimited numbers.
_VALUES_PER_BYTE, _VALUES_ALLOWANCE = 16, 1_000_000


class DecodedUpload:
    """One DoPut stream: its descriptor, its schema and its batches, in this order.

    Args:
        messages: The raw messages as gRPC delivers them.
        max_message_size: Largest message the server accepts, bytes; bounds what compressed data may expand to.

    Raises:
        BadRequestError: If the first message is missing or malformed.
        UploadCancelledError: Here and in every method: if the client went away.
    """

    def __init__(self, messages: Iterator[bytes], max_message_size: int) -> None:
        self._messages = messages
        first = _receive(messages)
        if first is None:
            raise BadRequestError("Missing schema: the upload ended before its first message")
        self.descriptor = first.descriptor
        self._source = _MessageSource(messages, first, _EXPANSION_LIMIT * max_message_size)
        self._reader: ipc.RecordBatchStreamReader | None = None

    def read_schema(self) -> pa.Schema:
        """The schema message.

        Raises:
            BadRequestError: If the stream does not begin with a valid one.
        """
        if self._source.is_at_end():
            raise BadRequestError("Missing schema: the upload ended before its schema message")
        options = ipc.IpcReadOptions(ensure_alignment=ipc.Alignment.DataTypeSpecific)
        try:
            self._reader = ipc.open_stream(pa.PythonFile(self._source, mode="r"), options=options)
            return self._reader.schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._as_user_error("the schema message is malformed", error) from None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches up to the client's half-close, empty ones left out.

        Raises:
            InvalidDataError: If a message is malformed or of another schema.
        """
        assert self._reader is not None, "read_schema comes first"
        self._source.expect(layout_of(self._reader.schema))
        while (batch := self._next_batch(self._reader)) is not None:
            if batch.num_rows:
                yield batch
            # An upload may be idle for hours, and hundreds are open: none may hold its last batch meanwhile.
            del batch
        self._confirm_half_close()

    def _next_batch(self, reader: ipc.RecordBatchStreamReader) -> pa.RecordBatch | None:
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._as_user_error("a record batch is malformed", error) from None

    def _confirm_half_close(self) -> None:
        # When a client cancels, gRPC may report the end of its messages before the cancellation, and a broken upload
        # would pass for a complete one. A further receive answers after both; it raises if there was a cancellation.
        if _receive(self._messages) is not None:
            raise BadRequestError("a message follows the end of the stream")

    def _as_user_error(self, what: str, error: Exception) -> LakehouseError:
        if self._source.failure is not None:
            return self._source.failure
        return InvalidDataError(f"{what}: {shorten(str(error).splitlines()[0] if str(error) else 'no details', 300)}")


class _MessageSource:
    """The readable file that Arrow's stream reader pulls encapsulated messages from."""

    closed = False

    def __init__(self, messages: Iterator[bytes], first: FlightData, memory_limit: int) -> None:
        self._messages = messages
        self._memory_limit = memory_limit
        self._dictionary_sizes: dict[int, int] = {}
        self._layout: tuple[int, int] | None = None
        self._parts: deque[pa.Buffer] = deque()
        self.failure: LakehouseError | None = None
        self._next: FlightData | None = first

    def expect(self, layout: tuple[int, int] | None) -> None:
        """Refuse record batches laid out for another schema: Arrow would read as much of them as fits this one."""
        self._layout = layout

    def is_at_end(self) -> bool:
        return not self._parts and not self._load()

    def read(self, size: int) -> bytes:
        return self.read_buffer(size).to_pybytes()

    def read_buffer(self, size: int) -> pa.Buffer:
        try:
            if not self._parts and not self._load():
                return pa.py_buffer(b"")
        except LakehouseError as error:
            self.failure = error  # Arrow keeps the text of an error only
            raise
        part = self._parts.popleft()
        if len(part) > size:
            self._parts.appendleft(part.slice(size))
            part = part.slice(0, size)
        return part

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def _load(self) -> bool:
        """Make the parts of the next message that carries Arrow data available; False at the end of the stream."""
        while True:
            message, self._next = self._next or _receive(self._messages), None
            if message is None:
                return False
            if len(message.header):
                break
            if len(message.body):
                raise InvalidDataError("a message has a body but no Arrow metadata")
            # Flight allows messages of application metadata alone.
        facts = inspect_message(message.header, message.body)
        if len(message.body) - facts.body_size >= 8:
            raise InvalidDataError("a message holds more bytes than its Arrow metadata describes")
        if self._layout and facts.layout and facts.layout != self._layout:
            raise InvalidDataError("a record batch does not have the schema of the upload")
        occupied = facts.decompressed_size
        if facts.value_count > _VALUES_PER_BYTE * occupied + _VALUES_ALLOWANCE:
            raise InvalidDataError("a message announces more values than its size allows")
        if facts.kind is MessageKind.DICTIONARY and facts.dictionary_id is not None:
            before = self._dictionary_sizes.get(facts.dictionary_id, 0) if facts.is_delta else 0
            self._dictionary_sizes[facts.dictionary_id] = before + occupied
            occupied = sum(self._dictionary_sizes.values())
        if occupied > self._memory_limit:
            raise InvalidDataError(f"a message would occupy more than {self._memory_limit} bytes of memory")
        prefix = pa.py_buffer(_CONTINUATION + len(message.header).to_bytes(4, "little"))
        self._parts.extend([prefix, message.header])
        if facts.body_size:
            self._parts.append(message.body.slice(0, facts.body_size))
        return True


def _receive(messages: Iterator[bytes]) -> FlightData | None:
    try:
        message = next(messages, None)
    except grpc.RpcError:
        raise UploadCancelledError("the upload was cancelled by the client") from None
    return None if message is None else read_flight_data(message)
