"""The text of an API key: `msco_` + 32 secret characters + `_` + fingerprint (protocol section 4.1)."""

import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Self

from lakehouse.catalog.errors import BadRequestError, PermissionDeniedError

PREFIX = "msco"
PAYLOAD_LENGTH = 32
_ALPHABET = string.ascii_lowercase + string.digits
_TOKEN = re.compile(rf"{PREFIX}_([a-z0-9]{{{PAYLOAD_LENGTH}}})_([0-9a-f]{{8}})", re.ASCII)
_FINGERPRINT = re.compile("[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed key.

    Attributes:
        payload: The secret. Not part of the representation, so that no log shows it by accident.
    """

    payload: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new random key of 165 bits."""
        return cls("".join(secrets.choice(_ALPHABET) for _ in range(PAYLOAD_LENGTH)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key.

        Raises:
            PermissionDeniedError: If prefix, length, alphabet or fingerprint are wrong. The error does not repeat it.
        """
        match = _TOKEN.fullmatch(text)
        if match is None or fingerprint_of(match[1]) != match[2]:
            # Not "unauthenticated": to every call but this kind of refusal the official client answers "not found".
            raise PermissionDeniedError("the API key is malformed; a key begins with 'msco_' and is copied as a whole")
        return cls(match[1])

    @property
    def fingerprint(self) -> str:
        """The public part: names the key in listings, logs and the audit log."""
        return fingerprint_of(self.payload)

    def reveal(self) -> str:
        """The whole key, as its owner uses it."""
        return f"{PREFIX}_{self.payload}_{self.fingerprint}"


def fingerprint_of(payload: str) -> str:
    """CRC-32 of the payload: finds a key and catches typing errors, proves nothing."""
    return format(zlib.crc32(payload.encode("ascii")), "08x")


def parse_fingerprint(text: str) -> str:
    """A fingerprint as an administrator types it.

    Raises:
        BadRequestError: If it is none. The text is not repeated: it may be a whole key.
    """
    if not _FINGERPRINT.fullmatch(text):
        raise BadRequestError("a fingerprint is the last eight characters of a key: digits and letters from a to f")
    return text
