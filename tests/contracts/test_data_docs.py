"""Verdicts as a web site."""

from pathlib import Path

import numpy as np

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.data_docs import DataDocs, _plain, _unused
from lakehouse.contracts.judging import Judge
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Validator
from tests.contracts.contract_files import contract_text, rule
from tests.contracts.recordings import imu_rows, imu_table, record_sequence


def test_a_site_shows_every_verdict_and_runs_nothing_that_is_in_the_data(
    lake: Lakehouse, judge: Judge, tmp_path: Path
) -> None:
    rows = imu_rows(200)
    rows["ax"][:3] = 900.0
    rows["gx"][7] = np.nan
    record_sequence(lake, "bad", {"imu/front": ("IMU", imu_table(rows))})
    record_sequence(lake, "good", {"imu/front": ("IMU", imu_table(imu_rows(200)))})
    rules = [rule("present", "topics_present", topics=["<script>alert(1)</script>"])]
    (tmp_path / "own.yaml").write_text(contract_text("own", scope="sequence", sequences="bad", rules=rules))
    docs = DataDocs(tmp_path / "docs")
    for part in Validator(lake, ContractLibrary.load(tmp_path), judge).parts(select_subjects(lake)):
        docs.add(part)
    index = docs.build()
    assert "bad" in index.read_text()
    (bad,) = (tmp_path / "docs" / "validations" / "bad").rglob("*.html")
    assert "bad/imu/front acceleration_magnitude: rows failed" in bad.read_text()
    words = (tmp_path / "docs" / "expectations" / "bad.html").read_text()
    assert "3 of 200 rows" in words
    assert "alert(1)" in words
    assert not [page for page in (tmp_path / "docs").rglob("*.html") if "<script>alert" in page.read_text()]
    assert len(list((tmp_path / "docs" / "validations" / "good").rglob("*.html"))) == 1


def test_names_that_become_the_same_get_a_number() -> None:
    columns: dict[str, int] = {}
    for name in ("a(b", "a[b", "a b", "a{b"):
        columns[_unused(_plain(name), columns)] = 1
    assert list(columns) == ["a_b", "a_b 2", "a b", "a_b 3"]
