"""Everything Dagster sees of the lakehouse."""

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import ingestion, quarantined_recordings, recordings
from lakehouse.orchestration.defs.ingestion.jobs import ingest_files, ingest_recordings
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.resources import LakehouseResource

defs = dg.Definitions(
    assets=[recordings, quarantined_recordings, ingestion],
    jobs=[ingest_recordings, ingest_files],
    sensors=[drop_folder_sensor],
    resources={"lakehouse": LakehouseResource()},
    executor=dg.in_process_executor,
)
