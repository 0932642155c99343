"""What a REST catalog is shown at each request: nothing, a token that was given to us, or one that we ask for.

PyIceberg has managers for this too. Those ask for a token when it has been refused, which our own requests would find
out in the middle of a commit, or send the credential in a header, which Iceberg's own token endpoint, and so those made
after it, do not know.
"""

import threading
import time

import requests
from pyiceberg.catalog.rest.auth import AuthManager, NoopAuthManager
from pyiceberg.exceptions import OAuthError
from requests.auth import AuthBase

_TIMEOUT_S = 30.0
# A token is renewed this long before it expires, or after half of its time if that is shorter.
_MARGIN_S = 60.0
_SERVER_ERROR = 500
# What an authorization server may say (RFC 6749, 5.2); nothing else of its answer is repeated.
_REASONS = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


class AuthorizationServerError(requests.RequestException):
    """The authorization server fails or cannot be reached: whatever needed its token was not sent."""


class GivenToken(AuthManager):
    """A bearer token; when it expires, so does our access."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_header(self) -> str:
        return f"Bearer {self._token}"


class ClientCredentials(AuthManager):
    """Bearer tokens that an authorization server gives for an id and a secret (RFC 6749, 4.4). Threads may share it.

    Args:
        token_url: Of the authorization server.
        credential: `client_id:client_secret`, or the secret alone.
        scope: What access is asked for; may be empty.
    """

    def __init__(self, token_url: str, credential: str, scope: str) -> None:
        client_id, separator, secret = credential.partition(":")
        if not separator:
            client_id, secret = "", credential
        form = {"client_id": client_id, "client_secret": secret, "scope": scope}
        self._url = token_url
        self._form = {"grant_type": "client_credentials", **{name: value for name, value in form.items() if value}}
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def auth_header(self) -> str:
        """The header with a token that has not expired.

        Raises:
            OAuthError: If the authorization server gives none.
            AuthorizationServerError: If it fails, or cannot be reached.
        """
        with self._lock:
            if not self._token or time.monotonic() >= self._renew_at:
                self._token, self._renew_at = self._ask()
            return f"Bearer {self._token}"

    def forget(self) -> None:
        """Ask for another token the next time: this one was refused before its time."""
        with self._lock:
            self._token = ""

    def _ask(self) -> tuple[str, float]:
        asked_at = time.monotonic()
        try:
            response = requests.post(self._url, data=self._form, timeout=_TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise AuthorizationServerError(type(error).__name__) from error
        if response.status_code >= _SERVER_ERROR:
            raise AuthorizationServerError(f"HTTP status {response.status_code}")
        answer = _json_object(response)
        token, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not response.ok or not isinstance(token, str) or not token:
            reason = str(answer.get("error"))
            raise OAuthError(reason if reason in _REASONS else f"HTTP status {response.status_code}")
        # Without it, the token is good until it is refused.
        lifetime_s = float(lifetime) if isinstance(lifetime, (int, float)) else float("inf")
        return token, asked_at + max(lifetime_s - _MARGIN_S, lifetime_s / 2)


Access = NoopAuthManager | GivenToken | ClientCredentials


class ObtainedHeader(AuthBase):
    """What one request is shown, obtained before it is sent.

    Raises:
        OAuthError: If the authorization server gives no token.
        AuthorizationServerError: If it fails, or cannot be reached.
    """

    def __init__(self, access: Access) -> None:
        self._header = access.auth_header()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


def _json_object(response: requests.Response) -> dict[str, object]:
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
