"""Jobs that ingest recordings."""

from pathlib import Path

import dagster as dg

from lakehouse.catalog.errors import LakehouseError
from lakehouse.orchestration.defs.ingestion.assets import sequences
from lakehouse.orchestration.defs.ingestion.ingestion_run import ingest_one
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.recordings.naming import sequence_name_of
from lakehouse.orchestration.resources import LakehouseResource

ingest_recording = dg.define_asset_job(
    "ingest_recording",
    selection=dg.AssetSelection.assets(sequences),
    description="Ingest one recording into the sequence that names the partition. The drop folder sensor launches it.",
)


class RecordingFiles(dg.Config):
    """Recordings to ingest in one run."""

    files: list[str]
    """Paths of recording files or rosbag2 directories, as the code location sees them."""


@dg.op(description="Ingest each file; one that fails does not stop the others, but the run ends as failed.")
def ingest_each_file(context: dg.OpExecutionContext, config: RecordingFiles, lakehouse: LakehouseResource) -> None:
    failures = []
    with lakehouse.open(actor=f"dagster run {context.run_id}") as lake:
        for number, file in enumerate(config.files, start=1):
            path = Path(file)
            context.log.info(f"recording {number} of {len(config.files)}: {path.name}")
            try:
                metadata = ingest_one(lake, path, context.log)
            except LakehouseError as error:
                context.log.error(f"{path.name}: {error.message}")
                failures.append(f"{path.name}: {error.message}")
                continue
            name = sequence_name_of(path)
            context.instance.add_dynamic_partitions(str(sequence_partitions.name), [name])
            context.log_event(dg.AssetMaterialization(sequences.key, metadata=metadata, partition=name))
    if failures:
        raise dg.Failure(f"{len(failures)} of {len(config.files)} recordings failed", metadata={"failures": failures})


@dg.job(description="Ingest the recordings listed in the run configuration, whatever folder they are in.")
def ingest_files() -> None:
    ingest_each_file()
