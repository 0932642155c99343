"""Sessions finalized through the gateway appear as materializations, without a run; deleted sequences go."""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Self

import dagster as dg

from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.history import FINALIZED, Change, changes_after
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator
from lakehouse.orchestration.defs.ingestion.assets import sequences
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata, utc
from lakehouse.orchestration.defs.sessions.jobs import recover_sessions
from lakehouse.orchestration.defs.sessions.retries import Unfinished
from lakehouse.orchestration.defs.tables.assets import table_key
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.resources import LakehouseResource

CHANGES_PER_TICK = 200
"""A thousand events in one tick take half a minute."""
OVERLAP_S = 60.0
RUN_ACTOR = "dagster run"


@dataclass(frozen=True, slots=True)
class Position:
    """How far the history was read: the largest id, and the ids of the last minute."""

    last_id: int = 0
    recent: dict[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """The position from a cursor; the beginning if it cannot be read."""
        try:
            data = json.loads(cursor or "{}")
            return cls(int(data["last_id"]), {int(number): int(at_ns) for number, at_ns in data["recent"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps({"last_id": self.last_id, "recent": self.recent})

    def after(self, changes: list[Change]) -> Self:
        recent = self.recent | {change.id: change.at_ns for change in changes}
        # Twice the overlap: clocks of several machines differ a little.
        oldest_ns = max(recent.values(), default=0) - int(2 * OVERLAP_S * 1e9)
        kept = {number: at_ns for number, at_ns in recent.items() if at_ns >= oldest_ns}
        return type(self)(max([self.last_id, *(change.id for change in changes)]), kept)


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Reports sessions that clients finalized through the gateway as materializations of `sequences`, with topics, "
        "rows, time span and who did it; no run is needed. Sequences that were deleted lose their partition."
    ),
)
def finalized_sessions_sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
    position = Position.parse(context.cursor)
    with lakehouse.open(actor="dagster sensor") as lake:
        changes = changes_after(
            lake.database, position.last_id, overlap_s=OVERLAP_S, seen=position.recent, limit=CHANGES_PER_TICK
        )
        finalized = [change for change in changes if change.operation == FINALIZED]
        # What a run of ours has done, it has reported.
        others = [change for change in finalized if not change.actor.startswith(RUN_ACTOR)]
        events = [event for change in others if (event := _event(lake, change)) is not None]
        gone = [change.resource for change in changes if change.operation != FINALIZED and _is_gone(lake, change)]
    cursor = str(position.after(changes))
    names = list(dict.fromkeys(event.partition for event in events if event.partition))
    known = [name for name in dict.fromkeys(gone) if context.instance.has_dynamic_partition("sequences", name)]
    requests: list[Any] = [
        *([sequence_partitions.build_add_request(names)] if names else []),
        *([sequence_partitions.build_delete_request(known)] if known else []),
    ]
    if not events and not requests:
        return dg.SensorResult(skip_reason="no session was finalized through the gateway", cursor=cursor)
    return dg.SensorResult(asset_events=events, dynamic_partitions_requests=requests, cursor=cursor)


def _event(lake: Lakehouse, change: Change) -> dg.AssetMaterialization | None:
    """None if the sequence is gone by now."""
    locator = SessionLocator.parse(change.resource)
    try:
        description = lake.sequences.describe(locator.sequence)
    except NotFoundError:
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
    if before.is_due(ending, staying, now_s):
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=str(before.after_run(ending, staying, now_s)))
    known = f"{len(ending)} interrupted sessions, tried again after a pause; {len(staying)} stale ones, reported before"
    return dg.SensorResult(
        skip_reason=known if ending or staying else "no session is interrupted or stale",
        cursor=str(before.after_look(ending, staying)),
    )
