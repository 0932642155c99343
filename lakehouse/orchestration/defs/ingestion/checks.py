"""Whether anything lies in quarantine, which an operator has to look at."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.orchestration.check_targets import latest_materialization
from lakehouse.orchestration.defs.ingestion.assets import quarantined_recordings
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.landing.quarantine import Quarantined
from lakehouse.orchestration.resources import LakehouseResource

CHECK = "quarantine_is_empty"
MAX_LISTED = 200


@dg.asset_check(
    asset=quarantined_recordings.key,
    name=CHECK,
    description=(
        "Fails while recordings lie in drop/rejected with a reason beside them, each listed with it. It is looked at "
        "again by itself when the folder changes."
    ),
)
def quarantine_is_empty(lakehouse: LakehouseResource) -> dg.AssetCheckResult:
    return _judge(_entries(lakehouse))


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Evaluates the check `quarantine_is_empty` whenever what lies in quarantine has changed.",
)
def quarantine_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    entries = _entries(lakehouse)
    cursor = hashlib.sha256(repr(entries).encode()).hexdigest()[:16]
    if cursor == context.cursor:
        return dg.SensorResult(skip_reason=f"{len(entries)} recordings in quarantine, as before", cursor=cursor)
    result = _judge(entries)
    evaluation = dg.AssetCheckEvaluation(
        asset_key=quarantined_recordings.key,
        check_name=CHECK,
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
        target_materialization_data=latest_materialization(context.instance, quarantined_recordings.key),
    )
    return dg.SensorResult(asset_events=[evaluation], cursor=cursor)


def _entries(lakehouse: LakehouseResource) -> list[Quarantined]:
    return LandingPlaces(lakehouse.settings()).drop_folder.rejected.entries()


def _judge(entries: list[Quarantined]) -> dg.AssetCheckResult:
    metadata: dict[str, dg.MetadataValue[Any]] = {"count": dg.MetadataValue.int(len(entries))}
    if entries:
        metadata["recordings"] = dg.MetadataValue.table([_row(entry) for entry in entries[:MAX_LISTED]])
    return dg.AssetCheckResult(passed=not entries, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def _row(entry: Quarantined) -> dg.TableRecord:
    since = datetime.fromtimestamp(entry.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return dg.TableRecord({"recording": entry.name, "since": since, "reason": entry.reason})
