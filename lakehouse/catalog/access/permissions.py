"""What a key may allow, and how permissions include one another (protocol section 4.2)."""

from collections.abc import Iterable
from enum import StrEnum

from lakehouse.catalog.errors import BadRequestError, quoted


class Permission(StrEnum):
    """A right; ANY is what every valid key has and is never granted by name."""

    ANY = "any"
    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    MANAGE = "manage"


# Each includes all before it.
LADDER = (Permission.READ, Permission.WRITE, Permission.DELETE, Permission.MANAGE)
SEPARATOR = "|"


def parse_permissions(text: str, *, exact: bool = False) -> frozenset[Permission]:
    """The permissions that a text such as `write` or `read|delete` grants.

    A single word stands for itself and all that is below it on the ladder. Several words joined by `|` are taken as
    they are, and so is a single one if `exact`.

    Raises:
        BadRequestError: If a word names no permission that can be granted.
    """
    words = [word.strip().lower() for word in text.split(SEPARATOR)]
    unknown = [word for word in words if word not in LADDER]
    if unknown:
        raise BadRequestError(f"{quoted(unknown[0])} is no permission; allowed: {', '.join(LADDER)}, joined by '|'")
    named = [Permission(word) for word in words]
    if exact or len(named) > 1:
        return frozenset(named)
    return frozenset(LADDER[: LADDER.index(named[0]) + 1])


def format_permissions(permissions: Iterable[Permission]) -> str:
    """`read|write`, in the order of the ladder."""
    return SEPARATOR.join(sorted(permissions, key=LADDER.index))
