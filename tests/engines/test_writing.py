"""Spark and Trino change tables, by each catalog they open, and everybody's answers stay right."""

import pyarrow as pa
import pytest
from mosaicolabs import IMU

from lakehouse.catalog.maintenance.cleanup import run_cleanup_cycle
from tests.engines.conftest import WRITERS, WRITERS_IN_HISTORY
from tests.engines.engines_under_test import DuckDB, Polars, WritingEngine
from tests.engines.recordings import NOON_NS, ROWS, imu_rows
from tests.engines.shared_lake import SharedLake, fresh_name

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("place", [*WRITERS, *WRITERS_IN_HISTORY], indirect=True, scope="session")
def test_rows_an_engine_deletes_and_files_it_compacts_stay_right_for_everybody(
    engine: WritingEngine, lake: SharedLake, place: tuple[str, str]
) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(2)]
    for number, name in enumerate(names):
        lake.write(name, {path: ("IMU", imu_rows(NOON_NS, 100.0 * number))})
    table = f"imu.{path}"
    kept = imu_rows(NOON_NS, 0.0).slice(ROWS // 2)
    readers = (engine, DuckDB(lake), Polars(lake))

    def check() -> None:
        assert lake.read(names[0], path).to_pylist() == pa.Table.from_batches([kept]).to_pylist()
        assert lake.read(names[1], path).num_rows == ROWS
        found = lake.find(IMU.Q.acceleration.y.between([0.0, 0.4]))
        assert names[0] not in found
        assert names[0] in lake.find(IMU.Q.acceleration.y.between([0.6, 0.7]))
        for reader in readers:
            rows = reader.rows(
                f"SELECT sequence, count(*) AS n, min(acceleration.x) AS x FROM {table} GROUP BY sequence"
            )
            counted = {name: rest for name, *rest in rows}
            assert [counted[name] for name in names] == [[ROWS // 2, ROWS // 4], [ROWS, 0]], reader.name

    engine.delete_rows(table, f"sequence = '{names[0]}' AND acceleration.y < 0.5")
    check()
    engine.compact(table)
    check()
    # Nessie forbids it: it keeps former states in branches and tags of its own, and collects garbage by itself.
    if place[1] != "rest":
        engine.expire_snapshots(table)
        check()
    # Life goes on: another session on top, and a cleanup that takes nothing the engine wrote for an orphan.
    third = fresh_name("drive")
    lake.write(third, {path: ("IMU", imu_rows(NOON_NS, 200.0))})
    own = lake.lakehouse
    assert run_cleanup_cycle(own.database, own.table_files, own.committer, own.settings) is not None
    check()
    assert lake.read(third, path).num_rows == ROWS
    for reader in readers:
        assert reader.rows(f"SELECT count(*) AS n FROM {table} WHERE sequence = '{third}'") == [(ROWS,)], reader.name


@pytest.mark.parametrize("place", WRITERS, indirect=True, scope="session")
def test_engines_keep_tables_of_their_own_in_the_catalog(engine: WritingEngine, lake: SharedLake) -> None:
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
