"""Jobs that ingest recordings."""

import dagster as dg

from lakehouse.contracts.gate import guard
from lakehouse.orchestration.defs.ingestion.assets import (
    end_run,
    events_to,
    sequences,
    uploaded_sessions,
    was_tried_before,
)
from lakehouse.orchestration.defs.ingestion.batch import Batch
from lakehouse.orchestration.defs.ingestion.outcome import items_of
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.resources import LakehouseResource

ingest_recordings = dg.define_asset_job(
    "ingest_recordings",
    selection=dg.AssetSelection.assets(uploaded_sessions.key, sequences.key),
    description=(
        "Upload and commit recordings, several in one run. Sensors launch it with the recordings they found; launched "
        "for partitions, it finds their recordings where they landed or were put aside."
    ),
)


class RecordingFiles(dg.Config):
    """Recordings to ingest in one run."""

    files: list[str]
    """Paths of recording files or rosbag2 directories, as the code location sees them."""


@dg.op(description="Ingest each file; one that fails does not stop the others.", pool="ingestion")
def ingest_each_file(context: dg.OpExecutionContext, config: RecordingFiles, lakehouse: LakehouseResource) -> None:
    with lakehouse.open(actor=f"dagster run {context.run_id}") as lake:
        guard(lake, lake.settings.contract_policy, context.run_id)
        places = LandingPlaces(lakehouse.settings())
        batch = Batch(lake, places, context.log, events_to(context), is_retry=was_tried_before(context))
        outcome = batch.run(items_of(config.files, places))
    end_run(outcome, context.retry_number)


@dg.job(description="Ingest the recordings listed in the run configuration, whatever folder they are in.")
def ingest_files() -> None:
    ingest_each_file()
