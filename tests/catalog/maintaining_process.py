"""Run as a program: opens the lake in a process of its own, and maintains it or works beside those that do.

Usage: maintaining_process.py HOME DATABASE_URL COMMAND [ARGUMENTS...]; where the store is comes from the environment.
"""

import sys
import time
from pathlib import Path

from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.compaction import run_compaction
from lakehouse.catalog.maintenance.retention import run_retention
from tests.catalog.scattered_lake import DAY_NS, ScatteredLake, as_texts, disordered


def compact(lake: ScatteredLake, rounds: str = "1") -> None:
    """Compact, over and over; whoever does not get the lease tries again a little later."""
    opened = lake.lakehouse
    settings = opened.settings.model_copy(update={"compaction_min_files": 2})
    for _ in range(int(rounds)):
        run_compaction(opened.database, opened.table_files, opened.committer, settings)
        time.sleep(0.05)


def clean(lake: ScatteredLake, after_days: str = "0") -> None:
    """A cleanup cycle with the clock set forward."""
    opened = lake.lakehouse
    now_ns = time.time_ns() + int(after_days) * DAY_NS
    run_cleanup_cycle(opened.database, opened.table_files, opened.committer, opened.settings, now_ns=lambda: now_ns)


def retain(lake: ScatteredLake) -> None:
    opened = lake.lakehouse
    run_retention(opened.database, opened.table_files, opened.deletion, opened.settings)


def publish(lake: ScatteredLake) -> None:
    opened = lake.lakehouse
    run_audit_care(opened.database, opened.table_files, opened.committer, opened.settings)


def come_and_go(lake: ScatteredLake, prefix: str, count: str) -> None:
    """Store sequences, read each back, and delete every second."""
    for number in range(int(count)):
        name = f"{prefix}-{number}"
        topic = lake.store(name, disordered(count=10))
        assert len(lake.rows(topic)) == 200
        if number % 2:
            lake.lakehouse.sequences.delete(name)


def read(lake: ScatteredLake, sequence: str, count: str) -> None:
    """Read and query a sequence over and over; it must look the same each time."""
    topic = lake.lakehouse.topics.get(TopicLocator(sequence, "front"))
    expected = as_texts(lake.lakehouse.reader.read(topic))
    for _ in range(int(count)):
        assert lake.rows(topic) == expected
        assert sequence in lake.find({"Scattered.number": {"$eq": 7}})


COMMANDS = {
    "compact": compact,
    "clean": clean,
    "retain": retain,
    "publish": publish,
    "come_and_go": come_and_go,
    "read": read,
}

if __name__ == "__main__":
    home, database_url, command, *arguments = sys.argv[1:]
    with ScatteredLake(Path(home), database_url, store={}) as opened:
        COMMANDS[command](opened, *arguments)
