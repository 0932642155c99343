"""Spark, Trino, DuckDB and Polars as query engines: files skipped, metadata joined with data, tables as they were.

Each as documented (docs/sql.md), on every kind of catalog it opens, against a lake behind a running gateway.
"""

import pytest

from tests.engines.conftest import READERS, READERS_IN_HISTORY
from tests.engines.engines_under_test import Engine
from tests.engines.recordings import NOON_NS, ROWS, imu_rows
from tests.engines.shared_lake import SharedLake, fresh_name

pytestmark = pytest.mark.timeout(600)
everywhere = pytest.mark.parametrize("place", READERS, indirect=True, scope="session")
# Nessie tells of the current snapshot only: what was is kept by its own branches and tags.
_KEPT = [place for place in READERS if place.values[0][1] != "rest"]
where_snapshots_are_kept = pytest.mark.parametrize(
    "place", [*_KEPT, *READERS_IN_HISTORY], indirect=True, scope="session"
)


@everywhere
@pytest.mark.parametrize("leaf", ["sequence", "recorded_at", "acceleration.y"])
def test_files_that_cannot_match_are_skipped(engine: Engine, leaf: str) -> None:
    day, next_day = (engine.instant(f"2026-03-{number} 00:00:00") for number in (15, 16))
    condition = {
        "sequence": "sequence = 'robot_1'",
        "recorded_at": f"recorded_at >= {day} AND recorded_at < {next_day}",
        "acceleration.y": "acceleration.y BETWEEN 10 AND 12",
    }[leaf]
    rows, rows_read = engine.rows_and_reads(f"SELECT sum(acceleration.y) AS total FROM imu.imu WHERE {condition}")
    # The sums of the others are 2,000 less and 2,000 more.
    assert rows == [(pytest.approx(10 * ROWS + (ROWS - 1) / 2),)]
    assert rows_read == ROWS, "one file of three"


@everywhere
def test_metadata_joins_data(engine: Engine) -> None:
    found = engine.rows(
        """
        SELECT s.sequence, t.ontology_tag, t.row_count, count(*) AS n, max(i.acceleration.y) AS most
        FROM mosaico.sequences AS s
        JOIN mosaico.topics AS t ON t.sequence = s.sequence
        JOIN imu.imu AS i ON i.sequence = t.sequence
        WHERE t.path = 'imu' AND s.sequence LIKE 'robot%'
        GROUP BY s.sequence, t.ontology_tag, t.row_count ORDER BY s.sequence
        """
    )
    assert [row[:4] for row in found] == [(f"robot_{n}", "IMU", ROWS, ROWS) for n in range(3)]
    assert [row[4] for row in found] == pytest.approx([10.0 * n + (ROWS - 1) / ROWS for n in range(3)])


@where_snapshots_are_kept
def test_a_snapshot_can_be_travelled_to(engine: Engine, lake: SharedLake) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(2)]
    lake.write(names[0], {path: ("IMU", imu_rows(NOON_NS, 0.0))})
    with lake.catalog() as catalog:
        snapshot = catalog.load_table(f"imu.{path}").current_snapshot()
    assert snapshot is not None
    lake.write(names[1], {path: ("IMU", imu_rows(NOON_NS, 0.0))})
    assert engine.rows(f"SELECT count(*) AS n FROM imu.{path}") == [(2 * ROWS,)]
    then = engine.at_snapshot(f"imu.{path}", snapshot.snapshot_id)
    assert engine.rows(f"SELECT sequence, count(*) AS n FROM {then} GROUP BY sequence") == [(names[0], ROWS)]
