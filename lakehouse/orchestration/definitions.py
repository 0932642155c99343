"""Everything Dagster sees of the lakehouse."""

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import sequences
from lakehouse.orchestration.defs.ingestion.jobs import ingest_files, ingest_recording
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor
from lakehouse.orchestration.resources import LakehouseResource

defs = dg.Definitions(
    assets=[sequences],
    jobs=[ingest_recording, ingest_files],
    sensors=[drop_folder_sensor],
    resources={"lakehouse": LakehouseResource()},
    executor=dg.in_process_executor,
)
