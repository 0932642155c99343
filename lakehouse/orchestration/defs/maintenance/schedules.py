"""When the lake is taken care of: at night, one job after the other, in UTC unless the instance says otherwise."""

import dagster as dg

from lakehouse.orchestration.defs.maintenance.jobs import audit_log_care, cleanup, compaction, retention


def _at(cron: str, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=job.description,
    )


maintenance_schedules = [
    # What goes anyway is not compacted first, and what compaction leaves behind is marked the same night.
    _at("0 0 * * *", retention),
    _at("30 0 * * *", compaction),
    _at("30 1 * * *", cleanup),
    _at("15 * * * *", audit_log_care),
]
