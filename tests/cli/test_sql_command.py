"""`lakehouse sql`: the tables in SQL, with files skipped and results in four forms."""

import csv
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import DoubleType, StringType

from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from tests.cli.conftest import Run

NOON_NS = 1_773_489_600_000_000_000  # 2026-03-14T12:00:00Z
DAY_NS = 86_400 * 10**9
VECTOR = pa.struct([("x", pa.float64()), ("y", pa.float64())])
SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("acceleration", VECTOR)])


def rows(start_ns: int, y: float) -> pa.RecordBatch:
    """Ten rows a second apart; y rises by 0.1, x is NaN in the last."""
    index = np.arange(10)
    x = np.where(index == 9, np.nan, index.astype(float))
    acceleration = pa.StructArray.from_arrays([pa.array(x), pa.array(y + index / 10)], fields=list(VECTOR))
    return pa.record_batch([pa.array(start_ns + index * 10**9), acceleration], schema=SCHEMA)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three drives on three days."""
    home = tmp_path / "lake"
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as opened:
        for number in range(3):
            name = f"drive_{number}"
            opened.sequences.create(name, {})
            session = opened.sessions.create(name)
            locator = TopicLocator(name, "imu")
            topic = opened.topics.create(session.uuid, locator, "default", "IMU")
            batch = rows(NOON_NS + number * DAY_NS, 10.0 * number)
            with opened.topics.begin_upload(locator, topic, batch.schema) as upload:
                upload.write(batch)
                upload.finish()
            opened.sessions.finalize(session.uuid)
    return home


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("condition", "count", "files"),
    [
        ("sequence = 'drive_1'", 10, 1),
        ("sequence IN ('drive_1', 'drive_2')", 20, 2),
        ("recorded_at >= '2026-03-16 00:00:00+00'", 10, 1),
        ("timestamp_ns < 1773489605000000000", 5, 1),
        ("acceleration.y BETWEEN 10.25 AND 10.45", 2, 1),
        ("acceleration.y > 1000", 0, 0),
        ("acceleration.y > 1000 OR sequence = 'drive_0'", 10, 1),
        ("abs(acceleration.y) > 20.05", 9, 3),
        # NaN is the largest number in SQL: no bounds tell of it.
        ("acceleration.x > 1000", 3, 3),
    ],
)
def test_only_files_that_may_match_are_read(lakehouse: Run, condition: str, count: int, files: int) -> None:
    found = lakehouse("sql", f"SELECT count(*) AS n FROM imu.imu WHERE {condition}", "-f", "csv", "--explain")
    assert (found.returncode, found.stdout) == (0, f"n\n{count}\n")
    assert f"imu.imu: {files} of 3 data files read" in found.stderr


@pytest.mark.usefixtures("lake")
def test_conditions_reach_a_table_through_a_join(lakehouse: Run) -> None:
    statement = (
        "SELECT t.row_count, count(*) AS n FROM mosaico.topics t JOIN imu.imu i ON i.sequence = t.sequence "
        "WHERE t.sequence = 'drive_2' GROUP BY 1"
    )
    found = lakehouse("sql", statement, "--explain")
    assert found.stdout.split() == ["row_count", "n", "10", "10"]
    assert "imu.imu: 1 of 3 data files read" in found.stderr


@pytest.mark.usefixtures("lake")
def test_results_are_written_as_csv_json_and_parquet(lakehouse: Run, tmp_path: Path) -> None:
    statement = "SELECT sequence, timestamp_ns, acceleration FROM imu.imu ORDER BY timestamp_ns LIMIT 2"
    for ending in ("csv", "json", "parquet"):
        written = lakehouse("sql", statement, "--output", tmp_path / f"out.{ending}")
        assert written.returncode == 0
        assert written.stderr == f"2 rows written to {tmp_path / f'out.{ending}'} as {ending}\n"
    with (tmp_path / "out.csv").open() as stream:
        assert [row["timestamp_ns"] for row in csv.DictReader(stream)] == [str(NOON_NS), str(NOON_NS + 10**9)]
    expected = [
        {"sequence": "drive_0", "timestamp_ns": NOON_NS + n * 10**9, "acceleration": {"x": float(n), "y": n / 10}}
        for n in range(2)
    ]
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected


@pytest.mark.usefixtures("lake")
def test_tables_are_listed(lakehouse: Run) -> None:
    listed = lakehouse("sql", "SHOW TABLES").stdout.split()
    assert listed[2:4] == ["imu", "imu"]
    assert {"sequences", "sessions", "topics"} <= set(listed)


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["SELECT * FROM imu.nowhere"], "table 'imu.nowhere' not found\n"),
        (["SELECT * FROM mosaico.sequence"], "'mosaico.sequence' not found; did you mean 'mosaico.sequences' or"),
        (["SELECT * FROM gps.imu AT (VERSION => 1)"], "table 'gps.imu' not found; did you mean 'imu.imu'?"),
        (["SELECT * FROM imu"], "table 'imu' not found; did you mean 'imu.imu'?"),
        (["SELECT * FROM Topic"], "table 'Topic' not found; did you mean 'mosaico.topics'?"),
        (["DROP TABLE imu.imu"], "statements that change something are refused"),
        (["SELECT nothing FROM imu.imu"], "nothing"),
        (["SELECT 1", "-f", "parquet"], "--output"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(lakehouse: Run, arguments: list[str], reason: str) -> None:
    found = lakehouse("sql", *arguments)
    assert found.returncode == 1
    assert reason in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_moments_without_a_time_zone_are_in_utc_wherever_it_runs(
    lakehouse: Run, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    condition = "recorded_at >= '2026-03-15 12:00:00' AND recorded_at < TIMESTAMP '2026-03-15 12:00:10'"
    found = lakehouse("sql", f"SELECT count(*) AS n FROM imu.imu WHERE {condition}", "-f", "csv", "--explain")
    assert found.stdout == "n\n10\n"
    assert "imu.imu: 1 of 3 data files read" in found.stderr


def test_a_table_as_it_was(lake: Path, lakehouse: Run) -> None:
    with (
        Lakehouse.open(Settings.load(home=lake, db_url="", store_endpoint="")) as opened,
        closing(open_sql_catalog(opened.database, opened.warehouse)) as catalog,
    ):
        table = catalog.load_table("imu.imu")
        first, second, last = table.history()
        table.manage_snapshots().create_tag(second.snapshot_id, "two drives").commit()

    def counted(at: str) -> str:
        # With itself as it is now, and by a name that is the table's own.
        found = lakehouse(
            "sql",
            f"SELECT count(DISTINCT imu.sequence) AS n FROM imu.imu {at} "
            "JOIN imu.imu AS now ON now.sequence = imu.sequence WHERE imu.acceleration.y >= 0",
            *("-f", "csv", "--explain"),
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.split()[1] + found.stderr.splitlines()[-1].partition(":")[2]

    assert counted("") == "3 3 of 3 data files read"
    assert counted(f"AT (VERSION => {first.snapshot_id})") == "1 1 of 1 data files read"
    assert counted("AT (VERSION => 'two drives')") == "2 2 of 2 data files read"
    moment = datetime.fromtimestamp(last.timestamp_ms / 1000, UTC)
    assert counted(f"AT (TIMESTAMP => TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}')").startswith("3")


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("AT (VERSION => 12)", "imu.imu at 12"),
        ("AT (TIMESTAMP => '2001-01-01 00:00:00')", "2001-01-01"),
        ("AT (TIMESTAMP => 'yesterday')", "AT takes"),
        ("AT (VERSION => 1.5)", "AT takes"),
    ],
)
def test_a_state_that_a_table_never_had_is_told(lakehouse: Run, at: str, reason: str) -> None:
    found = lakehouse("sql", f"SELECT count(*) FROM imu.imu {at}")
    assert found.returncode == 1
    assert reason in found.stderr
    assert "Traceback" not in found.stderr


def test_columns_that_another_engine_adds_are_there_at_once_and_in_no_state_before(lake: Path, lakehouse: Run) -> None:
    with (
        Lakehouse.open(Settings.load(home=lake, db_url="", store_endpoint="")) as opened,
        closing(open_sql_catalog(opened.database, opened.warehouse)) as catalog,
    ):
        table = catalog.load_table("imu.imu")
        last = table.history()[-1].snapshot_id
        with table.update_schema() as change:
            change.add_column("label", StringType())
            change.add_column(("acceleration", "z"), DoubleType())
    found = lakehouse("sql", "SELECT count(*), count(label), count(acceleration.z) FROM imu.imu", "-f", "csv")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[1:] == ["30,0,0"]
    found = lakehouse("sql", f"SELECT label FROM imu.imu AT (VERSION => {last})")
    assert found.returncode == 1
    assert "label" in found.stderr


def test_columns_that_another_engine_renames_keep_their_values(lake: Path, lakehouse: Run) -> None:
    with (
        Lakehouse.open(Settings.load(home=lake, db_url="", store_endpoint="")) as opened,
        closing(open_sql_catalog(opened.database, opened.warehouse)) as catalog,
        catalog.load_table("imu.imu").update_schema() as change,
    ):
        change.rename_column("acceleration.y", "sideways")
    found = lakehouse("sql", "SELECT count(*) FROM imu.imu WHERE acceleration.sideways >= 10", "-f", "csv")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[1:] == ["20"]


def test_a_table_as_it_was_takes_an_alias_before_its_at(lake: Path, lakehouse: Run) -> None:
    with (
        Lakehouse.open(Settings.load(home=lake, db_url="", store_endpoint="")) as opened,
        closing(open_sql_catalog(opened.database, opened.warehouse)) as catalog,
    ):
        first, second, _ = catalog.load_table("imu.imu").history()
    found = lakehouse(
        "sql",
        "SELECT count(DISTINCT old.sequence) AS old, count(DISTINCT late.sequence) AS late "
        f"FROM imu.imu old AT (VERSION => {first.snapshot_id}) "
        f"RIGHT JOIN imu.imu AS late AT (VERSION => {second.snapshot_id}) ON late.sequence = old.sequence",
        *("-f", "csv"),
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[1:] == ["1,2"]


@pytest.mark.usefixtures("lake")
def test_a_table_as_it_was_is_named_with_its_namespace(lakehouse: Run) -> None:
    found = lakehouse("sql", "SELECT * FROM imu AT (VERSION => 12)")
    assert found.returncode == 1
    assert "imu: AT takes a table with its namespace" in found.stderr
