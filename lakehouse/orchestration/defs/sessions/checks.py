"""Whether recordings wait for their commit, which an operator has to decide about."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.orchestration.check_targets import latest_materialization
from lakehouse.orchestration.defs.sessions.assets import unfinished_sessions
from lakehouse.orchestration.defs.sessions.waiting import WaitingSession, waiting_sessions
from lakehouse.orchestration.resources import LakehouseResource

CHECK = "no_recording_waits"
MAX_LISTED = 200


@dg.asset_check(
    asset=unfinished_sessions.key,
    name=CHECK,
    description=(
        "Fails while recordings are uploaded and not committed, each listed with the reason: refused because it breaks "
        "its contracts (LAKEHOUSE_CONTRACT_POLICY), or left so by a run for more than five minutes. It is looked at "
        "again by itself."
    ),
)
def no_recording_waits(lakehouse: LakehouseResource) -> dg.AssetCheckResult:
    with lakehouse.open(actor="dagster check") as lake:
        waiting = waiting_sessions(lake)
    return dg.AssetCheckResult(passed=not waiting, severity=dg.AssetCheckSeverity.WARN, metadata=_metadata(waiting))


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Evaluates the check `no_recording_waits` whenever what waits for its commit has changed.",
)
def waiting_recordings_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    with lakehouse.open(actor="dagster sensor") as lake:
        waiting = waiting_sessions(lake)
    # A check is shown for the latest event of its asset only.
    about = latest_materialization(context.instance, unfinished_sessions.key)
    cursor = hashlib.sha256(repr((waiting, about and about.storage_id)).encode()).hexdigest()[:16]
    if cursor == context.cursor:
        return dg.SensorResult(skip_reason=f"{len(waiting)} recordings wait for their commit, as before", cursor=cursor)
    evaluation = dg.AssetCheckEvaluation(
        asset_key=unfinished_sessions.key,
        check_name=CHECK,
        passed=not waiting,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_metadata(waiting),
        target_materialization_data=about,
    )
    return dg.SensorResult(asset_events=[evaluation], cursor=cursor)


def _metadata(waiting: list[WaitingSession]) -> dict[str, dg.MetadataValue[Any]]:
    refused = sum(session.is_refused for session in waiting)
    metadata: dict[str, dg.MetadataValue[Any]] = {
        "refused": dg.MetadataValue.int(refused),
        "left": dg.MetadataValue.int(len(waiting) - refused),
    }
    if waiting:
        metadata["recordings"] = dg.MetadataValue.table([_row(session) for session in waiting[:MAX_LISTED]])
    return metadata


def _row(session: WaitingSession) -> dg.TableRecord:
    since = datetime.fromtimestamp(session.since_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return dg.TableRecord({"sequence": session.sequence, "uploaded": since, "reason": session.reason})
