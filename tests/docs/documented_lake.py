"""The lake that the docs talk about: the demo recording, with verdicts and an audit log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse.catalog import audit
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.audit_trail import run_audit_care
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.results import VALIDATION_RESULTS
from lakehouse.orchestration.recordings.ingest import ingest_recording

RECORDING = Path(__file__).parents[2] / "demo" / "recordings" / "city_drive.mcap"
SWERVE_NS = (1_773_480_449_000_000_000, 1_773_480_450_600_000_000)


def verdict(rule: str, verdict: str, checked_at_ns: int) -> dict[str, Any]:
    """A row of the verdicts, about the swerve."""
    texts = ("contract", "contract_version", "rule_type", "kind", "dimension", "severity", "expected", "observed")
    return {
        **dict.fromkeys(texts, "x"),
        **dict.fromkeys(("rows_checked", "rows_failed", "range_count"), 1),
        **dict.fromkeys(("time_ranges", "samples"), "[]"),
        "run_id": str(checked_at_ns),
        "checked_at_ns": checked_at_ns,
        "sequence": "city_drive",
        "topic": "city_drive/imu/front",
        "rule": rule,
        "verdict": verdict,
        "first_failing_ns": SWERVE_NS[0],
        "last_failing_ns": SWERVE_NS[1],
    }


@contextmanager
def documented_lake(home: Path) -> Iterator[Lakehouse]:
    """A lake of the laptop's kind, after a day's work in it."""
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as lake:
        ingest_recording(lake, RECORDING)
        lake.system_tables.append(
            VALIDATION_RESULTS,
            [verdict("gaps", "passed", 1), verdict("rate", "failed", 1), verdict("rate", "passed", 2)],
        )
        with audit.acting_as("key 0a1b2c3d", door="gateway"):
            lake.sequences.create("mistaken")
            lake.sequences.delete("mistaken")
        run_audit_care(lake.database, lake.table_files, lake.committer, lake.settings)
        yield lake
