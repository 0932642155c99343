"""What the maintenance jobs report to: one entry each in the catalog, so that counts can be followed over time."""

from collections.abc import Sequence

import dagster as dg

from lakehouse.orchestration.defs.ingestion.assets import OWNER, sequences, uploaded_sessions
from lakehouse.orchestration.defs.sessions.assets import unfinished_sessions

MAINTENANCE = "maintenance"


def _spec(name: str, after: Sequence[dg.AssetSpec], description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        [MAINTENANCE, name],
        deps=after,
        group_name=MAINTENANCE,
        kinds={"iceberg"},
        owners=[OWNER],
        description=f"{description} Each run reports counts before and after; dry runs report nothing here.",
    )


compaction_report = _spec(
    "compaction", [sequences], "Small data files of one topic and day that became few. Rows stay what they are."
)
retention_report = _spec(
    "retention", [sequences], "What retention policies deleted, the oldest first, and what they had to keep."
)
# What nobody refers to any more is left by uploads that broke off, by files made fewer, and by deletions.
cleanup_report = _spec(
    "cleanup",
    [uploaded_sessions, sequences, compaction_report, retention_report],
    "Expired snapshots, merged manifests, and purged files that nothing referred to any more.",
)
audit_report = _spec(
    "audit_log",
    [sequences, unfinished_sessions, compaction_report, retention_report, cleanup_report],
    "Audit entries published for SQL as mosaico.audit_log, and old ones removed.",
)

maintenance_reports = [cleanup_report, compaction_report, retention_report, audit_report]
