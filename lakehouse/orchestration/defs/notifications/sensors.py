"""Failed runs are told."""

from itertools import takewhile

import dagster as dg

from lakehouse.orchestration.defs.notifications.notifiers import Notice, page, tell_everybody
from lakehouse.orchestration.resources import LakehouseResource

RUN_AGAIN = "It is run again by itself."


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
        text=_reasons(context) + (f"\n{RUN_AGAIN}" if _is_run_again(context) else ""),
        job=run.job_name,
        run_id=run.run_id,
        url=page(settings, f"runs/{run.run_id}"),
    )
    for problem in tell_everybody(settings, notice):
        context.log.warning(f"could not be told: {problem}")


def _is_run_again(context: dg.RunFailureSensorContext) -> bool:
    """Whether Dagster retries the run, as it does if its process was killed."""
    run = context.instance.get_run_by_id(context.dagster_run.run_id)
    return run is not None and run.tags.get("dagster/will_retry") == "true"


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
        kinds = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.RUN_FAILURE}
        logged = context.instance.all_logs(context.dagster_run.run_id, of_type=kinds)
        # What came after tells of the next attempt.
        noticed = list(takewhile(lambda entry: entry.dagster_event_type is not dg.DagsterEventType.RUN_FAILURE, logged))
        texts = [entry.message for entry in noticed[-1:]] + [context.failure_event.message or ""]
    return "\n".join(filter(None, texts))[:4000] or "no reason is known"
