"""What fails now: each judgement takes the place of the one before, and what is deleted is not remembered."""

from pathlib import Path

import pytest

from lakehouse.catalog.errors import QuarantinedError
from lakehouse.catalog.failing_rules import count_failing, failing_alike, list_failing
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.contracts import results
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.gate import guard
from lakehouse.contracts.judging import PlainJudge
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Validator
from tests.contracts.contract_files import contract_text, rule
from tests.contracts.recordings import START, imu_rows, imu_table, record_sequence, upload

SHORT = {"imu": ("IMU", imu_table(imu_rows(20)))}


def judge(lake: Lakehouse, sequences: str = "*", topics: str | None = None) -> None:
    library = ContractLibrary.load(lake.settings.contracts_path)
    results.record(lake, Validator(lake, library, PlainJudge()).validate(select_subjects(lake, sequences, topics)))


def failing(lake: Lakehouse) -> set[tuple[str, str | None, str]]:
    return {(each.sequence, each.path, each.rule) for each in list_failing(lake.database, 100)}


def test_what_fails_is_listed_until_it_is_deleted_or_judged_otherwise(shared: Lakehouse, folder: Path) -> None:
    for name in ("a", "b", "c"):
        record_sequence(shared, name, SHORT)
    record_sequence(shared, "good", {"spare": SHORT["imu"]})
    judge(shared)
    assert failing(shared) == {("a", "imu", "gentle"), ("b", "imu", "gentle"), ("c", "imu", "gentle")}
    (first, *_) = list_failing(shared.database, 1)
    assert (first.contract, first.expected) == ("strict 1.0.0", "length of the vector at most 1")
    assert first.observed.startswith("20 of 20 rows: 9.")
    assert (first.start_ns, first.is_committed) == (START, True)
    before = count_failing(shared.database)
    assert (before.rules, before.sequences, before.accepted) == (3, 3, 0)
    since = {each.sequence: each.since_ns for each in list_failing(shared.database, 100)}
    judge(shared, "b")
    assert {each.sequence: each.since_ns for each in list_failing(shared.database, 100)} == since
    assert count_failing(shared.database) != before, "a new judgement can be told from the old one"
    (alike,) = failing_alike(shared.database, 5)
    assert (alike.rule, alike.sequences, alike.example) == ("gentle", 3, "a")
    shared.sequences.delete("a")
    shared.topics.delete(TopicLocator("b", "imu"))
    assert failing(shared) == {("c", "imu", "gentle")}
    (folder / "strict.yaml").unlink()
    judge(shared)
    assert failing(shared) == set()


def test_what_was_not_judged_stays_as_it_was(shared: Lakehouse, folder: Path) -> None:
    whole = [rule("odometry_there", "topics_present", topics=["odometry"])]
    (folder / "whole.yaml").write_text(contract_text("whole", scope="sequence", rules=whole))
    record_sequence(shared, "a", SHORT | {"spare": SHORT["imu"]})
    judge(shared)
    everything = {("a", "imu", "gentle"), ("a", None, "odometry_there")}
    assert failing(shared) == everything
    (folder / "whole.yaml").unlink()
    (folder / "strict.yaml").unlink()
    judge(shared, topics="/spare")
    assert failing(shared) == everything
    warehouse = shared.settings.home / "warehouse"
    library = ContractLibrary.load(folder)
    away = warehouse.rename(warehouse.with_name("away"))
    report = Validator(shared, library, PlainJudge()).validate(select_subjects(shared))
    away.rename(warehouse)
    assert set(report.not_judged) == {"a/imu", "a/spare"}
    results.record(shared, report)
    assert failing(shared) == everything
    judge(shared)
    assert failing(shared) == set()


def test_what_an_operator_released_is_accepted_as_long_as_nothing_else_fails(shared: Lakehouse, folder: Path) -> None:
    whole = [rule("odometry_there", "topics_present", topics=["odometry"])]
    (folder / "whole.yaml").write_text(contract_text("whole", scope="sequence", rules=whole))
    guard(shared, "quarantine")
    session = record_sequence(shared, "drive", SHORT, finalize=False)
    with pytest.raises(QuarantinedError):
        shared.sessions.finalize(session.uuid)
    assert failing(shared) == {("drive", "imu", "gentle"), ("drive", None, "odometry_there")}
    assert not any(each.is_committed for each in list_failing(shared.database, 100))
    shared.quarantine.release(session.locator)
    assert failing(shared) == set()
    judge(shared)
    assert failing(shared) == set(), "the next judgement finds the same"
    assert count_failing(shared.database).accepted == 2
    slow = [{"name": "angular_velocity", "logicalType": "object", "quality": [rule("spins", "magnitude", min=9)]}]
    (folder / "spinning.yaml").write_text(contract_text("spinning", topics="imu", properties=slow))
    judge(shared)
    assert failing(shared) == {("drive", "imu", "spins")}, "of this the operator knew nothing"


def test_a_session_that_is_discarded_takes_what_failed_along(shared: Lakehouse, folder: Path) -> None:
    record_sequence(shared, "drive", {"spare": SHORT["imu"]})
    whole = [rule("few", "topics_present", topics=["odometry"])]
    (folder / "whole.yaml").write_text(contract_text("whole", scope="sequence", rules=whole))
    guard(shared, "quarantine")
    session = shared.sessions.create("drive")
    upload(shared, session, "imu", *SHORT["imu"])
    with pytest.raises(QuarantinedError):
        shared.sessions.finalize(session.uuid)
    assert failing(shared) == {("drive", "imu", "gentle"), ("drive", None, "few")}
    assert not shared.quarantine.discard(session.locator), "the sequence holds another session"
    assert failing(shared) == set()
    assert [topic.locator.path for topic in shared.sequences.describe("drive").topics] == ["spare"]
