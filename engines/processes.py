"""A server of others in a process of its own, which ends with the block that it runs in."""

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_PAUSE_S = 0.1
# What is asked to end and does not within this time is killed.
_PATIENCE_S = 20.0
_TOLD_CHARACTERS = 3000


class ServerStartError(Exception):
    """A server did not start; the text ends with what it said last."""


@contextlib.contextmanager
def server_process(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    is_ready: Callable[[], bool],
    start_timeout_s: float,
    telling: re.Pattern[str] | None = None,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    before_start: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Run a server until the end of the block.

    Args:
        name: For people.
        command: Program and arguments.
        log: File that what it says is appended to.
        is_ready: Whether it answers; an `OSError` means that it does not yet.
        start_timeout_s: Seconds until it must be ready.
        telling: Which lines of the log say why it did not start; None: the last ones.
        directory: Where it runs; None: here.
        environment: All of its environment; None: ours.
        before_start: Runs in the child process before it becomes the server.

    Raises:
        ServerStartError: If it ends, or is not ready in time.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=environment,
            preexec_fn=before_start,
        )
    try:
        deadline = time.monotonic() + start_timeout_s
        while not _answers(is_ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerStartError(f"{name} did not start:\n{_last_words(log, telling)}")
            time.sleep(_PAUSE_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(is_ready: Callable[[], bool]) -> bool:
    try:
        return is_ready()
    except OSError:
        return False


def _last_words(log: Path, telling: re.Pattern[str] | None) -> str:
    text = log.read_text(errors="replace")
    if telling is not None and (lines := [line for line in text.splitlines() if telling.search(line)]):
        text = "\n".join(lines[-20:])
    return text[-_TOLD_CHARACTERS:]
