"""Health and metrics over HTTP, for orchestrators and Prometheus: `/health`, `/ready`, `/metrics`.

A thread of its own with the standard library's server: three small pages do not need more.
"""

import json
import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from types import TracebackType
from typing import Any, Self

from lakehouse import __version__
from lakehouse.catalog.errors import ConfigurationError
from lakehouse.flight_gateway.metrics import GatewayMetrics
from lakehouse.flight_gateway.readiness import OK, Readiness

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
# Who connects and says nothing is sent away.
_SILENCE_S = 5.0

_log = logging.getLogger(__name__)


class StatusServer:
    """Serves the pages from `start` to `stop`, or as a context manager.

    Args:
        host: Name or address to listen on.
        port: Port to listen on; 0 picks a free one.
    """

    def __init__(self, metrics: GatewayMetrics, readiness: Readiness, host: str, port: int) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._address = (host, port)
        self._stopping = False
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> int:
        """Serve in a background thread.

        Returns:
            The port.

        Raises:
            ConfigurationError: If the address cannot be listened on.
        """
        host, port = self._address
        try:
            self._server = _server_class(host)(self._address, _handler(self))
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"cannot listen on host {host}, port {port} for health and metrics: "
                f"{getattr(error, 'strerror', None) or 'no such address'}; "
                "set LAKEHOUSE_STATUS_PORT to another port, or to 0 for none"
            ) from None
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()
        return int(self._server.server_address[1])

    def announce_stop(self) -> None:
        """From now on `/ready` says no, so that no new clients are sent here."""
        self._stopping = True

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._readiness.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def page(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/metrics":
            return HTTPStatus.OK, PROMETHEUS, self._metrics.render()
        if path == "/health":
            return _json(HTTPStatus.OK, {"status": "ok", "version": __version__})
        if path != "/ready":
            return _json(HTTPStatus.NOT_FOUND, {"error": "pages: /health, /ready, /metrics"})
        if self._stopping:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "stopping"})
        found = self._readiness.look()
        is_ready = all(each == OK for each in found.values())
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(status, {"status": "ready" if is_ready else "not ready", **found})


def _json(status: HTTPStatus, content: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    return status, JSON, json.dumps(content).encode() + b"\n"


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # The standard library allows it everywhere; on Linux it lets a port be reused at once after a restart.
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Somebody hung up in the middle; the standard library would print a stack trace."""
            _log.debug("a status page was not delivered", exc_info=True)

    if ":" in host:
        Server.address_family = AF_INET6
    return Server


def _handler(pages: StatusServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE_S
        server_version = "lakehouse"
        sys_version = ""

        def do_GET(self) -> None:
            status, content_type, body = pages.page(self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: orchestrators ask every few seconds."""

    return Handler
