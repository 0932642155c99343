"""A small lake as maintenance looks after it, with the clock set forward."""

import time
from typing import Any

from sqlalchemy import select

from lakehouse.catalog.control_plane.schema import orphan_files
from lakehouse.catalog.maintenance.cleanup import CleanupReport, run_cleanup_cycle
from lakehouse.catalog.maintenance.orphans import STAGING_GRACE_S, UPLOAD_SILENCE_S
from lakehouse.catalog.settings import Settings
from tests.catalog.small_lake import SmallLake

HOUR_NS = 3600 * 10**9
RETENTION_S = 3600
LATER_NS = (UPLOAD_SILENCE_S + 2 * STAGING_GRACE_S) * 10**9


def with_settings(lake: SmallLake, **changes: Any) -> Settings:
    return lake.settings.model_copy(update={"snapshot_min_age": 0, **changes})


def clean(lake: SmallLake, after_ns: int = 0, dry_run: bool = False, **changes: Any) -> CleanupReport:
    """A cleanup cycle with the clock set forward."""
    settings = with_settings(lake, **{"cleanup_retention_duration": RETENTION_S, **changes})
    report = run_cleanup_cycle(
        lake.database, lake.files, lake.committer, settings, dry_run, now_ns=lambda: time.time_ns() + after_ns
    )
    assert report is not None
    return report


def marks(lake: SmallLake) -> set[str]:
    with lake.database.snapshot() as connection:
        return set(connection.scalars(select(orphan_files.c.path)))
