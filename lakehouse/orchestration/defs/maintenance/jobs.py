"""Jobs that take care of the lake. Each can be run dry, and steps back while another process is at the same."""

from collections.abc import Callable
from typing import Any, TypeVar

import dagster as dg

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.audit_trail import AuditReport, run_audit_care
from lakehouse.catalog.maintenance.cleanup import CleanupReport, run_cleanup_cycle
from lakehouse.catalog.maintenance.compaction import CompactionReport, run_compaction
from lakehouse.catalog.maintenance.retention import PolicyOutcome, RetentionReport, run_retention
from lakehouse.orchestration.defs.maintenance.assets import (
    audit_report,
    cleanup_report,
    compaction_report,
    retention_report,
)
from lakehouse.orchestration.defs.maintenance.metadata import Metadata, counts, figures, table
from lakehouse.orchestration.resources import LakehouseResource

# Rows of a table in the UI; the audit log has all of them.
MOST_ROWS = 200
Report = TypeVar("Report")


class MaintenanceConfig(dg.Config):
    """How a maintenance job runs."""

    dry_run: bool = False
    """Report what would be done, and do nothing."""


@dg.op(description="Expire snapshots, merge manifests, mark and purge files that nothing refers to.")
def clean_up(context: dg.OpExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource) -> None:
    def work(lake: Lakehouse) -> CleanupReport | None:
        return run_cleanup_cycle(lake.database, lake.table_files, lake.committer, lake.settings, config.dry_run)

    if (report := _alone(context, lakehouse, work, "cleaning up")) is None:
        return
    found = {"counts": counts(report.before, report.after), **figures(report), **figures(report.upkeep)}
    _report(context, cleanup_report, config, {**found, **figures(report.orphans)})


@dg.op(description="Rewrite the small data files of each topic and day as few.")
def compact(context: dg.OpExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource) -> None:
    def progress(identifier: str, done: int, total: int) -> None:
        context.log.info(f"{identifier}: {done:,} of {total:,} bytes rewritten")

    def work(lake: Lakehouse) -> CompactionReport | None:
        return run_compaction(lake.database, lake.table_files, lake.committer, lake.settings, config.dry_run, progress)

    if (report := _alone(context, lakehouse, work, "compacting")) is None:
        return
    for name, reason in report.left_alone.items():
        context.log.warning(f"{name} is left alone: {reason}")
    rows = [
        {
            "table": identifier,
            "files before": work.files_replaced,
            "files after": work.files_written,
            "bytes before": work.bytes_replaced,
            "bytes after": work.bytes_written,
            "rows": work.rows,
        }
        for identifier, work in list(report.work.items())[:MOST_ROWS]
    ]
    found = {"counts": counts(report.before, report.after), **figures(report.total), **table(rows)}
    _report(context, compaction_report, config, found)


@dg.op(description="Delete what the retention policies say is too old or too much, the oldest first.")
def retain(context: dg.OpExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource) -> None:
    def work(lake: Lakehouse) -> RetentionReport | None:
        return run_retention(lake.database, lake.table_files, lake.deletion, lake.settings, config.dry_run)

    if (report := _alone(context, lakehouse, work, "carrying out the retention policies")) is None:
        return
    if not report.policies:
        _skip(context, "there is no retention policy; see LAKEHOUSE_RETENTION_FILE")
        return
    rows = [row for outcome in report.policies for row in _rows_of(outcome)]
    deleted = sum(len(outcome.deleted) for outcome in report.policies)
    found = {
        "counts": counts(report.before, report.after),
        "deleted": dg.MetadataValue.int(deleted),
        "deleted_bytes": dg.MetadataValue.int(sum(outcome.deleted_bytes for outcome in report.policies)),
        **table(rows[:MOST_ROWS]),
    }
    _report(context, retention_report, config, found)
    if not report.is_clean:
        refusals = [f"{each.policy}: {each.refused}" for each in report.policies if each.refused]
        failures = [f"{name}: {reason}" for each in report.policies for name, reason in each.failed.items()]
        # The next run would end the same: somebody has to decide.
        raise dg.Failure("\n".join(["not everything could be carried out", *refusals, *failures]), allow_retries=False)


def _rows_of(outcome: PolicyOutcome) -> list[dict[str, Any]]:
    rows = [
        {"policy": outcome.policy, "name": name, "outcome": "deleted", "because": reason, "bytes": size}
        for name, reason, size in outcome.deleted
    ]
    why = "an open session needs it, or a tag pins it"
    return rows + [
        {"policy": outcome.policy, "name": name, "outcome": "kept", "because": why, "bytes": None}
        for name in outcome.kept
    ]


@dg.op(description="Publish new audit entries as mosaico.audit_log, and remove published ones past their retention.")
def care_for_audit_log(context: dg.OpExecutionContext, config: MaintenanceConfig, lakehouse: LakehouseResource) -> None:
    def work(lake: Lakehouse) -> AuditReport | None:
        return run_audit_care(lake.database, lake.table_files, lake.committer, lake.settings, config.dry_run)

    if (report := _alone(context, lakehouse, work, "publishing the audit log")) is None:
        return
    _report(context, audit_report, config, {"counts": counts(report.before, report.after), **figures(report)})


def _job(name: str, op: dg.OpDefinition, description: str) -> dg.JobDefinition:
    @dg.job(name=name, description=description)
    def of_one_op() -> None:
        op()

    return of_one_op


cleanup = _job("cleanup", clean_up, "Keep metadata small and storage clean; nothing in use is touched.")
compaction = _job(
    "compaction", compact, "Make many small data files few. Rows, their order and all answers stay the same."
)
retention = _job(
    "retention",
    retain,
    "Carry out the retention policies. What is pinned by a tag, or needed by an open session, stays.",
)
audit_log_care = _job(
    "audit_log_care", care_for_audit_log, "Publish the audit log for SQL, and keep the one in the control plane short."
)
maintenance_jobs = [cleanup, compaction, retention, audit_log_care]


def _alone(
    context: dg.OpExecutionContext, lakehouse: LakehouseResource, work: Callable[[Lakehouse], Report | None], busy: str
) -> Report | None:
    """What came of the work; None, and the run says so, if another process is at the same."""
    with lakehouse.open(actor=f"dagster run {context.run_id}") as lake:
        report = work(lake)
    if report is None:
        _skip(context, f"another process is {busy}")
    return report


def _skip(context: dg.OpExecutionContext, reason: str) -> None:
    context.log.info(f"skipped: {reason}")
    context.add_output_metadata({"skipped": dg.MetadataValue.text(reason)})


def _report(context: dg.OpExecutionContext, asset: dg.AssetSpec, config: MaintenanceConfig, metadata: Metadata) -> None:
    context.add_output_metadata({"dry_run": dg.MetadataValue.bool(config.dry_run), **metadata})
    if not config.dry_run:
        context.log_event(dg.AssetMaterialization(asset.key, metadata=metadata))
