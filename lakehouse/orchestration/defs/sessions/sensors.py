"""Sessions finalized through the gateway appear as materializations, without a run; deleted sequences go."""

import json
import time
from typing import Any

import dagster as dg

from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.history import FINALIZED, Change
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator
from lakehouse.orchestration.defs.ingestion.assets import sequences
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata, utc
from lakehouse.orchestration.defs.sessions.commits_of_runs import as_json, is_of_a_run, parse_awaited, sort_out
from lakehouse.orchestration.defs.sessions.jobs import recover_config, recover_sessions
from lakehouse.orchestration.defs.sessions.retries import Unfinished
from lakehouse.orchestration.defs.tables.assets import table_key
from lakehouse.orchestration.history_position import next_changes
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.resources import LakehouseResource

CHANGES_PER_TICK = 200
"""A thousand events in one tick take half a minute."""


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Reports sessions that clients finalized through the gateway as materializations of `sequences`, with topics, "
        "rows, time span and who did it; no run is needed. So are sessions committed by a run that was killed before "
        "it could tell. Sequences that were deleted lose their partition."
    ),
)
def finalized_sessions_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    with lakehouse.open(actor="dagster sensor") as lake:
        changes, position = next_changes(lake, context.cursor, CHANGES_PER_TICK)
        finalized = [change for change in changes if change.operation == FINALIZED]
        by_runs = [*parse_awaited(context.cursor), *filter(is_of_a_run, finalized)]
        untold, awaited = sort_out(context.instance, sequences.key, by_runs, time.time())
        to_tell = [*untold, *(change for change in finalized if not is_of_a_run(change))]
        to_tell.sort(key=lambda change: change.id)
        events = [event for change in to_tell if (event := _event(lake, change)) is not None]
        gone = [change.resource for change in changes if change.operation != FINALIZED and _is_gone(lake, change)]
    cursor = json.dumps(position.as_json() | {"awaited": as_json(awaited)})
    names = list(dict.fromkeys(event.partition for event in events if event.partition))
    known = [name for name in dict.fromkeys(gone) if context.instance.has_dynamic_partition("sequences", name)]
    requests: list[Any] = [
        *([sequence_partitions.build_add_request(names)] if names else []),
        *([sequence_partitions.build_delete_request(known)] if known else []),
    ]
    if not events and not requests:
        return dg.SensorResult(skip_reason="no session was finalized that has not been reported", cursor=cursor)
    return dg.SensorResult(asset_events=events, dynamic_partitions_requests=requests, cursor=cursor)


def _event(lake: Lakehouse, change: Change) -> dg.AssetMaterialization | None:
    """None if the session is gone by now, with its sequence or without."""
    locator = SessionLocator.parse(change.resource)
    try:
        description = lake.sequences.describe(locator.sequence)
    except NotFoundError:
        return None
    if all(session.locator != locator for session in description.sessions):
        return None
    topics = [topic for topic in description.topics if topic.session_locator == locator]
    intervals = [topic.interval for topic in topics if topic.interval is not None]
    metadata: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(sum(topic.row_count for topic in topics)),
        "session": dg.MetadataValue.text(change.resource),
        "finalized by": dg.MetadataValue.text(change.actor),
        "finalized at": dg.MetadataValue.timestamp(change.at_ns / 1e9),
        "bytes": dg.MetadataValue.int(sum(topic.total_bytes for topic in topics)),
    }
    if intervals:
        metadata["recorded_from"] = dg.MetadataValue.text(utc(min(interval.start_ns for interval in intervals)))
        metadata["recorded_to"] = dg.MetadataValue.text(utc(max(interval.end_ns for interval in intervals)))
    metadata["topics"] = dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "topic": topic.locator.path,
                    "type": topic.ontology_tag,
                    "rows": topic.row_count,
                    "bytes": topic.total_bytes,
                    "table": table_key(topic.table_identifier).to_user_string() if topic.table_identifier else "",
                }
            )
            for topic in topics
        ]
    )
    return dg.AssetMaterialization(sequences.key, partition=locator.sequence, metadata=metadata)


def _is_gone(lake: Lakehouse, change: Change) -> bool:
    try:
        lake.sequences.get(change.resource)
    except NotFoundError:
        return True
    return False


@dg.sensor(
    job=recover_sessions,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Looks for sessions that somebody began to finalize and did not end, and for open ones in which nothing has "
        "happened for LAKEHOUSE_STALE_SESSION_AGE seconds; launches the job `recover_sessions` when there are any. One "
        "that cannot be finished is tried again after a minute, then two, four, up to an hour."
    ),
)
def unfinished_sessions_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    settings = lakehouse.settings()
    with lakehouse.open(actor="dagster sensor") as lake:
        interrupted = lake.recovery.interrupted()
        stale = lake.recovery.stale(settings.stale_session_age)
    # Stale sessions that are only reported need one run, not one a minute. An interrupted one that is still there after
    # a pause, now older than a commit takes, is worth another; if it can never be finished, not one a minute for ever.
    ending, staying = ([str(session.locator) for session in some] for some in (interrupted, stale))
    before, now_s = Unfinished.parse(context.cursor), time.time()
    due = before.due(ending, now_s)
    if due or not before.stale.issuperset(staying):
        request = dg.RunRequest(run_config=recover_config(due), tags={"lakehouse/interrupted": str(len(due))})
        cursor = str(before.after_run(ending, due, staying, now_s))
        return dg.SensorResult(run_requests=[request], cursor=cursor)
    known = f"{len(ending)} interrupted sessions, tried again after a pause; {len(staying)} stale ones, reported before"
    return dg.SensorResult(
        skip_reason=known if ending or staying else "no session is interrupted or stale",
        cursor=str(before.after_look(ending, staying)),
    )
