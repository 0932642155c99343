"""Reports commits to tables, whoever made them, and new tables."""

import hashlib
import json
from collections.abc import Collection

import dagster as dg

from lakehouse.catalog.table_overview import TableOverview, table_overviews, table_states
from lakehouse.orchestration.defs.tables.assets import table_key, table_metadata
from lakehouse.orchestration.defs.tables.reload import reload_code_location
from lakehouse.orchestration.resources import LakehouseResource

EVENTS_PER_TICK = 100
"""A thousand events in one tick take half a minute."""

State = tuple[str, str]
"""A short text for the state of a table, and the snapshot that was reported."""


def tables_sensor(shown: Collection[str]) -> dg.SensorDefinition:
    """The sensor of a code location whose graph shows these tables."""

    @dg.sensor(
        name="tables_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Reports every table that has a new snapshot, without a run, with rows, files, bytes and snapshot after "
            "the commit: as a materialization if rows came, as an observation after a compaction or a deletion. When "
            "tables have come into being since the graph was loaded, it has the code location reloaded, so that they "
            "are shown."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, lakehouse: LakehouseResource) -> dg.SensorResult:
        settings = lakehouse.settings()
        reported = _parse(context.cursor)
        with lakehouse.open(actor="dagster sensor") as lake:
            states = table_states(lake)
            known = {
                name: state for name, state in states.items() if _version(state) == reported.get(name, ("", ""))[0]
            }
            changed = table_overviews(lake, changed_since=known)
        events: list[dg.AssetMaterialization | dg.AssetObservation] = []
        for name, table in changed.items():
            if len(events) == EVENTS_PER_TICK:
                break
            before = reported.get(name, ("", ""))[1]
            if table.snapshot_id is not None and str(table.snapshot_id) != before:
                events.append(_event(table, before))
            reported[name] = (_version(states.get(name, "")), str(table.snapshot_id))
        hidden = sorted(set(changed) - set(shown))
        if hidden:
            context.log.info(f"new tables: {', '.join(hidden[:20])}")
            reload = reload_code_location(settings.dagster_url)
            context.log.info(reload.said)
            if reload.failed:
                # Looked at again at the next tick, as if changed, so that the graph gets them without another commit.
                reported |= {name: ("", reported[name][1]) for name in hidden if name in reported}
        cursor = json.dumps({name: state for name, state in sorted(reported.items()) if name in states})
        if not events:
            return dg.SensorResult(skip_reason="no table has a new snapshot", cursor=cursor)
        return dg.SensorResult(asset_events=events, cursor=cursor)

    return sensor


def _event(table: TableOverview, before: str) -> dg.AssetMaterialization | dg.AssetObservation:
    """Freshness is about materializations: what only takes rows away, or moves them, is none."""
    is_fresh = table.has_new_rows(int(before) if before.isdigit() else None)
    kind = dg.AssetMaterialization if is_fresh else dg.AssetObservation
    return kind(table_key(table.identifier), metadata=table_metadata(table))


def _parse(cursor: str | None) -> dict[str, State]:
    try:
        return {str(name): (str(end), str(snapshot)) for name, (end, snapshot) in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _version(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()[:12]
