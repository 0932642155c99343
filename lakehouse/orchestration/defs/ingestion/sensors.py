"""Watches the drop folder."""

import json

import dagster as dg

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
        "drop/ingested, or in drop/rejected beside a text file with the reason."
    ),
)
def drop_folder_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    settings = lakehouse.settings()
    folder = DropFolder(settings.drop_path)
    waiting = list(folder.waiting())
    # Requested earlier and still here: its run waits, works, or has failed for a reason that is not the recording's.
    # Such recordings must not fill the ticks and so block the ones behind them.
    requested = set(json.loads(context.cursor or "[]")) & {recording.version for recording in waiting}
    taken = {sequence_name_of(recording.path) for recording in waiting if recording.version in requested}
    requests: dict[str, dg.RunRequest] = {}
    for recording in waiting:
        name = sequence_name_of(recording.path)
        if recording.version in requested or name in taken or not recording.is_settled(settings.drop_settle_time):
            continue  # of two files of one name, the second is refused or recognised once the first is in
        taken.add(name)
        requested.add(recording.version)
        requests[name] = dg.RunRequest(
            run_key=recording.version,
            partition_key=name,
            run_config=dg.RunConfig(ops={ASSET_OP: RecordingConfig(path=str(recording.path))}),
            tags={"lakehouse/recording": recording.path.name},
        )
        if len(requests) == MAX_RUNS_PER_TICK:
            break
    cursor = json.dumps(sorted(requested))
    if not requests:
        return dg.SensorResult(skip_reason=f"no new recording in {settings.drop_path}", cursor=cursor)
    return dg.SensorResult(
        run_requests=list(requests.values()),
        cursor=cursor,
        dynamic_partitions_requests=[sequence_partitions.build_add_request(list(requests))],
    )
