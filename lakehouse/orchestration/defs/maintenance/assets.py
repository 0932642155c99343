"""What the maintenance jobs report to: one entry each in the catalog, so that counts can be followed over time."""

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import OWNER

MAINTENANCE = "maintenance"


def _spec(name: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        [MAINTENANCE, name],
        group_name=MAINTENANCE,
        kinds={"iceberg"},
        owners=[OWNER],
        description=f"{description} Each run reports counts before and after; dry runs report nothing here.",
    )


cleanup_report = _spec(
    "cleanup", "Expired snapshots, merged manifests, and purged files that nothing referred to any more."
)
compaction_report = _spec(
    "compaction", "Small data files of one topic and day that became few. Rows stay what they are."
)
retention_report = _spec("retention", "What retention policies deleted, the oldest first, and what they had to keep.")
audit_report = _spec("audit_log", "Audit entries published for SQL as mosaico.audit_log, and old ones removed.")

maintenance_reports = [cleanup_report, compaction_report, retention_report, audit_report]
