"""An OAuth2 authorization server: it gives signed tokens for one credential, and whoever knows its key can check them.

It speaks what clients of catalogs ask for, client credentials (RFC 6749, 4.4) answered by JSON Web Tokens (RFC 7519).
"""

import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LIFETIME_S = 3600
SCOPE = "lake:write"


class AuthorizationServer:
    """A running server.

    Attributes:
        client_id, client_secret: For which it gives tokens.
        told_lifetime_s: Seconds after which it says that tokens expire.
        given: Every token that it has given.
        stale: As many tokens as this have expired when they are given.
    """

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.client_id = "lakehouse"
        self.client_secret = f"secret-{secrets.token_hex(16)}"
        self.told_lifetime_s = LIFETIME_S
        self.given: list[str] = []
        self.stale = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    @property
    def credential(self) -> str:
        return f"{self.client_id}:{self.client_secret}"

    @property
    def public_key(self) -> str:
        """What its signatures are checked with: the body of a PEM file, in one line."""
        key = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(key).decode()

    def token(self, lifetime_s: int = LIFETIME_S) -> str:
        """A token for whoever is handed it; a negative lifetime: one that has expired."""
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": self.client_id,
            "iat": now,
            "exp": now + lifetime_s,
            "jti": secrets.token_hex(8),
        }
        parts = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims))
        return f"{parts}.{_encoded(self._key.sign(parts.encode(), padding.PKCS1v15(), SHA256()))}"

    def answer(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """HTTP status and body for a request."""
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        if (form.get("client_id"), form.get("client_secret")) != ([self.client_id], [self.client_secret]):
            return 401, {"error": "invalid_client", "error_description": f"not {form.get('client_secret')}"}
        if form.get("scope") != [SCOPE]:
            return 400, {"error": "invalid_scope"}
        is_stale, self.stale = self.stale > 0, max(self.stale - 1, 0)
        self.given.append(self.token(-60 if is_stale else LIFETIME_S))
        return 200, {"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self.told_lifetime_s}


@contextlib.contextmanager
def authorization_server() -> Iterator[AuthorizationServer]:
    """Run one until the end of the block."""
    server = AuthorizationServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, answer = server.answer(parse_qs(body.decode()))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.port = listener.server_address[1]
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
