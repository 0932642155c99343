"""A server in the place of an Iceberg REST catalog that refuses or fails, and repeats what it was shown."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_GREETINGS: dict[str, dict[str, Any]] = {
    "/v1/config": {"defaults": {}, "overrides": {}},
    "/v1/namespaces": {"namespaces": []},
}


class RefusingCatalog(ThreadingHTTPServer):
    """Answers with an error; its text holds the credentials of the request, as those of careless servers do.

    Attributes:
        greets: Whether clients may connect and see that it is empty, and are refused only afterwards.
        status: With which it refuses; 200: with an answer that has nothing of what it should have.
        shown: Everything that clients sent: headers and bodies.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.greets = False
        self.status = 401
        self.shown = ""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        catalog = self.server
        assert isinstance(catalog, RefusingCatalog)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        sent = f"{self.headers.get('Authorization', '')} {body}"
        catalog.shown += sent
        if catalog.greets and self.command == "GET" and (answer := _GREETINGS.get(self.path.partition("?")[0])):
            self._send(200, answer)
        elif catalog.greets and self.command == "GET":
            self._send(404, {"error": {"message": "there is none", "type": "NoSuchTableException", "code": 404}})
        else:
            error = {"message": f"no access with {sent}", "type": "NotAuthorizedException", "code": catalog.status}
            self._send(catalog.status, {"error": error})

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815

    def _send(self, status: int, content: dict[str, Any]) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    def log_message(self, *_arguments: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def refusing_catalog() -> Iterator[RefusingCatalog]:
    """One that runs until the end of the block."""
    catalog = RefusingCatalog()
    thread = threading.Thread(target=catalog.serve_forever)
    thread.start()
    try:
        yield catalog
    finally:
        catalog.shutdown()
        thread.join()
        catalog.server_close()
