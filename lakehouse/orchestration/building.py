"""Puts the definitions of all domains together."""

from collections.abc import Sequence

import dagster as dg

from lakehouse.catalog.settings import Settings
from lakehouse.catalog.table_overview import TableOverview
from lakehouse.orchestration.defs.contracts.assets import validation
from lakehouse.orchestration.defs.contracts.jobs import validate_recordings
from lakehouse.orchestration.defs.contracts.schedules import nightly_validation
from lakehouse.orchestration.defs.contracts.sensors import failing_sequences_sensor, validation_sensor
from lakehouse.orchestration.defs.ingestion.assets import ingestion, quarantined_recordings, recordings, sequences
from lakehouse.orchestration.defs.ingestion.checks import quarantine_is_empty, quarantine_sensor
from lakehouse.orchestration.defs.ingestion.jobs import ingest_files, ingest_recordings
from lakehouse.orchestration.defs.ingestion.sensors import drop_folder_sensor, object_store_sensor
from lakehouse.orchestration.defs.maintenance.assets import maintenance_reports
from lakehouse.orchestration.defs.maintenance.jobs import maintenance_jobs
from lakehouse.orchestration.defs.maintenance.schedules import maintenance_schedules
from lakehouse.orchestration.defs.notifications.sensors import run_failure_notifications
from lakehouse.orchestration.defs.quarantine.assets import quarantined_sessions
from lakehouse.orchestration.defs.quarantine.checks import no_session_in_quarantine, quarantined_sessions_sensor
from lakehouse.orchestration.defs.quarantine.jobs import discard_sessions, release_sessions
from lakehouse.orchestration.defs.sessions.assets import unfinished_sessions
from lakehouse.orchestration.defs.sessions.checks import no_recording_waits, waiting_recordings_sensor
from lakehouse.orchestration.defs.sessions.jobs import recover_sessions
from lakehouse.orchestration.defs.sessions.sensors import finalized_sessions_sensor, unfinished_sessions_sensor
from lakehouse.orchestration.defs.tables.assets import freshness_policy, judged_after_tables, table_assets
from lakehouse.orchestration.defs.tables.sensors import tables_sensor
from lakehouse.orchestration.resources import LakehouseResource


def build_definitions(settings: Settings, tables: Sequence[TableOverview]) -> dg.Definitions:
    """The definitions of a code location that shows these tables."""
    return dg.Definitions(
        assets=[
            recordings,
            quarantined_recordings,
            _with_freshness(ingestion, settings),
            unfinished_sessions,
            quarantined_sessions,
            judged_after_tables(validation, tables),
            *maintenance_reports,
            *table_assets(tables, settings),
        ],
        asset_checks=[quarantine_is_empty, no_recording_waits, no_session_in_quarantine],
        jobs=[
            ingest_recordings,
            ingest_files,
            recover_sessions,
            release_sessions,
            discard_sessions,
            validate_recordings,
            *maintenance_jobs,
        ],
        schedules=[nightly_validation, *maintenance_schedules],
        sensors=[
            drop_folder_sensor,
            object_store_sensor,
            quarantine_sensor,
            quarantined_sessions_sensor,
            finalized_sessions_sensor,
            tables_sensor({table.identifier for table in tables}),
            unfinished_sessions_sensor,
            waiting_recordings_sensor,
            validation_sensor,
            failing_sequences_sensor,
            run_failure_notifications,
        ],
        resources={"lakehouse": LakehouseResource()},
        executor=dg.in_process_executor,
    )


def _with_freshness(assets: dg.AssetsDefinition, settings: Settings) -> dg.AssetsDefinition:
    """A fleet that sends nothing is worth a look too."""
    policy = freshness_policy(settings)
    return assets.map_asset_specs(
        lambda spec: spec.replace_attributes(freshness_policy=policy) if spec.key == sequences.key else spec
    )
