"""Watches the places where recordings land."""

import hashlib

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import IngestionConfig, ingestion
from lakehouse.orchestration.defs.ingestion.jobs import ingest_recordings
from lakehouse.orchestration.landing.arrivals import Cursor, next_arrivals
from lakehouse.orchestration.landing.drop_folder import DropFolder
from lakehouse.orchestration.landing.place import LandedRecording, LandingPlace
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.resources import LakehouseResource

RECORDINGS_PER_RUN = 50
BYTES_PER_RUN = 2 << 30
RUNS_PER_TICK = 10


@dg.sensor(
    job=ingest_recordings,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks for recordings in the drop folder and ingests each once it has stopped changing, small ones several to "
        "a run. Afterwards it lies in drop/ingested, or in drop/rejected beside a text file with the reason."
    ),
)
def drop_folder_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    settings = lakehouse.settings()
    place = DropFolder(settings.drop_path)
    return look(place, "the drop folder", context.cursor, settings.drop_settle_time)


@dg.sensor(
    job=ingest_recordings,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks for recordings below LAKEHOUSE_LANDING_PREFIX, a prefix of an object store, and ingests them like those "
        "of the drop folder. Does nothing while the setting is empty."
    ),
)
def object_store_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    settings = lakehouse.settings()
    place = LandingPlaces(settings).prefix
    if place is None:
        return dg.SensorResult(skip_reason="LAKEHOUSE_LANDING_PREFIX names no object store", cursor=context.cursor)
    return look(place, settings.landing_prefix, context.cursor, settings.drop_settle_time)


def look(place: LandingPlace, called: str, cursor_text: str | None, settle_time_s: float) -> dg.SensorResult:
    """One look at a landing place: what is new becomes runs, a bounded number of them."""
    new, cursor = next_arrivals(
        place.waiting(),
        Cursor.parse(cursor_text),
        settle_time_s=settle_time_s,
        lookback_s=place.lookback_s,
        limit=RECORDINGS_PER_RUN * RUNS_PER_TICK,
    )
    if not new:
        return dg.SensorResult(skip_reason=f"no new recording in {called}", cursor=str(cursor))
    return dg.SensorResult(run_requests=[_request(batch) for batch in batches(new)], cursor=str(cursor))


def batches(recordings: list[LandedRecording]) -> list[list[LandedRecording]]:
    """Neighbours put together, so that the start of a run costs little beside its work, and no run takes for ever."""
    result: list[list[LandedRecording]] = []
    size = 0
    for recording in recordings:
        if not result or len(result[-1]) == RECORDINGS_PER_RUN or size + recording.size > BYTES_PER_RUN:
            result.append([])
            size = 0
        result[-1].append(recording)
        size += recording.size
    return result


def _request(batch: list[LandedRecording]) -> dg.RunRequest:
    first, count = batch[0], len(batch)
    versions = "\n".join(f"{recording.location}:{recording.version}" for recording in batch)
    return dg.RunRequest(
        run_key=hashlib.sha256(versions.encode("utf-8", "surrogatepass")).hexdigest(),
        run_config=dg.RunConfig(
            ops={ingestion.op.name: IngestionConfig(recordings=[recording.location for recording in batch])}
        ),
        tags={"lakehouse/recordings": first.name if count == 1 else f"{first.name} and {count - 1} more"},
    )
