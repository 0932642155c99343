"""Watches the drop folder."""

import dagster as dg

from lakehouse.catalog.errors import LakehouseError
from lakehouse.orchestration.defs.ingestion.assets import RecordingConfig, sequences
from lakehouse.orchestration.defs.ingestion.jobs import ingest_recording
from lakehouse.orchestration.drop_folder import DropFolder
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.recordings.naming import sequence_name_of
from lakehouse.orchestration.resources import LakehouseResource

MAX_RUNS_PER_TICK = 20
ASSET_OP = sequences.key.to_python_identifier()


@dg.sensor(
    job=ingest_recording,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks for recordings in the drop folder and ingests each once it has stopped changing. Afterwards it lies in "
        "`ingested/`, or in `rejected/` beside a text file with the reason."
    ),
)
def drop_folder_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    settings = lakehouse.settings()
    folder = DropFolder(settings.drop_path)
    requests: dict[str, dg.RunRequest] = {}
    for recording in folder.waiting():
        if not recording.is_settled(settings.drop_settle_time):
            continue
        try:
            name = sequence_name_of(recording.path)
        except LakehouseError as error:
            folder.reject(recording.path, error.message)
            context.log.error(f"{recording.path.name}: {error.message}")
            continue
        if name in requests:
            continue  # two files of one name: the second is refused or recognised once the first is in
        requests[name] = dg.RunRequest(
            run_key=recording.version,
            partition_key=name,
            run_config=dg.RunConfig(ops={ASSET_OP: RecordingConfig(path=str(recording.path))}),
            tags={"lakehouse/recording": recording.path.name},
        )
        if len(requests) == MAX_RUNS_PER_TICK:
            break
    if not requests:
        return dg.SensorResult(skip_reason=f"no new recording in {settings.drop_path}")
    return dg.SensorResult(
        run_requests=list(requests.values()),
        dynamic_partitions_requests=[sequence_partitions.build_add_request(list(requests))],
    )
