"""Recordings become sequences."""

from pathlib import Path

import dagster as dg

from lakehouse.catalog.errors import LakehouseError, Transient
from lakehouse.orchestration.defs.ingestion.ingestion_run import ingest_one
from lakehouse.orchestration.drop_folder import DropFolder
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.recordings.naming import sequence_name_of
from lakehouse.orchestration.resources import LakehouseResource

MAX_RETRIES = 5
RETRY_AFTER_S = 10


class RecordingConfig(dg.Config):
    """Which recording to ingest."""

    path: str = ""
    """File or rosbag2 directory. Empty: the one in the drop folder whose name gives the partition's sequence."""


@dg.asset(
    partitions_def=sequence_partitions,
    group_name="ingestion",
    kinds={"iceberg", "parquet"},
    description=(
        "One recording as one sequence of the lake: every topic a slice of its Iceberg table, all of them visible at "
        "the same instant. One partition per sequence. Message counts are checked against the recording's own index; "
        "what could not be decoded is reported per topic."
    ),
)
def sequences(
    context: dg.AssetExecutionContext, config: RecordingConfig, lakehouse: LakehouseResource
) -> dg.MaterializeResult:
    drop_folder = DropFolder(lakehouse.settings().drop_path)
    path = Path(config.path) if config.path else _find_dropped(drop_folder, context.partition_key)
    try:
        with lakehouse.open(actor=f"dagster run {context.run.run_id}") as lake:
            metadata = ingest_one(lake, path, context.log, sequence_name=context.partition_key)
    except LakehouseError as error:
        if isinstance(error, Transient):
            # Not the recording's fault: it stays where it is.
            context.log.warning(error.message)
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=RETRY_AFTER_S) from error
        drop_folder.reject(path, error.message)
        raise dg.Failure(f"{path.name}: {error.message}", allow_retries=False) from None  # the text says it all
    drop_folder.mark_ingested(path)
    return dg.MaterializeResult(metadata=metadata)


def _find_dropped(drop_folder: DropFolder, sequence_name: str) -> Path:
    for recording in drop_folder.waiting():
        if sequence_name_of(recording.path) == sequence_name:
            return recording.path
    raise dg.Failure(
        f"no recording for sequence {sequence_name!r} in the drop folder; give its path in the run configuration",
        allow_retries=False,
    )
