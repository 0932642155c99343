"""Run as a program: finalizes the open session of a sequence, or deletes the sequence, in a process of its own.

Usage: finalizing_process.py HOME DATABASE_URL finalize|delete SEQUENCE
"""

import sys
from pathlib import Path

from lakehouse.catalog.lakehouse import Lakehouse
from tests.rebuild.visible import settings_of

if __name__ == "__main__":
    home, database_url, command, sequence = sys.argv[1:]
    with Lakehouse.open(settings_of(Path(home), database_url)) as lakehouse:
        if command == "delete":
            lakehouse.sequences.delete(sequence)
        else:
            (session,) = lakehouse.sequences.describe(sequence).sessions
            lakehouse.sessions.finalize(session.uuid)
