"""Every session is validated soon after it is finalized, through whatever door; and what fails stays in sight."""

import hashlib
import json

import dagster as dg

from lakehouse.catalog.failing_rules import count_failing
from lakehouse.catalog.history import FINALIZED
from lakehouse.orchestration.check_targets import latest_materialization
from lakehouse.orchestration.defs.contracts.assets import SEQUENCES_PER_RUN, contract_reports
from lakehouse.orchestration.defs.contracts.covered import covered_by_runs
from lakehouse.orchestration.defs.contracts.failing import failing_check
from lakehouse.orchestration.defs.contracts.jobs import validate_config, validate_recordings
from lakehouse.orchestration.history_position import next_changes
from lakehouse.orchestration.resources import LakehouseResource

CHANGES_PER_TICK = 500
# What the cursor holds besides the position in the history.
AWAITED = "awaited"


@dg.sensor(
    job=validate_recordings,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Validates the sessions that were finalized since the last look, whoever did it, many in one run: loading "
        "Great Expectations takes longer than judging a recording. Those that somebody has judged since are left out; "
        "those that a run was launched for are kept in mind until it has succeeded, or validated if it does not."
    ),
)
def validation_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    with lakehouse.open(actor="dagster sensor") as lake:
        changes, position = next_changes(lake, context.cursor, CHANGES_PER_TICK)
    finalized = _awaited(context.cursor)
    finalized |= {change.resource: change.at_ns for change in changes if change.operation == FINALIZED}
    covered = covered_by_runs(context.instance, finalized)
    awaited = {session: at_ns for session, at_ns in finalized.items() if session in covered.awaited}
    cursor = json.dumps(position.as_json() | {AWAITED: awaited})
    sessions = [session for session in finalized if session not in covered.judged | covered.awaited]
    if not sessions:
        reason = (
            f"runs that were launched for the sessions finalized lately have judged {len(covered.judged)} of them and "
            f"are to judge {len(awaited)}"
            if finalized
            else "no session was finalized since the last look"
        )
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    requests = [
        _request(sessions[start : start + SEQUENCES_PER_RUN]) for start in range(0, len(sessions), SEQUENCES_PER_RUN)
    ]
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def _awaited(cursor: str | None) -> dict[str, int]:
    """The sessions that runs were to judge which had not ended at the last look, and when they were finalized."""
    try:
        return {str(session): int(at_ns) for session, at_ns in json.loads(cursor or "{}").get(AWAITED, {}).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _request(sessions: list[str]) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=hashlib.sha256(" ".join(sessions).encode()).hexdigest(),
        run_config=validate_config(sessions=sessions),
        tags={"lakehouse/sessions": str(len(sessions))},
    )


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Evaluates the check `no_sequence_fails` whenever what fails has changed: something was judged, released, "
        "discarded or deleted, through whatever door. No run is needed."
    ),
)
def failing_sequences_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    about = latest_materialization(context.instance, contract_reports.key)
    with lakehouse.open(actor="dagster sensor") as lake:
        counts = count_failing(lake.database)
        cursor = json.dumps([counts.rules, counts.accepted, counts.latest, about and about.storage_id])
        if cursor == context.cursor:
            return dg.SensorResult(skip_reason=f"{counts.sequences} sequences fail, as before", cursor=cursor)
        evaluation = failing_check(lake, context.instance, contract_reports.key, counts)
    return dg.SensorResult(asset_events=[evaluation], cursor=cursor)
