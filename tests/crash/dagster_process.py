"""A Dagster code location with an instance of its own, beside the gateways: real runs ingest recordings and clean up.

usage: python -m tests.crash.dagster_process SECONDS SEED; settings come from the environment. Prints JSON: what it did.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from lakehouse.orchestration.definitions import defs
from tests.crash.small_drives import MESSAGES_PER_RECORDING
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap


def run(instance: dg.DagsterInstance, job: str, op: str, **config: object) -> None:
    result = defs.resolve_job_def(job).execute_in_process(
        run_config={"ops": {op: {"config": config}}}, instance=instance, raise_on_error=False
    )
    assert result.success, [event.message for event in result.all_events if event.is_failure]


def main(seconds: float, seed: int, directory: Path) -> None:
    recordings: list[str] = []
    with dg.DagsterInstance.get() as instance:
        print("working", flush=True)
        end = time.monotonic() + seconds
        while len(recordings) < 2 or time.monotonic() < end:
            name = f"recording-{seed}-{len(recordings)}"
            file = write_mcap(
                directory / f"{name}.mcap", [string_channel("/text", texts(MESSAGES_PER_RECORDING, prefix=name))]
            )
            run(instance, "ingest_files", "ingest_each_file", files=[str(file)])
            recordings.append(name)
            run(instance, "cleanup", "clean_up", dry_run=False)
        assert instance.get_runs_count() == 2 * len(recordings)
    print(json.dumps({"finalized": [], "deleted": [], "recordings": recordings}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lakehouse-dagster-") as own:
        os.environ["DAGSTER_HOME"] = own
        main(float(sys.argv[1]), int(sys.argv[2]), Path(own))
