"""API keys: created, listed, revoked, and checked on every call. Only salted hashes are stored.

Nothing is remembered between two checks, so whatever one process changes holds for the next call in all others.
"""

import hmac
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Row, delete, insert, select, true

from lakehouse.catalog import audit
from lakehouse.catalog.access.permissions import SEPARATOR, Permission, format_permissions
from lakehouse.catalog.access.tokens import Token, parse_fingerprint
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import api_keys
from lakehouse.catalog.errors import BadRequestError, NotFoundError, PermissionDeniedError
from lakehouse.catalog.locators import check_text

MAX_DESCRIPTION_LENGTH = 500
_SALT_BYTES = 16
_UNKNOWN_KEY = (bytes(_SALT_BYTES), bytes(32))


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """What is known of a key, its secret excepted.

    Attributes:
        fingerprint: Names the key.
        permissions: All it grants, nothing else.
        created_at_ns, expires_at_ns: Unix nanoseconds; None for a key that never expires.
    """

    fingerprint: str
    permissions: frozenset[Permission]
    description: str
    created_at_ns: int
    expires_at_ns: int | None

    def allows(self, permission: Permission) -> bool:
        return permission is Permission.ANY or permission in self.permissions

    def has_expired(self, now_ns: int) -> bool:
        return self.expires_at_ns is not None and self.expires_at_ns <= now_ns


class ApiKeys:
    """The keys of one lake."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, permissions: frozenset[Permission], description: str = "", expires_at_ns: int | None = None
    ) -> tuple[Token, ApiKeyRecord]:
        """Make a new key. The token exists in the return value only; it cannot be had again.

        Raises:
            BadRequestError: If no permission is granted, or the description is too long or not printable.
        """
        if not permissions or Permission.ANY in permissions:
            raise BadRequestError("a key must grant at least one permission")
        if description:
            check_text("description", description, max_length=MAX_DESCRIPTION_LENGTH)
        with self._database.transaction() as connection:
            token = Token.generate()
            while connection.scalar(select(true()).where(api_keys.c.fingerprint == token.fingerprint)):
                token = Token.generate()
            salt = secrets.token_bytes(_SALT_BYTES)
            record = ApiKeyRecord(token.fingerprint, permissions, description, time.time_ns(), expires_at_ns)
            connection.execute(
                insert(api_keys).values(
                    fingerprint=record.fingerprint,
                    salt=salt,
                    payload_hash=_hash(salt, token.payload),
                    permissions=format_permissions(permissions),
                    description=description,
                    created_at_ns=record.created_at_ns,
                    expires_at_ns=expires_at_ns,
                )
            )
            granted = format_permissions(permissions)
            audit.record(connection, "api_key_create", record.fingerprint, permissions=granted)
        return token, record

    def all(self) -> list[ApiKeyRecord]:
        """All keys, expired ones included, oldest first."""
        with self._database.snapshot() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at_ns, api_keys.c.fingerprint))
            return [_record(row) for row in rows]

    def get(self, fingerprint: str) -> ApiKeyRecord:
        """The key of that fingerprint.

        Raises:
            BadRequestError: If the text is no fingerprint.
            NotFoundError: If there is no such key, or it was revoked.
        """
        row = self._find(parse_fingerprint(fingerprint))
        if row is None:
            raise NotFoundError("API key", fingerprint)
        return _record(row)

    def revoke(self, fingerprint: str) -> None:
        """End a key: no call that begins after this succeeds with it, in any process.

        Raises:
            BadRequestError: If the text is no fingerprint.
            NotFoundError: If there is no such key, or it was revoked before.
        """
        parse_fingerprint(fingerprint)
        with self._database.transaction() as connection:
            if connection.execute(delete(api_keys).where(api_keys.c.fingerprint == fingerprint)).rowcount != 1:
                raise NotFoundError("API key", fingerprint)
            audit.record(connection, "api_key_revoke", fingerprint)

    def purge(self, *, everything: bool = False) -> list[str]:
        """Remove the expired keys, or all; returns their fingerprints."""
        expired: ColumnElement[bool] = api_keys.c.expires_at_ns <= time.time_ns()
        doomed = delete(api_keys).where(true() if everything else expired).returning(api_keys.c.fingerprint)
        with self._database.transaction() as connection:
            fingerprints = sorted(connection.scalars(doomed))
            for fingerprint in fingerprints:
                audit.record(connection, "api_key_purge", fingerprint)
        return fingerprints

    def authenticate(self, text: str) -> ApiKeyRecord:
        """The key that a caller presents.

        Raises:
            PermissionDeniedError: If the text is no key at all, there is no such key (any more), or it has expired.
        """
        token = Token.parse(text)
        row = self._find(token.fingerprint)
        salt, expected = _UNKNOWN_KEY if row is None else (row.salt, row.payload_hash)
        # Compared also for unknown keys, and in constant time: how long a refusal takes tells nothing.
        is_genuine = hmac.compare_digest(_hash(salt, token.payload), expected)
        if row is None or not is_genuine:
            raise PermissionDeniedError("this API key does not exist")
        record = _record(row)
        if record.has_expired(time.time_ns()):
            raise PermissionDeniedError(f"the API key {record.fingerprint} has expired")
        return record

    def _find(self, fingerprint: str) -> "Row[tuple[object, ...]] | None":
        with self._database.snapshot() as connection:
            return connection.execute(select(api_keys).where(api_keys.c.fingerprint == fingerprint)).one_or_none()


def _hash(salt: bytes, payload: str) -> bytes:
    # One round: payloads are 165 random bits, which no slow hash is needed to protect, and each call computes it.
    return hmac.digest(salt, payload.encode("ascii"), "sha256")


def _record(row: "Row[tuple[object, ...]]") -> ApiKeyRecord:
    granted = frozenset(map(Permission, row.permissions.split(SEPARATOR)))
    return ApiKeyRecord(row.fingerprint, granted, row.description, row.created_at_ns, row.expires_at_ns)
