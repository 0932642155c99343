"""What runs of Dagster have committed, until it is certain that an event tells of it.

A run tells of a commit in the next moment. One that is killed in that moment has committed and never tells.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from lakehouse.catalog.history import FINALIZED, Change
from lakehouse.catalog.locators import SessionLocator

RUN_ACTOR = "dagster run "
PATIENCE_S = 600.0
"""A run that went down with its machine is never marked as ended: after so long, nobody is waited for."""
CLOCKS_DIFFER_S = 600.0
EVENTS_AT_ONCE = 500


def is_of_a_run(change: Change) -> bool:
    return change.actor.startswith(RUN_ACTOR)


def parse_awaited(cursor: str | None) -> list[Change]:
    """The commits that a cursor keeps; none if it cannot be read."""
    try:
        awaited = json.loads(cursor or "{}").get("awaited", [])
        return [Change(int(i), int(at_ns), FINALIZED, str(what), str(who), {}) for i, at_ns, what, who in awaited]
    except (ValueError, TypeError, AttributeError):
        return []


def as_json(awaited: Iterable[Change]) -> list[tuple[Any, ...]]:
    return [(change.id, change.at_ns, change.resource, change.actor) for change in awaited]


def sort_out(
    instance: dg.DagsterInstance, asset: dg.AssetKey, commits: Sequence[Change], now_s: float
) -> tuple[list[Change], list[Change]]:
    """Commits that no run is going to report as a materialization of `asset`, and those that one may still report.

    Args:
        instance: Knows runs and events.
        asset: Has a partition per sequence; its events name their `session`.
        commits: By runs.
        now_s: Unix time in seconds.
    """
    # In this order: whatever a run that has ended has told is there to be found.
    going = _still_going(instance, {_run_of(change) for change in commits})
    reported = _reported(instance, asset, commits)
    silent = [change for change in commits if change.resource not in reported]
    awaited = [change for change in silent if _run_of(change) in going and now_s - change.at_ns / 1e9 < PATIENCE_S]
    return [change for change in silent if change not in awaited], awaited


def _run_of(change: Change) -> str:
    return change.actor.removeprefix(RUN_ACTOR)


def _still_going(instance: dg.DagsterInstance, run_ids: set[str]) -> set[str]:
    """One that the instance does not know, because it is another's or was deleted, is not waited for."""
    if not run_ids:
        return set()
    runs = instance.get_runs(dg.RunsFilter(run_ids=sorted(run_ids)))
    return {run.run_id for run in runs if not run.is_finished}


def _reported(instance: dg.DagsterInstance, asset: dg.AssetKey, commits: Sequence[Change]) -> set[str]:
    """Sessions that events tell of."""
    if not commits:
        return set()
    since_s = min(change.at_ns for change in commits) / 1e9 - CLOCKS_DIFFER_S
    partitions = {SessionLocator.parse(change.resource).sequence for change in commits}
    events = dg.AssetRecordsFilter(asset, asset_partitions=sorted(partitions), after_timestamp=since_s)
    sessions: set[str] = set()
    cursor, has_more = None, True
    while has_more:
        page = instance.fetch_materializations(events, limit=EVENTS_AT_ONCE, cursor=cursor)
        cursor, has_more = page.cursor, page.has_more
        for record in page.records:
            told = record.asset_materialization
            if told is not None and (session := told.metadata.get("session")) is not None:
                sessions.add(str(session.value))
    return sessions
