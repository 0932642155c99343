"""The maintenance jobs, run as Dagster runs them: counts in the metadata, dry runs, stepping back for others."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.catalog.audit import latest_entries
from lakehouse.catalog.maintenance.audit_trail import AUDIT_LEASE
from lakehouse.catalog.maintenance.cleanup import CLEANUP_LEASE
from lakehouse.catalog.maintenance.compaction import COMPACTION_LEASE
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.retention import RETENTION_LEASE
from lakehouse.orchestration.definitions import defs
from tests.catalog.scattered_lake import ScatteredLake, in_order
from tests.orchestration.dagster_driver import metadata_of

OPS = {
    "cleanup": "clean_up",
    "compaction": "compact",
    "retention": "retain",
    "audit_log_care": "care_for_audit_log",
}
LEASES = {
    "cleanup": CLEANUP_LEASE,
    "compaction": COMPACTION_LEASE,
    "retention": RETENTION_LEASE,
    "audit_log_care": AUDIT_LEASE,
}


def run(instance: dg.DagsterInstance, job: str, dry_run: bool = False) -> tuple[dg.ExecuteInProcessResult, Any]:
    """Run a job; returns the result and the metadata of its op."""
    result = defs.resolve_job_def(job).execute_in_process(
        run_config={"ops": {OPS[job]: {"config": {"dry_run": dry_run}}}}, instance=instance, raise_on_error=False
    )
    outputs = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    return result, {name: value.value for each in outputs for name, value in each.items()}


@pytest.fixture
def scattered(embedded_home: Path) -> Path:
    """A lake with small files in two sequences."""
    with ScatteredLake(embedded_home) as lake:
        lake.store("drive", in_order())
        lake.store("other", in_order(count=12))
    return embedded_home


def changes(table: Any) -> dict[str, tuple[int, int]]:
    return {row.data["what"]: (row.data["before"], row.data["after"]) for row in table.records}


def test_compaction_shows_counts_before_and_after(scattered: Path, instance: dg.DagsterInstance) -> None:
    _, foreseen = run(instance, "compaction", dry_run=True)
    assert foreseen["dry_run"]
    before, after = changes(foreseen["counts"])["data files"]
    assert after == 2
    assert not instance.fetch_materializations(dg.AssetKey(["maintenance", "compaction"]), limit=1).records
    result, done = run(instance, "compaction")
    assert result.success
    assert changes(done["counts"])["data files"] == (before, 2)
    assert done["files_replaced"] == foreseen["files_replaced"] == before
    assert [row.data["table"] for row in done["details"].records] == ["scattered.front"]
    shown = metadata_of(instance, dg.AssetKey(["maintenance", "compaction"]))
    assert shown["files_written"] == 2
    with ScatteredLake(scattered) as lake, lake.lakehouse.database.snapshot() as connection:
        (entry,) = latest_entries(connection, limit=1, operations=["compaction"])
    assert (entry.actor, entry.door) == (f"dagster run {result.run_id}", "dagster")


def test_retention_deletes_and_a_refused_policy_fails_the_run(scattered: Path, instance: dg.DagsterInstance) -> None:
    _, metadata = run(instance, "retention")
    assert metadata["skipped"].startswith("there is no retention policy")
    (scattered / "retention.yaml").write_text("policies:\n  - {name: others, sequences: 'o*', max_bytes: 0 B}\n")
    result, metadata = run(instance, "retention")
    assert result.success
    assert changes(metadata["counts"])["sequences"] == (2, 1)
    assert metadata["deleted"] == 1
    with ScatteredLake(scattered) as lake:
        table = lake.stock_table("scattered.front")
        table.manage_snapshots().create_tag(table.metadata.current_snapshot_id or 0, "v1").commit()
    (scattered / "retention.yaml").write_text("policies:\n  - {name: all, max_bytes: 0 B}\n")
    result, _ = run(instance, "retention")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "'drive' is pinned by tag 'v1'" in str(failure.step_failure_data)


def test_cleanup_and_the_audit_log(scattered: Path, instance: dg.DagsterInstance) -> None:
    result, metadata = run(instance, "cleanup")
    assert result.success
    before, after = changes(metadata["counts"])["data files"]
    assert before == after > 12
    result, metadata = run(instance, "audit_log_care")
    assert result.success
    assert metadata["published"] == changes(metadata["counts"])["unpublished"][0] == 2


@pytest.mark.parametrize("job", OPS)
def test_a_job_that_another_process_is_at_is_skipped_with_the_reason(
    embedded_home: Path, instance: dg.DagsterInstance, job: str
) -> None:
    with ScatteredLake(embedded_home) as lake:
        assert Lease(lake.lakehouse.database, LEASES[job]).hold()
        result, metadata = run(instance, job)
    assert result.success
    assert metadata["skipped"].startswith("another process is")


def test_every_job_has_a_schedule_that_runs(instance: dg.DagsterInstance) -> None:
    schedules = {each.job_name: each for each in defs.schedules or [] if isinstance(each, dg.ScheduleDefinition)}
    for job in OPS:
        assert schedules[job].default_status is dg.DefaultScheduleStatus.RUNNING
