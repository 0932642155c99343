"""Failed runs are told."""

import dagster as dg

from lakehouse.orchestration.defs.notifications.notifiers import Notice, notifiers
from lakehouse.orchestration.resources import LakehouseResource


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells every failed run, of whatever job: to the log, and to LAKEHOUSE_NOTIFY_WEBHOOK if it is set.",
)
def run_failure_notifications(context: dg.RunFailureSensorContext, lakehouse: LakehouseResource) -> None:
    settings = lakehouse.settings()
    run = context.dagster_run
    notice = Notice(
        title=f"Dagster run of {run.job_name} failed",
        text=_reasons(context),
        job=run.job_name,
        run_id=run.run_id,
        url=f"{settings.dagster_url.rstrip('/')}/runs/{run.run_id}" if settings.dagster_url else "",
    )
    for notifier in notifiers(settings):
        problem = notifier.tell(notice)
        if problem is not None:
            context.log.warning(f"could not be told: {problem}")


def _reasons(context: dg.RunFailureSensorContext) -> str:
    """What the steps say; if none failed, what Dagster noticed last, such as the end of the run's process."""
    texts = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        failure = data.user_failure_data
        error = data.error
        text = failure.description if failure and failure.description else (error.message.strip() if error else "")
        texts.append(f"{event.step_key}: {text}")
    if not texts:
        run_id = context.dagster_run.run_id
        noticed = context.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        texts = [entry.message for entry in noticed[-1:]] + [context.failure_event.message or ""]
    return "\n".join(filter(None, texts))[:4000] or "no reason is known"
