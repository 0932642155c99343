"""When everything is validated again."""

import dagster as dg

from lakehouse.orchestration.defs.contracts.jobs import validate_config, validate_recordings


@dg.schedule(
    job=validate_recordings,
    cron_schedule="30 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night, all sequences: contracts change, and so does what is known about old recordings.",
)
def nightly_validation(_context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest(run_config=validate_config(sequences="*"))
