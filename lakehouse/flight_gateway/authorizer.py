"""Who may do what: every RPC and action names one permission; an authorizer decides before anything else happens."""

from collections.abc import Mapping
from typing import Protocol

from lakehouse.catalog.access.api_keys import ApiKeys
from lakehouse.catalog.access.permissions import Permission
from lakehouse.catalog.errors import PermissionDeniedError

API_KEY_HEADER = "mosaico-api-key-token"
ANYBODY = "anybody"

Headers = Mapping[str, str | bytes]


class Authorizer(Protocol):
    """Decides on one call."""

    def check(self, permission: Permission, headers: Headers) -> str:
        """Let the call pass, or refuse it.

        Args:
            headers: The call's gRPC metadata, keys in lower case.

        Returns:
            Who calls, as the audit log names it.

        Raises:
            PermissionDeniedError: If the caller lacks the permission, or presents no valid credential.
        """
        ...


class AllowAll:
    """Everybody may do everything: a gateway without keys."""

    def check(self, permission: Permission, headers: Headers) -> str:
        return ANYBODY


class KeyRequired:
    """Every call presents an API key. Nothing is cached: a revoked key fails at its next call, in every gateway."""

    def __init__(self, api_keys: ApiKeys) -> None:
        self._api_keys = api_keys

    def check(self, permission: Permission, headers: Headers) -> str:
        text = headers.get(API_KEY_HEADER, "")
        if not isinstance(text, str) or not text:
            raise PermissionDeniedError(f"an API key is missing in the request header '{API_KEY_HEADER}'")
        key = self._api_keys.authenticate(text)
        if not key.allows(permission):
            raise PermissionDeniedError(f"the API key {key.fingerprint} lacks the permission '{permission}'")
        return f"key {key.fingerprint}"
