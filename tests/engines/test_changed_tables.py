"""Spark changes what tables are, not only what is in them: their format, and the names and types of their columns."""

import pyarrow as pa
import pytest

from lakehouse.catalog.errors import ChangedTableError
from tests.engines.conftest import WRITERS
from tests.engines.engines_under_test import DuckDB, Polars, WritingEngine
from tests.engines.recordings import NOON_NS, ROWS, imu_rows
from tests.engines.shared_lake import SharedLake, fresh_name

SPARK = [each for each in WRITERS if each.values[0] == ("spark", "production")]
pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("place", SPARK, indirect=True, scope="session")]


def as_table(*batches: pa.RecordBatch) -> list[dict]:
    return pa.Table.from_batches(batches).to_pylist()


def find(lake: SharedLake, tag_path: str, operator: str, value: float | list[float]) -> set[str]:
    """Sequences with a row that meets a condition on a column, whatever the SDK's models know of it."""
    return {match.name for match in lake.lakehouse.query({"ontology": {tag_path: {operator: value}}})}


def test_a_table_of_format_version_3_is_read_rightly_whatever_is_deleted_from_it(
    engine: WritingEngine, lake: SharedLake
) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(3)]
    for number, name in enumerate(names):
        lake.write(name, {path: ("IMU", imu_rows(NOON_NS, 100.0 * number))})
    table, duckdb = f"imu.{path}", DuckDB(lake)
    whole = imu_rows(NOON_NS, 0.0)
    with lake.catalog() as catalog:
        before = catalog.load_table(table).current_snapshot().snapshot_id

    def check(kept: pa.RecordBatch) -> None:
        assert lake.read(names[0], path).to_pylist() == as_table(kept)
        assert lake.read(names[1], path).num_rows == ROWS
        lowest = kept["acceleration"][0]["y"].as_py()
        assert names[0] not in find(lake, "IMU.acceleration.y", "$between", [-1.0, lowest - 0.001])
        assert names[0] in find(lake, "IMU.acceleration.y", "$between", [lowest, lowest + 0.001])
        counts = f"SELECT count(*), min(acceleration.y) FROM {table} WHERE sequence = '{names[0]}'"
        for reader in (engine, duckdb, Polars(lake)):
            assert reader.rows(counts) == [(kept.num_rows, lowest)], reader.name

    engine.rows(f"ALTER TABLE {table} SET TBLPROPERTIES ('format-version' = '3')")
    check(whole.slice(0))
    # A deletion vector, a larger one in its place, and the files that go with it.
    engine.delete_rows(table, f"sequence = '{names[0]}' AND acceleration.y < 0.5")
    with lake.catalog() as catalog:
        assert catalog.load_table(table).inspect.delete_files()["file_format"].to_pylist() == ["PUFFIN"]
    check(whole.slice(ROWS // 2))
    engine.delete_rows(table, f"sequence = '{names[0]}' AND acceleration.y < 0.75")
    check(whole.slice(3 * ROWS // 4))
    past = duckdb.rows(f"SELECT count(*) FROM {duckdb.at_snapshot(table, before)} WHERE sequence = '{names[0]}'")
    assert past == [(ROWS,)]
    engine.compact(table)
    check(whole.slice(3 * ROWS // 4))
    engine.expire_snapshots(table)
    check(whole.slice(3 * ROWS // 4))

    # What comes now lies beside; what has to go is deleted by the engine, and then here.
    later = fresh_name("drive")
    lake.write(later, {path: ("IMU", imu_rows(NOON_NS, 300.0))})
    assert lake.read(later, path).num_rows == ROWS
    assert duckdb.rows(f"SELECT count(*) FROM {table}_v2") == [(ROWS,)]
    with pytest.raises(ChangedTableError, match="format version 3"):
        lake.lakehouse.sequences.delete(names[2])
    assert lake.read(names[2], path).num_rows == ROWS
    engine.delete_rows(table, f"sequence = '{names[2]}'")
    lake.lakehouse.sequences.delete(names[2])
    assert names[2] not in find(lake, "IMU.acceleration.y", "$geq", 0.0)
    check(whole.slice(3 * ROWS // 4))


def test_columns_that_spark_renames_widens_and_rewrites_come_back_as_they_were(
    engine: WritingEngine, lake: SharedLake
) -> None:
    path = fresh_name("topic")
    names = [fresh_name("drive") for _ in range(2)]
    for number, name in enumerate(names):
        lake.write(name, {path: ("IMU", imu_rows(NOON_NS, 100.0 * number))})
    table = f"imu.{path}"
    before = [lake.read(name, path) for name in names]
    for step in (
        "RENAME COLUMN temperature TO degrees",
        "ALTER COLUMN degrees TYPE double",
        "RENAME COLUMN acceleration.y TO sideways",
        "RENAME COLUMN acceleration TO felt",
        "ALTER COLUMN degrees FIRST",
        "ADD COLUMN note string",
    ):
        engine.rows(f"ALTER TABLE {table} {step}")
    for _ in range(2):
        assert [lake.read(name, path) for name in names] == before
        assert find(lake, "IMU.acceleration.y", "$between", [100.2, 100.3]) & set(names) == {names[1]}
        assert find(lake, "IMU.temperature", "$gt", ROWS - 1.5) >= set(names)
        for reader in (engine, DuckDB(lake)):
            found = reader.rows(f"SELECT max(degrees), min(felt.sideways), count(note) FROM {table}")
            assert found == [(float(ROWS - 1 if (ROWS - 1) % 3 else ROWS - 2), 0.0, 0)], reader.name
        engine.compact(table)
    later = fresh_name("drive")
    lake.write(later, {path: ("IMU", imu_rows(NOON_NS, 300.0))})
    assert lake.read(later, path).num_rows == ROWS
