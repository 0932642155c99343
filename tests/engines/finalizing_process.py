"""A process that finalizes sessions one by one, each when it is told to."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from tests.forked import context
from tests.processes import die_with_parent


@contextmanager
def finalizing_process(settings: Settings, sessions: list[str]) -> Iterator[Connection]:
    """Run it until the end of the block: each message through the connection lets it finalize the next session.

    Args:
        settings: Of the lake.
        sessions: UUIDs.
    """
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(settings, sessions, theirs), daemon=True)
    process.start()
    try:
        assert ours.recv() == "ready"
        yield ours
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def _run(settings: Settings, sessions: list[str], told: Connection) -> None:
    if dies_with_us := die_with_parent(signal.SIGKILL):
        dies_with_us()
    with Lakehouse.open(settings) as lake:
        told.send("ready")
        for session in sessions:
            told.recv()
            lake.sessions.finalize(session)
