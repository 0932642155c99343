"""Names and locators: the only place that knows their grammar (protocol sections 5.1 and 5.3)."""

import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Self

from lakehouse.catalog.errors import BadRequestError, InvalidNameError, InvalidUuidError, quoted

MAX_NAME_LENGTH = 1024
# PostgreSQL indexes no value above 2,704 bytes, and a character may take four.
MAX_TAG_LENGTH = 512

_FORBIDDEN = re.compile(r"""[\x00-\x20\x7f!"'*£$%&.]""")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_METADATA_KEY = re.compile(r"[A-Za-z0-9_\- ]+")


def _check_characters(kind: str, name: object) -> str:
    if not isinstance(name, str):
        raise InvalidNameError(f"{quoted(name)} is not a valid {kind} locator: it must be text")
    if not name:
        raise InvalidNameError(f"'' is not a valid {kind} locator: it is empty")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidNameError(
            f"{quoted(name, 80)} is not a valid {kind} locator: at most {MAX_NAME_LENGTH} characters are allowed"
        )
    if not name.isascii():
        raise InvalidNameError(f"{quoted(name)} is not a valid {kind} locator: only ASCII characters are allowed")
    if found := _FORBIDDEN.search(name):
        raise InvalidNameError(
            f"{quoted(name)} is not a valid {kind} locator: the character {quoted(found.group())} is not allowed"
        )
    return name


def parse_sequence_name(text: object) -> str:
    """Check a sequence name, which is also its locator.

    Raises:
        InvalidNameError: If the name is empty, not ASCII, or holds a forbidden character, `/` or `:`.
    """
    name = _check_characters("sequence", text)
    for separator in "/:":
        if separator in name:
            raise InvalidNameError(f"{quoted(name)} is not a valid sequence locator: {separator!r} is not allowed")
    return name


@dataclass(frozen=True, slots=True)
class TopicLocator:
    """`sequence/topic/path`; the first slash separates."""

    sequence: str
    path: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a topic locator.

        Raises:
            InvalidNameError: If there is no path, a component is empty, or a character is forbidden.
        """
        name = _check_characters("topic", text)
        if ":" in name:
            raise InvalidNameError(f"{quoted(name)} is not a valid topic locator: ':' is not allowed")
        parts = name.split("/")
        if len(parts) < 2:
            raise InvalidNameError(f"{quoted(name)} is not a valid topic locator: expected 'sequence/topic/path'")
        if not all(parts):
            raise InvalidNameError(
                f"{quoted(name)} is not a valid topic locator: leading, trailing or double slashes are not allowed"
            )
        return cls(parts[0], "/".join(parts[1:]))

    def __str__(self) -> str:
        return f"{self.sequence}/{self.path}"


@dataclass(frozen=True, slots=True)
class SessionLocator:
    """`sequence:ULID`, the public name of a session."""

    sequence: str
    ulid: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a session locator.

        Raises:
            InvalidNameError: If there is not exactly one colon, or what follows is no upper-case ULID.
        """
        name = _check_characters("session", text)
        sequence, colon, ulid = name.partition(":")
        if not colon or not sequence or "/" in sequence or not _ULID.fullmatch(ulid):
            raise InvalidNameError(f"{quoted(name)} is not a valid session locator: expected 'sequence:ULID'")
        return cls(parse_sequence_name(sequence), ulid)

    def __str__(self) -> str:
        return f"{self.sequence}:{self.ulid}"


def parse_resource(text: object) -> str | TopicLocator | SessionLocator:
    """Read a locator of any kind: `/` makes it a topic, `:` a session, anything else is a sequence name."""
    if isinstance(text, str) and "/" in text:
        return TopicLocator.parse(text)
    if isinstance(text, str) and ":" in text:
        return SessionLocator.parse(text)
    return parse_sequence_name(text)


def parse_uuid(text: object) -> str:
    """Read a UUID into its canonical lower-case hyphenated form.

    Raises:
        InvalidUuidError: If it cannot be parsed.
    """
    try:
        if isinstance(text, str) and len(text) <= 64 and text.isascii():
            return str(uuid.UUID(text))
        return _reject_uuid(text)
    except ValueError:
        return _reject_uuid(text)


def _reject_uuid(text: object) -> str:
    raise InvalidUuidError(text) from None


def check_metadata_keys(value: object) -> None:
    """Check the object keys of user metadata, recursively (protocol section 5.4).

    Raises:
        BadRequestError: For an empty key, a key with `--`, or one with a character other than letters, digits,
            `_`, `-` and space.
    """
    pending: list[object] = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            for key, child in current.items():
                if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key) or "--" in key:
                    raise BadRequestError(
                        f"invalid json key {quoted(key)}: letters, digits, '_', '-' and spaces are allowed, '--' is not"
                    )
                pending.append(child)
        elif isinstance(current, list):
            pending.extend(current)


def check_text(kind: str, text: object, *, max_length: int = 4096) -> str:
    """Check free text such as an ontology tag: non-empty, bounded, and storable by every database.

    Raises:
        BadRequestError: If it is not.
    """
    if not isinstance(text, str) or not text:
        raise BadRequestError(f"{kind} must be a non-empty text")
    if len(text) > max_length:
        raise BadRequestError(f"{kind} {quoted(text, 80)} is longer than {max_length} characters")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadRequestError(f"{kind} {quoted(text, 80)} contains a character that cannot be stored")
    return text


def new_ulid(now_ns: int) -> str:
    """A fresh ULID for the moment `now_ns` (Unix ns): 48 bits of milliseconds, 80 random bits, Crockford base 32."""
    value = (now_ns // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -5, -5))
