"""Run as a program: finalizes the open session of a sequence, deletes the sequence, or resumes what others began.

Usage: finalizing_process.py finalize|delete|resume SEQUENCE [COUNT DIRECTORY]; the lake is that of the environment.
With a count, it waits with the lake open until so many have come to the directory, so that they begin at once.
"""

import os
import sys
import time
from pathlib import Path

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings


def meet(count: int, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / str(os.getpid())).touch()
    while len(list(directory.iterdir())) < count:
        time.sleep(0.01)


if __name__ == "__main__":
    command, sequence, *others = sys.argv[1:]
    with Lakehouse.open(Settings.load()) as lakehouse:
        if others:
            meet(int(others[0]), Path(others[1]))
        if command == "delete":
            lakehouse.sequences.delete(sequence)
        elif command == "resume":
            lakehouse.recovery.resume_all()
        else:
            (session,) = lakehouse.sequences.describe(sequence).sessions
            lakehouse.sessions.finalize(session.uuid)
