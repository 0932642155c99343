"""A Dagster code location with an instance of its own, beside the gateways: its runs ingest, delete, compact, clean up.

usage: python -m tests.crash.dagster_process SECONDS SEED; settings come from the environment. Prints JSON: what it did.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.orchestration.definitions import defs
from tests.crash.small_drives import MESSAGES_PER_RECORDING
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap


def run(instance: dg.DagsterInstance, job: str, op: str, **config: object) -> dict[str, Any]:
    """Run a job; returns the metadata of its op."""
    result = defs.resolve_job_def(job).execute_in_process(
        run_config={"ops": {op: {"config": config}}}, instance=instance, raise_on_error=False
    )
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    outputs = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    return {name: value.value for each in outputs for name, value in each.items()}


def main(seconds: float, seed: int, directory: Path) -> None:
    recordings: list[str] = []
    deleted: list[str] = []
    ingested = compacted = 0
    retention = directory / "retention.yaml"
    os.environ["LAKEHOUSE_RETENTION_FILE"] = str(retention)
    with dg.DagsterInstance.get() as instance:
        print("working", flush=True)
        end = time.monotonic() + seconds
        while ingested < 2 or time.monotonic() < end or not deleted:
            name = f"recording-{seed}-{ingested}"
            ingested += 1
            file = write_mcap(
                directory / f"{name}.mcap", [string_channel("/text", texts(MESSAGES_PER_RECORDING, prefix=name))]
            )
            run(instance, "ingest_files", "ingest_each_file", files=[str(file)])
            recordings.append(name)
            # Of several processes one at a time compacts, or carries out its policies; the others leave it at that.
            compacted += run(instance, "compaction", "compact").get("files_replaced", 0)
            if len(recordings) > 1:
                retention.write_text(f"policies:\n  - {{name: old, sequences: {recordings[0]}, max_bytes: 0 B}}\n")
                if run(instance, "retention", "retain").get("deleted"):
                    deleted.append(recordings.pop(0))
                run(instance, "cleanup", "clean_up")
    print(json.dumps({"finalized": [], "deleted": deleted, "recordings": recordings, "compacted": compacted}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lakehouse-dagster-") as own:
        os.environ["DAGSTER_HOME"] = own
        main(float(sys.argv[1]), int(sys.argv[2]), Path(own))
