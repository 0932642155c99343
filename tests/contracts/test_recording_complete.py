"""What of a recording is missing in the lake: in the metadata of its sequence, judged by a rule that ships."""

from typing import Any

import pytest

from lakehouse.catalog.errors import NotFoundError, StateError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.findings import Verdict
from lakehouse.contracts.judging import PlainJudge
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Validator
from tests.contracts.recordings import imu_rows, imu_table, upload


@pytest.mark.parametrize(
    ("metadata", "verdict", "observed"),
    [
        ({"content_sha256": "x", "damages": [], "missing_messages": 0}, "passed", "complete"),
        ({"content_sha256": "x", "damages": ["the file breaks off"]}, "failed", "damaged: the file breaks off"),
        ({"content_sha256": "x", "damages": [], "missing_messages": 1200}, "failed", "1,200 messages without a row"),
        ({"content_sha256": "x"}, "failed", "3 messages without a row"),
        ({}, "passed", "not judged: not made from a recording"),
        ("what a client wrote", "passed", "not judged: not made from a recording"),
        ({"content_sha256": 1, "damages": 5, "missing_messages": "many"}, "failed", "3 messages without a row"),
    ],
)
def test_a_recording_is_complete_or_the_rule_says_what_is_missing(
    lake: Lakehouse, metadata: Any, verdict: str, observed: str
) -> None:
    lake.sequences.create("drive", {"recording": metadata})
    session = lake.sessions.create("drive")
    # The recording's own index counts three messages more than there are rows.
    upload(lake, session, "imu", "IMU", imu_table(imu_rows(5)), {"recording": {"message_count": 8}})
    lake.sessions.finalize(session.uuid)
    report = Validator(lake, ContractLibrary.load(None), PlainJudge()).validate(select_subjects(lake))
    (found,) = [each for each in report.findings if each.rule.id == "recording_complete"]
    known = {"content_sha256", "damages"} == set(metadata) if isinstance(metadata, dict) else False
    expected = f"{observed}; 3 messages without a row" if known else observed
    assert (found.verdict, found.observed) == (Verdict(verdict), expected)


def test_metadata_is_completed_before_the_commit_and_never_after(lake: Lakehouse) -> None:
    lake.sequences.create("drive", {"car": 7, "run": {"id": "a"}})
    session = lake.sessions.create("drive")
    upload(lake, session, "imu", "IMU", imu_table(imu_rows(5)))
    lake.sequences.replace_metadata("drive", {"car": 7, "run": {"id": "b"}})
    assert lake.sequences.with_metadata("run.id", "a") == []
    assert [each.name for each in lake.sequences.with_metadata("run.id", "b")] == ["drive"]
    lake.sessions.finalize(session.uuid)
    with pytest.raises(StateError, match="is published: its metadata does not change any more"):
        lake.sequences.replace_metadata("drive", {})
    assert lake.sequences.get("drive").user_metadata == {"car": 7, "run": {"id": "b"}}
    with pytest.raises(NotFoundError):
        lake.sequences.replace_metadata("other", {})
