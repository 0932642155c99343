"""Recordings judged by Great Expectations: verdicts, places, results for SQL."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.contracts import blocks, piles, results, validation
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.findings import Finding, Verdict
from lakehouse.contracts.judging import Judge, PlainJudge
from lakehouse.contracts.selection import select_subjects, subjects_of_sessions
from lakehouse.contracts.validation import ValidationReport, Validator
from tests.contracts.contract_files import contract_text, rule
from tests.contracts.recordings import NS, START, imu_rows, imu_table, record_sequence


def validate(
    lake: Lakehouse, judge: Judge, contracts: Path | None = None, sequences: str = "*", topics: str | None = None
) -> ValidationReport:
    return Validator(lake, ContractLibrary.load(contracts), judge).validate(select_subjects(lake, sequences, topics))


def broken(report: ValidationReport) -> dict[tuple[str, str], Finding]:
    return {(f.subject, f.rule.id): f for f in report.findings if f.verdict is not Verdict.PASSED}


def damaged_imu() -> pa.Table:
    """Every kind of damage once, at places of its own."""
    rows = imu_rows(2000)
    rows["ax"][100:103] = 500.0  # 3 rows in one place
    rows["ax"][200] = np.nan
    rows["w"][300] = 0.5
    for axis in ("ax", "ay", "az"):
        rows[axis][1000:1301] = rows[axis][1000]  # 3 s without any change
    rows["times"][1500:] += 2 * NS  # a gap of 2.01 s
    return imu_table(rows)


def test_what_is_good_passes_and_what_is_broken_is_named_with_its_place(lake: Lakehouse, judge: Judge) -> None:
    record_sequence(lake, "good", {"imu/front": ("IMU", imu_table(imu_rows()))})
    record_sequence(lake, "bad", {"imu/front": ("IMU", damaged_imu())})
    report = validate(lake, judge)
    found = broken(report)
    assert set(found) == {
        ("bad/imu/front", "acceleration_magnitude"),
        ("bad/imu/front", "orientation_norm"),
        ("bad/imu/front", "acceleration_frozen"),
        ("bad/imu/front", "gaps"),
    }
    assert report.verdict is Verdict.FAILED
    magnitude = found["bad/imu/front", "acceleration_magnitude"]
    assert magnitude.verdict is Verdict.FAILED
    assert (magnitude.rows_checked, magnitude.rows_failed, magnitude.range_count) == (2000, 4, 2)
    times = imu_rows(2000)["times"]
    assert [(r.start_ns, r.end_ns, r.rows) for r in magnitude.ranges] == [
        (times[100], times[102], 3),
        (times[200], times[200], 1),
    ]
    assert "500.1" in magnitude.samples[0].text or "500.0" in magnitude.samples[0].text
    assert magnitude.samples[3].text == "not a number"
    assert "4 of 2,000 rows" in magnitude.observed
    gap = found["bad/imu/front", "gaps"]
    assert gap.verdict is Verdict.WARNED
    assert [(r.start_ns, r.end_ns) for r in gap.ranges] == [(times[1499], times[1500] + 2 * NS)], "the pause itself"
    frozen = found["bad/imu/front", "acceleration_frozen"]
    assert frozen.ranges[0].end_ns == times[1300]
    assert f"start_timestamp_ns={times[100]}, end_timestamp_ns={times[102] + 1}" in (magnitude.snippet() or "")


@pytest.mark.parametrize(("block_rows", "pile_bytes"), [(320, 1), (700, 20_000), (10**9, 10**9)])
def test_verdicts_do_not_depend_on_how_rows_are_cut_and_piled(
    lake: Lakehouse, judge: Judge, monkeypatch: pytest.MonkeyPatch, block_rows: int, pile_bytes: int
) -> None:
    record_sequence(lake, "bad", {"imu/front": ("IMU", damaged_imu().slice(0, 1600))})
    record_sequence(lake, "good", {"imu/front": ("IMU", imu_table(imu_rows(50)))})
    monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
    lake.reader._max_batch_rows = min(block_rows, 8192)
    monkeypatch.setattr(piles, "MAX_BYTES", pile_bytes)
    found = broken(validate(lake, judge))
    magnitude = found["bad/imu/front", "acceleration_magnitude"]
    assert (magnitude.rows_checked, magnitude.rows_failed, magnitude.range_count) == (1600, 4, 2)
    assert [r.rows for r in magnitude.ranges] == [3, 1]
    assert [r.rows for r in found["bad/imu/front", "acceleration_frozen"].ranges] == [100]
    assert {subject for subject, _ in found} == {"bad/imu/front"}


def test_results_are_rows_for_sql(lake: Lakehouse, judge: Judge) -> None:
    session = record_sequence(lake, "bad", {"imu/front": ("IMU", damaged_imu())})
    report = validate(lake, judge)
    results.record(lake, report)
    results.record(lake, validate(lake, judge, topics="/imu/*"))
    catalog = open_sql_catalog(lake.database, lake.warehouse)
    try:
        table = catalog.load_table("mosaico.validation_results")
        rows = table.scan(row_filter=f"run_id = '{report.run_id}'").to_arrow()
        polars_frame = pl.scan_iceberg(table).filter(pl.col("verdict") == "failed").collect()
        assert all(field.doc for field in table.schema().fields)
    finally:
        catalog.close()
    assert len(rows) == len(report.findings)
    verdicts = duckdb.sql("SELECT rule, rows_failed, first_failing_ns FROM rows WHERE verdict = 'failed' ORDER BY 1")
    times = imu_rows(2000)["times"]
    assert verdicts.fetchall() == [("acceleration_magnitude", 4, times[100]), ("orientation_norm", 1, times[300])]
    assert len(polars_frame) == 4, "two of each run"
    row = rows.filter(pa.compute.equal(rows["rule"], "acceleration_magnitude")).to_pylist()[0]
    assert row["session"] == str(session.locator)
    assert (row["contract"], row["contract_version"]) == ("lakehouse.imu", "1.0.0")
    assert (row["severity"], row["kind"], row["dimension"]) == ("error", "value", "conformity")
    assert json.loads(row["time_ranges"])[0] == [times[100], times[102], 3]
    assert row["expected"] == "length of the vector at most 408"
    about_sequence = {each["rule"]: each["verdict"] for each in rows.to_pylist() if each["topic"] is None}
    assert about_sequence == {"tf_tree": "passed", "recording_complete": "passed"}


def test_sessions_are_validated_before_they_are_finalized(lake: Lakehouse, judge: Judge) -> None:
    session = record_sequence(lake, "open", {"imu": ("IMU", damaged_imu())}, finalize=False)
    assert validate(lake, judge).findings == [], "not by pattern"
    validator = Validator(lake, ContractLibrary.load(None), judge)
    report = validator.validate(subjects_of_sessions(lake, [str(session.locator)]))
    assert report.verdict is Verdict.FAILED


def test_tolerance_and_severity_decide(lake: Lakehouse, judge: Judge, tmp_path: Path) -> None:
    record_sequence(lake, "bad", {"imu/front": ("IMU", damaged_imu())})
    rules = [
        rule("orientation_norm", "quaternion_norm", severity="info"),
        rule("acceleration_magnitude", "magnitude", max=408, toleranceRows=4),
    ]
    properties = [
        {"name": "orientation", "quality": rules[:1]},
        {"name": "acceleration", "quality": rules[1:]},
    ]
    (tmp_path / "own.yaml").write_text(contract_text("own", topics="imu/*", properties=properties))
    found = {f.rule.id: f for f in validate(lake, judge, tmp_path).findings}
    assert found["orientation_norm"].verdict is Verdict.NOTED
    assert found["acceleration_magnitude"].verdict is Verdict.PASSED
    assert found["acceleration_magnitude"].rows_failed == 4
    assert "but for 4 rows" in found["acceleration_magnitude"].expected


def number_topic(values: list[float | None], texts: list[str | None]) -> pa.Table:
    schema = pa.schema(
        [pa.field("timestamp_ns", pa.int64(), nullable=False), ("value", pa.float64()), ("mode", pa.string())]
    )
    return pa.table([pa.array(range(START, START + len(values))), values, texts], schema=schema)


def test_every_way_to_write_a_rule_about_values(lake: Lakehouse, judge: Judge, tmp_path: Path) -> None:
    values = [1.0, 2.0, None, float("nan"), 99.0, 3.0]
    record_sequence(lake, "s", {"raw": ("Custom", number_topic(values, ["auto", "auto", "", None, "off", "manual"]))})
    expectation = {
        "id": "native", "type": "custom", "engine": "great-expectations",
        "implementation": {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"min_value": 4}},
    }  # fmt: skip
    value_rules: list[dict[str, Any]] = [
        {"id": "nulls", "metric": "nullValues", "mustBe": 0},
        {"id": "missing", "metric": "missingValues", "mustBeLessThan": 50, "unit": "percent"},
        {"id": "valid", "metric": "invalidValues", "arguments": {"validValues": [1, 2, 3]}, "mustBe": 0},
        rule("range", "range", min=0, max=10),
        rule("nan_allowed", "range", min=0, max=100, allowNaN=True),
    ]
    mode_rules: list[dict[str, Any]] = [
        {"id": "modes", "metric": "invalidValues", "arguments": {"validValues": ["auto", "manual"]}, "mustBe": 0},
        {"id": "form", "metric": "invalidValues", "arguments": {"pattern": "^[a-z]+$"}, "mustBe": 0},
        expectation,
        rule("filled", "present", emptyIsMissing=True),
    ]
    properties = [
        {"name": "value", "logicalType": "number", "required": True, "quality": value_rules},
        {"name": "mode", "logicalType": "string", "quality": mode_rules},
    ]
    rules = [{"id": "rows", "metric": "rowCount", "mustBeBetween": [1, 5]}]
    (tmp_path / "own.yaml").write_text(contract_text("own", topics="raw", rules=rules, properties=properties))
    found = {f.rule.id: f for f in validate(lake, judge, tmp_path).findings}
    failed = {name: f.rows_failed for name, f in found.items() if f.rows_failed}
    assert failed == {
        "nulls": 1, "missing": 2, "valid": 1, "range": 2, "modes": 2, "form": 1, "native": 2, "filled": 2,
        "required": 1, "rows": 1,
    }  # fmt: skip
    assert found["missing"].verdict is Verdict.PASSED, "two of six are less than half"
    assert found["rows"].observed == "6 rows"
    assert found["range"].rows_checked == 5, "null is not a value"
    assert found["required"].samples[0].text == "no value in value"
    assert [r.start_ns for r in found["range"].ranges] == [START + 3], "two neighbours"


def test_a_rule_about_a_column_that_is_not_there_says_so(lake: Lakehouse, judge: Judge, tmp_path: Path) -> None:
    record_sequence(lake, "s", {"raw": ("Custom", number_topic([1.0], ["x"]))})
    properties = [
        {"name": "speed", "logicalType": "number", "required": True, "quality": [rule("speed", "range", max=1)]},
        {"name": "extra", "logicalType": "number", "quality": [rule("extra", "range", max=1)]},
        {"name": "mode", "logicalType": "number", "quality": [rule("mode", "range", max=1)]},
    ]
    (tmp_path / "own.yaml").write_text(contract_text("own", topics="raw", properties=properties))
    found = {f.rule.id: f for f in validate(lake, judge, tmp_path).findings}
    assert (found["speed"].verdict, found["speed"].observed) == (Verdict.FAILED, "the topic has no column 'speed'")
    assert found["schema"].observed == "no column 'speed'; 'mode' is string, not number"
    assert found["mode"].observed == "needs a number; 'mode' is string"
    assert "extra" not in found, "an optional column may be left out"


def transforms(pairs: Sequence[tuple[str | None, str]]) -> pa.Table:
    header = pa.struct([("frame_id", pa.string())])
    one = pa.struct([("header", header), ("target_frame_id", pa.string())])
    rows = [[{"header": {"frame_id": parent}, "target_frame_id": child} for parent, child in pairs]]
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), ("transforms", pa.list_(one))])
    return pa.table([pa.array([START]), pa.array(rows, pa.list_(one))], schema=schema)


def test_rules_about_a_sequence_see_all_its_topics(lake: Lakehouse, judge: Judge, tmp_path: Path) -> None:
    static = ("FrameTransform", transforms([("base", "imu"), ("base", "lidar")]))
    moving = ("FrameTransform", transforms([("map", "odom"), ("odom", "base")]))
    record_sequence(lake, "whole", {"tf": moving, "tf_static": static})
    record_sequence(lake, "torn", {"tf": moving, "tf_static": ("FrameTransform", transforms([("body", "imu")]))})
    record_sequence(lake, "bare", {"imu": ("IMU", imu_table(imu_rows(5)))})
    record_sequence(lake, "nameless", {"tf": ("FrameTransform", transforms([(None, "base")]))})
    rules = [rule("topics", "topics_present", topics=["tf", "imu/*"], ontologyTags=["GPS", "FrameTransform"])]
    (tmp_path / "own.yaml").write_text(contract_text("own", scope="sequence", sequences="w*", rules=rules))
    found = {(f.sequence, f.rule.id): f for f in validate(lake, judge, tmp_path).findings if f.topic is None}
    assert found["whole", "tf_tree"].verdict is Verdict.PASSED
    assert found["torn", "tf_tree"].verdict is Verdict.WARNED
    assert found["torn", "tf_tree"].observed == "2 separate trees, at body, map"
    bare = found["bare", "tf_tree"]
    assert (bare.verdict, bare.rows_checked) == (Verdict.PASSED, 0)
    assert bare.observed == "not judged: the sequence holds no transforms"
    assert found["nameless", "tf_tree"].verdict is Verdict.WARNED
    assert found["nameless", "tf_tree"].observed == "no transform names both of its frames"
    assert found["whole", "topics"].observed == "missing: imu/*, any of type GPS"
    assert ("torn", "topics") not in found


def spoil(lake: Lakehouse, topic: str) -> None:
    """Cut the only data file of a topic."""
    uuid = lake.topics.get(TopicLocator.parse(topic)).uuid
    (file,) = [path for path in lake.settings.home.rglob("*.parquet") if uuid in path.name]
    file.write_bytes(file.read_bytes()[:-40])


def test_a_data_file_that_cannot_be_read_fails_its_topic_and_no_other(lake: Lakehouse, judge: Judge) -> None:
    tf = ("FrameTransform", transforms([("map", "odom")]))
    record_sequence(lake, "a", {"imu": ("IMU", imu_table(imu_rows(50))), "other": ("IMU", damaged_imu()), "tf": tf})
    record_sequence(lake, "b", {"imu": ("IMU", imu_table(imu_rows(50)))})
    spoil(lake, "a/imu")
    spoil(lake, "a/tf")
    report = validate(lake, judge)
    found = broken(report)
    assert {subject for subject, _ in found} == {"a", "a/imu", "a/tf", "a/other"}
    unreadable = found["a/imu", "readable"]
    assert unreadable.verdict is Verdict.FAILED
    assert unreadable.observed.startswith("could not be read: ")
    assert set(report.unreadable) == {"a/imu", "a/tf"}
    assert {rule for subject, rule in found if subject == "a/imu"} == {"readable"}, "nothing from half of the rows"
    assert "a/tf could not be read" in found["a", "tf_tree"].observed
    assert ("a/other", "acceleration_magnitude") in found
    results.record(lake, report)


def test_columns_that_another_engine_changes_are_judged_by_their_uploaded_names_or_missed(
    lake: Lakehouse, judge: Judge
) -> None:
    record_sequence(lake, "a", {"renamed": ("IMU", damaged_imu()), "dropped": ("IMU", imu_table(imu_rows(50)))})
    before = {rule for subject, rule in broken(validate(lake, judge)) if subject == "a/renamed"}
    catalog = open_sql_catalog(lake.database, lake.warehouse)
    with catalog.load_table("imu.renamed").update_schema() as change:
        change.rename_column("acceleration.x", "ahead")
        change.rename_column("acceleration", "felt")
    with catalog.load_table("imu.dropped").update_schema() as change:
        change.delete_column("acceleration")
    catalog.close()
    found = broken(validate(lake, judge))
    assert "acceleration_magnitude" in before
    assert {rule for subject, rule in found if subject == "a/renamed"} == before
    assert {rule for subject, rule in found if subject == "a/dropped"} == {"readable"}
    assert "column 'acceleration' was dropped" in found["a/dropped", "readable"].observed


def test_what_cannot_be_read_for_now_is_not_judged(lake: Lakehouse, judge: Judge) -> None:
    tf = ("FrameTransform", transforms([("map", "odom")]))
    record_sequence(lake, "a", {"imu": ("IMU", imu_table(imu_rows(50))), "tf": tf})
    warehouse = lake.settings.home / "warehouse"
    away = warehouse.rename(warehouse.with_name("away"))
    report = validate(lake, judge)
    assert set(report.not_judged) == {"a/imu", "a/tf"}
    assert report.unreadable == {}
    assert not [finding for finding in report.findings if finding.topic or finding.rule.id == "tf_tree"]
    away.rename(warehouse)
    again = validate(lake, judge)
    assert (again.not_judged, again.verdict) == ({}, Verdict.PASSED)


def test_findings_come_some_sequences_at_a_time(lake: Lakehouse, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcde":
        record_sequence(lake, name, {"imu": ("IMU", damaged_imu() if name == "d" else imu_table(imu_rows(50)))})
    monkeypatch.setattr(validation, "SEQUENCES_AT_ONCE", 2)
    parts = []
    for part in Validator(lake, ContractLibrary.load(None), judge).parts(select_subjects(lake), "run"):
        parts.append(part)
        lake.sequences.delete(part.sequences[0])
        if len(parts) == 1:
            lake.sequences.delete("e")
    assert [part.sequences for part in parts] == [["a", "b"], ["c", "d"]], "what was deleted meanwhile is passed over"
    assert {part.run_id for part in parts} == {"run"}
    assert len({part.checked_at_ns for part in parts}) == 1
    assert [part.verdict for part in parts] == [Verdict.PASSED, Verdict.FAILED]


def test_without_great_expectations_the_same_is_found(lake: Lakehouse, judge: Judge, tmp_path: Path) -> None:
    def native(rule_id: str, **kwargs: Any) -> dict[str, Any]:
        implementation = {"type": "expect_column_values_to_be_between", "kwargs": kwargs}
        return {"id": rule_id, "type": "custom", "engine": "great-expectations", "implementation": implementation}

    quality = [native("known", max_value=400), native("unknown", max_value=400, mostly=0.5)]
    column = {"name": "x", "logicalType": "number", "quality": quality}
    properties = [{"name": "acceleration", "logicalType": "object", "properties": [column]}]
    (tmp_path / "own.yaml").write_text(contract_text("own", topics="imu", properties=properties))
    record_sequence(lake, "s", {"imu": ("IMU", damaged_imu()), "ok": ("IMU", imu_table(imu_rows(50)))})
    library = ContractLibrary.load(tmp_path)
    assert not library.problems
    great, plain = (Validator(lake, library, each).validate(select_subjects(lake)) for each in (judge, PlainJudge()))
    assert [f for f in great.findings if f.rule.id != "unknown"] == plain.findings
    known = {f.rule.id: f.rows_failed for f in great.findings if f.topic == "s/imu"}
    assert known["known"] == known["unknown"] == 3


def test_topics_without_rows_are_told_from_those_without_contract(
    lake: Lakehouse, judge: Judge, tmp_path: Path
) -> None:
    record_sequence(lake, "s", {"raw": ("Custom", number_topic([], []))})
    found = broken(validate(lake, judge))
    assert found["s/raw", "not_empty"].observed == "0 rows"
    (tmp_path / "own.yaml").write_text(contract_text("own", topics="raw", inherit=False))
    assert validate(lake, judge, tmp_path).without_contract == ["s/raw"]


def test_the_judge_agrees_with_the_same_rules_by_hand(lake: Lakehouse, judge: Judge) -> None:
    rows = imu_rows(5000, seed=7)
    random = np.random.default_rng(8)
    rows["ax"] = random.normal(0, 200, 5000)
    rows["gx"][random.random(5000) < 0.01] = np.nan
    rows["w"] = 1 + random.normal(0, 0.01, 5000)
    table = imu_table(rows)
    record_sequence(lake, "s", {"imu": ("IMU", table)})
    found = {f.rule.id: f.rows_failed for f in validate(lake, judge).findings}
    frame = pl.DataFrame({name: rows[name] for name in rows})
    length = (pl.col("ax") ** 2 + pl.col("ay") ** 2 + pl.col("az") ** 2).sqrt()
    by_hand = frame.select(
        acceleration=(length > 408).sum(),
        turning=pl.col("gx").is_nan().sum(),
        orientation=((pl.col("w").abs() - 1).abs() > 0.01).sum(),
    ).row(0, named=True)
    assert found["acceleration_magnitude"] == by_hand["acceleration"] > 0
    assert found["angular_velocity_magnitude"] == by_hand["turning"] > 0
    assert found["orientation_norm"] == by_hand["orientation"] > 0
