"""The gateway process: gRPC server, threads and limits around the Flight service."""

import errno
import socket
from types import TracebackType
from typing import Self

import grpc

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.flight_gateway import DEFAULT_HOST, DEFAULT_PORT
from lakehouse.flight_gateway.authorizer import AllowAll, Authorizer
from lakehouse.flight_gateway.memory import MemoryReturner
from lakehouse.flight_gateway.metrics import GatewayMetrics
from lakehouse.flight_gateway.service import FlightService
from lakehouse.flight_gateway.thread_pool import ServingThreads
from lakehouse.flight_gateway.tls import RenewedCredentials, TlsFiles

# Clients keep one DoPut open per topic, so hundreds of idle calls are normal. Calls beyond this number are refused.
MAX_CONCURRENT_CALLS = 2048
# What a message holds besides the batch itself: descriptor, IPC metadata of wide schemas, protobuf framing.
_FRAMING_ALLOWANCE = 2 << 20
# What a client may send of the next messages while the last one is worked on: so much for each upload. Small messages
# over a line with a round trip of 40 ms then come at 100 MB/s.
_LOOKAHEAD = 4 << 20


class Gateway:
    """Serves a lakehouse on one port, from `start` to `stop` or as a context manager.

    Args:
        host: Name or address to listen on.
        port: Port to listen on; 0 picks a free one.
        authorizer: Decides on every call; by default everybody may do everything.
        body_compression: `lz4` or `zstd` to compress the rows of DoGet, or None. Every Arrow client decodes both.
        tls: Certificate and key to encrypt with; None for plain connections.
    """

    def __init__(
        self,
        lakehouse: Lakehouse,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        authorizer: Authorizer | None = None,
        body_compression: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._credentials = None if tls is None else RenewedCredentials(tls).for_server()
        self._host = host
        self._port = port
        self._memory = MemoryReturner()
        self._threads = ServingThreads(MAX_CONCURRENT_CALLS, thread_name_prefix="flight")
        self._server = grpc.server(
            self._threads,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=_channel_options(lakehouse.settings.max_grpc_message_size + _FRAMING_ALLOWANCE),
        )
        self.metrics = GatewayMetrics(lakehouse)
        service = FlightService(lakehouse, authorizer or AllowAll(), self.metrics, body_compression)
        self._server.add_generic_rpc_handlers((service.handler(),))

    @property
    def uri(self) -> str:
        """Where clients connect to, once started."""
        scheme = "grpc" if self._credentials is None else "grpc+tls"
        return f"{scheme}://{self._bracketed_host}:{self._port}"

    @property
    def _bracketed_host(self) -> str:
        return f"[{self._host}]" if ":" in self._host else self._host

    def start(self) -> int:
        """Listen and serve in background threads.

        Returns:
            The port.

        Raises:
            ConfigurationError: If the address cannot be listened on.
        """
        _check_address(self._host, self._port)
        address = f"{self._bracketed_host}:{self._port}"
        try:
            if self._credentials is None:
                self._port = self._server.add_insecure_port(address)
            else:
                self._port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError:
            raise ConfigurationError(f"cannot listen on host {self._host}, port {self._port}") from None
        self._memory.start()
        self._server.start()
        return self._port

    def stop(self, grace: float | None = None) -> None:
        """Refuse new calls, give running ones `grace` seconds, cancel the rest, and wait for their clean-up."""
        self._server.stop(grace).wait()
        self._threads.shutdown()
        self._memory.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _check_address(host: str, port: int) -> None:
    """Find out why an address cannot be listened on, which gRPC only writes to standard error."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigurationError(f"cannot listen on host {host}, port {port}: {reason}") from None


def _channel_options(max_message_size: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_size),
        ("grpc.max_send_message_length", -1),
        # gRPC would let each upload send far ahead on a fast line, up to a hundred megabytes that no budget counts. A
        # message that has begun is still received at full speed: its window grows to its size.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
        # Without it a second gateway on the same port would silently get a share of the connections.
        ("grpc.so_reuseport", 0),
        # Notice clients that vanished without closing, so that their uploads are aborted and their threads freed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
