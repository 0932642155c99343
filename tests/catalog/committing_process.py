"""Run as a program: opens the lake in a process of its own and commits, or holds the turn to.

Usage: committing_process.py HOME DATABASE_URL COMMAND [ARGUMENTS...]
"""

import json
import sys
import time
from pathlib import Path

from sqlalchemy import Connection

from lakehouse.catalog import audit
from lakehouse.catalog.commits.plan import TableChange
from lakehouse.catalog.control_plane.turns import Turns
from tests.catalog.small_lake import SmallLake

HELD_S = 600.0


def record(connection: Connection) -> None:
    audit.record(connection, "test", "committed")


def append(lake: SmallLake, prefix: str, count: str, paths: str, limit_s: str = "") -> None:
    """Append `count` sequences to every table of the comma-separated topic paths, all tables in one commit.

    Tells with a file `PREFIX.ready` that it is about to, and leaves what it has done in another: the counts of
    `Activity`. A limit in seconds is that of all there are to turns.
    """
    if limit_s:
        limits = dict.fromkeys(("patience_s", "longest_silence_s", "longest_turn_s"), float(limit_s))
        lake.committer.turns = Turns(lake.database, lake.activity, **limits)
    tables = [lake.table(path) for path in paths.split(",")]
    (lake.settings.home / f"{prefix}.ready").touch()
    for number in range(int(count)):
        name = f"{prefix}-{number}"
        lake.commit([TableChange(table.identifier, add=[lake.write(table, name)]) for table in tables], record)
    (lake.settings.home / f"{prefix}.counts").write_text(json.dumps(lake.activity.counts()))


def hold(lake: SmallLake, longest_silence_s: str) -> None:
    """Take the turn to commit, tell so with a file `held`, and keep it."""
    limits = {"longest_silence_s": float(longest_silence_s), "longest_turn_s": HELD_S}
    with Turns(lake.database, lake.activity, **limits).taken():
        (lake.settings.home / "held").touch()
        time.sleep(HELD_S)


def delete(lake: SmallLake, sequence: str, paths: str) -> None:
    tables = [lake.table(path) for path in paths.split(",")]
    lake.commit([TableChange(table.identifier, delete_sequence=sequence) for table in tables], record)


COMMANDS = {"append": append, "delete": delete, "hold": hold}

if __name__ == "__main__":
    home, database_url, command, *arguments = sys.argv[1:]
    with SmallLake(Path(home), database_url) as opened:
        COMMANDS[command](opened, *arguments)
