"""From record batches to the messages of a DoGet.

Arrow's own stream writer does the encoding, dictionary messages included. It writes to a file-like object that only
collects the pieces; each message is then framed with a single copy of its buffers.
"""

from collections import deque
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import ipc

from lakehouse.flight_gateway.ipc_messages import MessageKind, kind_and_body_size
from lakehouse.flight_gateway.wire import write_flight_data

_PREFIX_SIZE = 8  # continuation marker and metadata size, four bytes each


class BatchEncoder:
    """Encodes one stream.

    Args:
        schema: The schema of all batches; its metadata is sent along.
        compression: `lz4` or `zstd` for the buffers of the bodies, or None.
    """

    def __init__(self, schema: pa.Schema, compression: str | None = None) -> None:
        self._schema = schema
        self._sink = _Pieces()
        options = ipc.IpcWriteOptions(compression=compression)
        self._writer = ipc.new_stream(pa.PythonFile(self._sink, mode="w"), schema, options=options)

    def schema_message(self) -> bytes:
        return write_flight_data([self._schema.serialize().slice(_PREFIX_SIZE)], [])

    def batch_messages(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """The dictionary messages that the batch needs, if any, and its own."""
        self._writer.write_batch(batch)
        # The stream may be idle for long with a message waiting: then nothing else may hold the rows.
        del batch
        pieces = self._sink.take()
        while pieces:
            message = _next_message(pieces)
            if message is not None:
                yield message
            del message


def _next_message(pieces: deque[bytes | pa.Buffer]) -> bytes | None:
    metadata_size = int.from_bytes(b"".join(_cut(pieces, _PREFIX_SIZE))[4:], "little")
    header = _cut(pieces, metadata_size)
    kind, body_size = kind_and_body_size(b"".join(header))
    body = _cut(pieces, body_size)
    # The writer puts the schema in front of the first batch.
    return None if kind is MessageKind.SCHEMA else write_flight_data(header, body)


def _cut(pieces: deque[bytes | pa.Buffer], size: int) -> list[bytes | pa.Buffer]:
    """The next pieces, `size` bytes in all; the writer never lets a piece span two parts of a message."""
    parts = []
    while size > 0:
        parts.append(pieces.popleft())
        size -= len(parts[-1])
    return parts


class _Pieces:
    """The writable file that Arrow's stream writer writes to. Buffers arrive as such and are not copied."""

    closed = False

    def __init__(self) -> None:
        self._pieces: deque[bytes | pa.Buffer] = deque()

    def write(self, piece: bytes | pa.Buffer) -> int:
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> deque[bytes | pa.Buffer]:
        pieces, self._pieces = self._pieces, deque()
        return pieces

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
