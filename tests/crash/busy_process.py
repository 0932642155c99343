"""A process beside the gateways, as a Dagster run or the command line is one: ingests, deletes, compacts, cleans up.

usage: python -m tests.crash.busy_process SECONDS SEED; settings come from the environment. Prints what it did as JSON.
"""

import json
import random
import sys
import time

from lakehouse.catalog import audit
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from lakehouse.catalog.maintenance.compaction import run_compaction
from lakehouse.catalog.settings import Settings
from tests.crash.small_drives import SCHEMA, TAG, TOPICS, rows_of


def ingest(lake: Lakehouse, name: str) -> None:
    lake.sequences.create(name, {"by": "process"})
    session = lake.sessions.create(name)
    for path in TOPICS:
        locator = TopicLocator(name, path)
        topic = lake.topics.create(session.uuid, locator, "default", TAG)
        with lake.topics.begin_upload(locator, topic, SCHEMA) as upload:
            for batch in rows_of(name, path).to_batches():
                upload.write(batch)
            upload.finish()
    lake.sessions.finalize(session.uuid)


def main(seconds: float, seed: int) -> None:
    generator = random.Random(seed)
    finalized: list[str] = []
    deleted: list[str] = []
    cycles = 0
    with Lakehouse.open(Settings.load()) as lake, audit.acting_as("busy process"):
        print("working", flush=True)
        end = time.monotonic() + seconds
        number = 0
        while number < 3 or time.monotonic() < end:
            name = f"process-{seed}-{number}"
            number += 1
            ingest(lake, name)
            finalized.append(name)
            if generator.random() < 0.4:
                doomed = finalized.pop(generator.randrange(len(finalized)))
                lake.sequences.delete(doomed)
                deleted.append(doomed)
            if generator.random() < 0.4:
                run_compaction(lake.database, lake.table_files, lake.committer, lake.settings)
            if generator.random() < 0.4:
                cycles += run_cleanup_cycle(lake.database, lake.table_files, lake.committer, lake.settings) is not None
            lake.maintenance.run_pending()
    print(json.dumps({"finalized": finalized, "deleted": deleted, "cycles": cycles}))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
