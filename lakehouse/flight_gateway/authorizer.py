"""Who may do what: every RPC and action names one permission; an authorizer decides before anything else happens."""

from collections.abc import Mapping
from enum import Enum
from typing import Protocol


class Permission(Enum):
    """What a caller needs (protocol section 4.2); ANY is any valid key."""

    ANY = "any"
    READ = "read"
    WRITE = "write"
    DELETE = "delete"


class Authorizer(Protocol):
    """Decides on one call."""

    def check(self, permission: Permission, headers: Mapping[str, str | bytes]) -> None:
        """Let the call pass, or refuse it.

        Args:
            headers: The call's gRPC metadata, keys in lower case.

        Raises:
            PermissionDeniedError: If the caller lacks the permission.
        """


class AllowAll:
    """Everybody may do everything: a gateway without keys."""

    def check(self, permission: Permission, headers: Mapping[str, str | bytes]) -> None:
        pass
