"""Spark and Trino on the very same tables, by the catalog in PostgreSQL: they see what the SDK sees, and may write.

Started as documented (docs/sql.md), against a lake on PostgreSQL and S3 behind a running gateway.
"""

import pyarrow as pa
import pytest

from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from tests.engines.engines_under_test import Engine
from tests.engines.shared_lake import (
    DAY_NS,
    NOON_NS,
    ROWS,
    SharedLake,
    fresh_name,
    imu_rows,
    plain_rows,
)

pytestmark = pytest.mark.timeout(600)


def test_all_tables_are_there(engine: Engine) -> None:
    tables = {
        (namespace, row[1] if engine.name == "spark" else row[0])
        for namespace in ("imu", "odd", "mosaico")
        for row in engine.rows(f"SHOW TABLES IN {namespace}")
    }
    assert {("imu", "imu"), ("odd", "odd")} <= tables
    assert {("mosaico", name) for name in ("sequences", "sessions", "topics")} <= tables


@pytest.mark.parametrize("path", ["imu", "odd"])
def test_rows_are_those_of_the_sdk(engine: Engine, lake: SharedLake, path: str) -> None:
    expected = lake.read("robot_1", path)
    names = ", ".join(expected.schema.names)
    found = engine.rows(f"SELECT {names} FROM {path}.{path} WHERE sequence = 'robot_1' ORDER BY timestamp_ns")
    assert found == plain_rows(expected.to_pylist())


def test_the_moment_in_microseconds_is_that_of_the_exact_timestamp(engine: Engine) -> None:
    micros = engine.micros("recorded_at")
    (row,) = engine.rows(f"SELECT count(*), min({micros}), max({micros}) FROM imu.imu WHERE sequence LIKE 'robot%'")
    last = NOON_NS + 2 * DAY_NS + (ROWS - 1) * 5_000_000
    assert row == (3 * ROWS, NOON_NS // 1000, last // 1000)


@pytest.mark.parametrize(
    "condition",
    [
        "sequence = 'robot_1'",
        "recorded_at >= TIMESTAMP '2026-03-15 00:00:00 UTC' AND recorded_at < TIMESTAMP '2026-03-16 00:00:00 UTC'",
        "acceleration.y BETWEEN 10 AND 12",
    ],
    ids=["sequence", "recorded_at", "nested leaf"],
)
def test_files_that_cannot_match_are_skipped(engine: Engine, condition: str) -> None:
    sql = f"SELECT sum(acceleration.x) FROM imu.imu WHERE {condition}"
    assert engine.rows(sql) == [(0.5 * ROWS * (ROWS - 1) / 2,)]
    assert engine.rows_read(sql) == ROWS, "one file of three"


def test_metadata_joins_data(engine: Engine) -> None:
    found = engine.rows(
        """
        SELECT s.sequence, t.ontology_tag, t.row_count, count(*), max(i.acceleration.y)
        FROM mosaico.sequences s
        JOIN mosaico.topics t ON t.sequence = s.sequence
        JOIN imu.imu i ON i.sequence = t.sequence
        WHERE t.path = 'imu' AND s.sequence LIKE 'robot%'
        GROUP BY s.sequence, t.ontology_tag, t.row_count ORDER BY s.sequence
        """
    )
    assert [row[:4] for row in found] == [(f"robot_{n}", "IMU", ROWS, ROWS) for n in range(3)]
    assert [row[4] for row in found] == pytest.approx([10.0 * n + (ROWS - 1) / ROWS for n in range(3)])


def count(engine: Engine, table: str, sequence: str) -> int:
    return int(engine.rows(f"SELECT count(*) FROM {table} WHERE sequence = '{sequence}'")[0][0])


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


def test_a_snapshot_can_be_travelled_to(engine: Engine, lake: SharedLake) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(2)]
    lake.write(names[0], {path: ("IMU", imu_rows(NOON_NS, 0.0))})
    with lake.catalog() as catalog:
        snapshot = catalog.load_table(f"imu.{path}").current_snapshot()
    assert snapshot is not None
    lake.write(names[1], {path: ("IMU", imu_rows(NOON_NS, 0.0))})
    assert engine.rows(f"SELECT count(*) FROM imu.{path}") == [(2 * ROWS,)]
    then = engine.at_snapshot(f"imu.{path}", snapshot.snapshot_id)
    assert engine.rows(f"SELECT DISTINCT sequence, count(*) FROM {then} GROUP BY sequence") == [(names[0], ROWS)]


def test_rows_an_engine_deletes_and_files_it_compacts_stay_right_for_the_sdk(engine: Engine, lake: SharedLake) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(2)]
    for number, name in enumerate(names):
        lake.write(name, {path: ("IMU", imu_rows(NOON_NS, 100.0 * number))})
    table = f"imu.{path}"
    kept = imu_rows(NOON_NS, 0.0).slice(ROWS // 2)

    def check() -> None:
        assert lake.read(names[0], path).to_pylist() == pa.Table.from_batches([kept]).to_pylist()
        assert lake.read(names[1], path).num_rows == ROWS
        found = lake.find("IMU.acceleration.y", "$between", [0.0, 0.4])
        assert names[0] not in found
        assert names[0] in lake.find("IMU.acceleration.y", "$between", [0.6, 0.7])
        assert count(engine, table, names[0]) == ROWS // 2

    engine.delete_rows(table, f"sequence = '{names[0]}' AND acceleration.y < 0.5")
    check()
    engine.compact(table)
    check()
    # Life goes on: another session on top, and a cleanup that takes nothing the engine wrote for an orphan.
    third = fresh_name("drive")
    lake.write(third, {path: ("IMU", imu_rows(NOON_NS, 200.0))})
    own = lake.lakehouse
    assert run_cleanup_cycle(own.database, own.table_files, own.committer, own.settings) is not None
    check()
    assert count(engine, table, third) == lake.read(third, path).num_rows == ROWS


def test_engines_keep_tables_of_their_own_in_the_catalog(engine: Engine, lake: SharedLake) -> None:
    name = fresh_name("summary")
    namespace = f"analysis_{engine.name}"
    engine.rows(f"CREATE SCHEMA IF NOT EXISTS {namespace}")
    engine.rows(
        f"CREATE TABLE {namespace}.{name} AS "
        "SELECT sequence, max(acceleration.y) AS most FROM imu.imu WHERE sequence LIKE 'robot%' GROUP BY sequence"
    )
    engine.rows(f"INSERT INTO {namespace}.{name} VALUES ('robot_x', 99.0)")
    with lake.catalog() as catalog:
        rows = catalog.load_table(f"{namespace}.{name}").scan().to_arrow().to_pylist()
    assert {row["sequence"] for row in rows} == {"robot_0", "robot_1", "robot_2", "robot_x"}
