"""Run as a program: finalizes the open session of a sequence, or deletes the sequence, in a process of its own.

Usage: finalizing_process.py finalize|delete SEQUENCE; the lake is that of the environment.
"""

import sys

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings

if __name__ == "__main__":
    command, sequence = sys.argv[1:]
    with Lakehouse.open(Settings.load()) as lakehouse:
        if command == "delete":
            lakehouse.sequences.delete(sequence)
        else:
            (session,) = lakehouse.sequences.describe(sequence).sessions
            lakehouse.sessions.finalize(session.uuid)
