"""Whether a session is in quarantine, which an operator has to decide about."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg

from lakehouse.catalog.records import SessionRecord
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.check_targets import latest_materialization
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata, utc
from lakehouse.orchestration.defs.notifications.notifiers import Notice, page, tell_everybody
from lakehouse.orchestration.defs.quarantine.assets import quarantined_sessions
from lakehouse.orchestration.resources import LakehouseResource

CHECK = "no_session_in_quarantine"
MAX_LISTED = 200
MAX_TOLD = 10


@dg.asset_check(
    asset=quarantined_sessions.key,
    name=CHECK,
    description="Fails while sessions are in quarantine, each listed with the reason. Looked at again by itself.",
)
def no_session_in_quarantine(lakehouse: LakehouseResource) -> dg.AssetCheckResult:
    with lakehouse.open(actor="dagster check") as lake:
        found = lake.quarantine.sessions()
    return dg.AssetCheckResult(passed=not found, severity=dg.AssetCheckSeverity.ERROR, metadata=_listing(found))


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Reports sessions that were put in quarantine, through whatever door, as events of `quarantined_sessions`, "
        "tells them where failed runs are told, and evaluates the check whenever something has changed. No run is "
        "needed."
    ),
)
def quarantined_sessions_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    with lakehouse.open(actor="dagster sensor") as lake:
        found = lake.quarantine.sessions()
    # The time too: a session that is judged again may be there for another reason.
    now = [f"{session.locator} {session.quarantined_at_ns}" for session in found]
    # A check is shown for the latest event of its asset only: what this tick reports, the next one evaluates again.
    about = latest_materialization(context.instance, quarantined_sessions.key)
    cursor = json.dumps({"sessions": now, "about": about and about.storage_id})
    if cursor == context.cursor:
        return dg.SensorResult(skip_reason=f"{len(found)} sessions in quarantine, as before", cursor=cursor)
    known = _known(context.cursor)
    new = [session for session, name in zip(found, now, strict=True) if name not in known]
    if new:
        settings = lakehouse.settings()
        for problem in tell_everybody(settings, _notice(new, settings)):
            context.log.warning(f"could not be told: {problem}")
    events: list[Any] = [_event(session) for session in new]
    events.append(
        dg.AssetCheckEvaluation(
            asset_key=quarantined_sessions.key,
            check_name=CHECK,
            passed=not found,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata=_listing(found),
            target_materialization_data=about,
        )
    )
    return dg.SensorResult(asset_events=events, cursor=cursor)


def _known(cursor: str | None) -> set[str]:
    """What was reported before; nothing if the cursor cannot be read."""
    try:
        return {str(name) for name in json.loads(cursor or "{}")["sessions"]}
    except (ValueError, KeyError, TypeError):
        return set()


def _notice(new: Sequence[SessionRecord], settings: Settings) -> Notice:
    """One for all of a look: a contract that is wrong keeps many back at once."""
    lines = [f"{session.locator}: {session.quarantine_reason}" for session in new[:MAX_TOLD]]
    if len(new) > MAX_TOLD:
        lines.append(f"and {len(new) - MAX_TOLD} more")
    return Notice(
        title=f"{len(new)} sessions were put in quarantine" if len(new) > 1 else "A session was put in quarantine",
        text="\n".join(lines),
        job="",
        run_id="",
        url=page(settings, f"assets/{quarantined_sessions.key.to_user_string()}?view=checks"),
    )


def _event(session: SessionRecord) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        quarantined_sessions.key,
        description=f"{session.locator}: {session.quarantine_reason}",
        metadata={
            "session": str(session.locator),
            "reason": session.quarantine_reason or "",
            "verdicts": dg.MetadataValue.md(
                "```sql\nSELECT topic, rule, observed, first_failing_ns FROM mosaico.validation_results\n"
                f"WHERE session = '{session.locator}' AND verdict = 'failed'\n```"
            ),
        },
    )


def _listing(found: Sequence[SessionRecord]) -> Metadata:
    metadata: Metadata = {"count": dg.MetadataValue.int(len(found))}
    if found:
        metadata["sessions"] = dg.MetadataValue.table([_row(session) for session in found[:MAX_LISTED]])
    return metadata


def _row(session: SessionRecord) -> dg.TableRecord:
    since = utc(session.quarantined_at_ns or session.created_at_ns)
    return dg.TableRecord({"session": str(session.locator), "since": since, "reason": session.quarantine_reason or ""})
