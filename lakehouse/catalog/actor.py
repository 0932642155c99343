"""Who acts, through which door, and from where: set once at the door, written down by whatever it calls.

Apart from the log itself, so that the command line can name its user without loading a database library.
"""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Actor:
    """Attributes:
    name: A user, an API key by its fingerprint, a Dagster run, or a part of the system.
    door: What it came through: the gateway, a command, Dagster; empty for a program that uses the catalog directly.
    origin: Address of the peer, or name of the host.
    """

    name: str
    door: str
    origin: str


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


@contextmanager
def acting_as(name: str, *, door: str | None = None, origin: str | None = None) -> Iterator[None]:
    """Name who acts, for every operation inside the block; what is left out stays as it was outside."""
    outer = current_actor()
    token = _actor.set(Actor(name, outer.door if door is None else door, outer.origin if origin is None else origin))
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> Actor:
    """Who acts in this thread: by default the user of the operating system who runs the process."""
    return _actor.get() or _process_owner()


@cache
def _process_owner() -> Actor:
    return Actor(system_user(), "", socket.gethostname())


@cache
def system_user() -> str:
    """The user of the operating system, by name if there is one: containers often run as a bare number."""
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):
        return f"user {os.getuid()}"
