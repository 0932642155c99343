"""Spark, Trino, DuckDB and Polars on the very same tables: they see what the SDK sees, when the SDK sees it.

Each as documented (docs/sql.md), on every kind of catalog it opens, against a lake behind a running gateway.
"""

import pytest

from tests.engines.conftest import READERS
from tests.engines.engines_under_test import Engine
from tests.engines.shared_lake import DAY_NS, NOON_NS, ROWS, SharedLake, fresh_name, imu_rows, plain_rows

pytestmark = pytest.mark.timeout(600)
everywhere = pytest.mark.parametrize("place", READERS, indirect=True, scope="session")
# Nessie, the REST catalog here, tells of the current snapshot only: what was is kept by its own branches and tags.
where_snapshots_are_kept = pytest.mark.parametrize(
    "place", [place for place in READERS if place.values[0][1] != "rest"], indirect=True, scope="session"
)


@everywhere
def test_all_tables_are_there(engine: Engine) -> None:
    assert engine.tables("imu") >= {"imu"}
    assert engine.tables("odd") >= {"odd"}
    assert engine.tables("mosaico") >= {"sequences", "sessions", "topics"}


@everywhere
@pytest.mark.parametrize("path", ["imu", "odd"])
def test_rows_are_those_of_the_sdk(engine: Engine, lake: SharedLake, path: str) -> None:
    expected = lake.read("robot_1", path)
    names = ", ".join(expected.schema.names)
    found = engine.rows(f"SELECT {names} FROM {path}.{path} WHERE sequence = 'robot_1' ORDER BY timestamp_ns")
    assert found == plain_rows(expected.to_pylist())


@everywhere
def test_the_moment_in_microseconds_is_that_of_the_exact_timestamp(engine: Engine) -> None:
    micros = engine.micros("recorded_at")
    (row,) = engine.rows(
        f"SELECT count(*) AS n, min({micros}) AS first, max({micros}) AS last FROM imu.imu WHERE sequence LIKE 'robot%'"
    )
    last = NOON_NS + 2 * DAY_NS + (ROWS - 1) * 5_000_000
    assert row == (3 * ROWS, NOON_NS // 1000, last // 1000)


@everywhere
@pytest.mark.parametrize("leaf", ["sequence", "recorded_at", "acceleration.y"])
def test_files_that_cannot_match_are_skipped(engine: Engine, leaf: str) -> None:
    day, next_day = (engine.instant(f"2026-03-{number} 00:00:00") for number in (15, 16))
    condition = {
        "sequence": "sequence = 'robot_1'",
        "recorded_at": f"recorded_at >= {day} AND recorded_at < {next_day}",
        "acceleration.y": "acceleration.y BETWEEN 10 AND 12",
    }[leaf]
    sql = f"SELECT sum(acceleration.x) AS total FROM imu.imu WHERE {condition}"
    assert engine.rows(sql) == [(0.5 * ROWS * (ROWS - 1) / 2,)]
    assert engine.rows_read(sql) == ROWS, "one file of three"


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


def count(engine: Engine, table: str, sequence: str) -> int:
    return int(engine.rows(f"SELECT count(*) AS n FROM {table} WHERE sequence = '{sequence}'")[0][0])


@everywhere
def test_a_session_appears_in_the_engine_and_the_sdk_at_the_same_commit(engine: Engine, lake: SharedLake) -> None:
    name, path = fresh_name("late"), fresh_name("topic")
    lake.write(fresh_name("first"), {path: ("IMU", imu_rows(NOON_NS, 0.0))})
    session = lake.write(name, {path: ("IMU", imu_rows(NOON_NS, 0.0))}, finalize=False)
    assert count(engine, f"imu.{path}", name) == count(engine, "mosaico.sessions", name) == 0
    assert [each.state for each in lake.lakehouse.sequences.describe(name).sessions] == ["open"]
    lake.lakehouse.sessions.finalize(session.uuid)
    assert (count(engine, f"imu.{path}", name), count(engine, "mosaico.sessions", name)) == (ROWS, 1)
    assert [each.state for each in lake.lakehouse.sequences.describe(name).sessions] == ["finalized"]
    assert name in lake.find("IMU.timestamp_ns", "$geq", 0)
    lake.lakehouse.sequences.delete(name)
    assert count(engine, f"imu.{path}", name) == count(engine, "mosaico.sessions", name) == 0


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
