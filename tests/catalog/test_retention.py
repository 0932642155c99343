"""Retention policies: the oldest goes first, what is pinned or open stays, and a wrong file deletes nothing."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.audit import latest_entries
from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.retention import RETENTION_LEASE, RetentionReport, run_retention
from lakehouse.catalog.maintenance.retention_choice import Candidate, choose
from lakehouse.catalog.maintenance.retention_policies import RetentionPolicy, read_policies
from tests.catalog.scattered_lake import TAG, ScatteredLake, in_order
from tests.warehouses import on_both_kinds

DAY_S = 86_400


@pytest.fixture
def lake(tmp_path: Path, store: dict[str, str]) -> Iterator[ScatteredLake]:
    with ScatteredLake(tmp_path, store=store, max_chunk_size=1 << 20) as opened:
        yield opened


def fill(lake: ScatteredLake, *names: str, **metadata: Any) -> int:
    """Store sequences, in this order; returns the size of one."""
    for name in names:
        lake.lakehouse.sequences.create(name, metadata)
        session = lake.lakehouse.sessions.create(name)
        lake.upload(session, in_order(count=4))
        lake.lakehouse.sessions.finalize(session.uuid)
    (topic,) = lake.lakehouse.sequences.describe(names[0]).topics
    return topic.total_bytes


def retain(lake: ScatteredLake, policies: str, after_s: int = 0, dry_run: bool = False) -> RetentionReport:
    opened = lake.lakehouse
    opened.settings.retention_path.write_text(policies)
    report = run_retention(
        opened.database,
        opened.table_files,
        opened.deletion,
        opened.settings,
        dry_run,
        now_ns=lambda: time.time_ns() + after_s * 10**9,
    )
    assert report is not None
    return report


def tag(lake: ScatteredLake, name: str) -> None:
    table = lake.stock_table("scattered.front")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    table.manage_snapshots().create_tag(snapshot.snapshot_id, name).commit()


def left(lake: ScatteredLake) -> list[str]:
    in_table = set(lake.stock_table("scattered.front").scan().to_arrow()["sequence"].to_pylist())
    names = lake.lakehouse.sequences.names()
    assert in_table <= set(names)
    return names


@on_both_kinds
def test_a_full_bucket_loses_its_oldest(lake: ScatteredLake) -> None:
    size = fill(lake, "c", "a", "b", "d")
    policy = f"policies:\n  - name: small\n    max_bytes: {2.5 * size} B\n"
    foreseen = retain(lake, policy, dry_run=True)
    assert left(lake) == ["a", "b", "c", "d"]
    report = retain(lake, policy)
    assert left(lake) == ["b", "d"]
    (outcome,) = report.policies
    assert outcome.deleted == foreseen.policies[0].deleted
    assert [(name, reason) for name, reason, _ in outcome.deleted] == [
        ("c", "the bucket is too full"),
        ("a", "the bucket is too full"),
    ]
    assert (report.before.sequences, report.after.sequences) == (4, 2)
    assert report.before.bytes - report.after.bytes == outcome.deleted_bytes
    assert (foreseen.before, foreseen.after) == (report.before, report.after)
    with lake.lakehouse.database.snapshot() as connection:
        deletions = latest_entries(connection, limit=10, operations=["sequence_delete"])
    assert [entry.resource for entry in deletions] == ["a", "c"]
    assert all("retention policy 'small'" in entry.actor for entry in deletions)


def test_old_data_goes_counted_from_its_arrival_or_from_when_it_was_recorded(lake: ScatteredLake) -> None:
    fill(lake, "drive")
    arrival = "policies:\n  - name: old\n    max_age: 2 days\n"
    assert retain(lake, arrival, after_s=DAY_S).policies[0].deleted == []
    # The rows were recorded in October 2024.
    recorded = "policies:\n  - {name: old, max_age: 2 days, age_of: recording}\n"
    assert [name for name, _, _ in retain(lake, recorded, dry_run=True).policies[0].deleted] == ["drive"]
    retain(lake, arrival, after_s=3 * DAY_S)
    assert left(lake) == []


@pytest.mark.parametrize("tagged", ["", "tag: Scattered, "])
def test_a_recording_with_a_wrong_clock_is_as_old_as_its_upload(lake: ScatteredLake, tagged: str) -> None:
    starts = {"unset": 0, "ahead": time.time_ns() + 30 * DAY_S * 10**9, "right": time.time_ns() - 5 * DAY_S * 10**9}
    for name, start_ns in starts.items():
        session = lake.begin(name)
        lake.upload(session, in_order(count=1, start_ns=start_ns))
        lake.lakehouse.sessions.finalize(session.uuid)
    policy = f"policies:\n  - {{name: old, {tagged}max_age: 2 days, age_of: recording}}\n"
    (foreseen,) = retain(lake, policy, dry_run=True).policies
    assert [(name.partition("/")[0], reason) for name, reason, _ in foreseen.deleted] == [("right", "too old")]
    assert foreseen.doubted == 2
    (outcome,) = retain(lake, policy, after_s=3 * DAY_S).policies
    reasons = {name.partition("/")[0]: reason for name, reason, _ in outcome.deleted}
    assert reasons.keys() == starts.keys()
    assert "counted from its arrival" in reasons["unset"]
    assert "counted from its arrival" in reasons["ahead"]


def test_one_topic_with_a_wrong_clock_does_not_age_its_sequence(lake: ScatteredLake) -> None:
    session = lake.begin("drive")
    lake.upload(session, in_order(count=1, start_ns=0))
    lake.upload(session, in_order(count=1, start_ns=time.time_ns() - DAY_S * 10**9), path="camera")
    lake.lakehouse.sessions.finalize(session.uuid)
    policy = "policies:\n  - {name: old, max_age: 2 days, age_of: recording}\n"
    (outcome,) = retain(lake, policy, dry_run=True).policies
    assert (outcome.deleted, outcome.doubted) == ([], 0)


def test_labels_make_buckets_of_their_own(lake: ScatteredLake) -> None:
    size = fill(lake, "x1", "x2", "x3", vehicle={"id": 1}, project="apollo")
    fill(lake, "y1", "y2", vehicle={"id": 2}, project="apollo")
    fill(lake, "z1", "z2", vehicle={"id": 2}, project="gemini")
    fill(lake, "n1", "n2")
    retain(
        lake,
        "policies:\n  - name: per vehicle\n    each: vehicle.id\n    metadata: {project: apollo}\n"
        f"    max_bytes: {1.5 * size} B\n",
    )
    assert left(lake) == ["n1", "n2", "x3", "y2", "z1", "z2"]


def test_a_policy_on_a_tag_deletes_topics_and_leaves_the_sequences(lake: ScatteredLake) -> None:
    session = lake.begin("drive")
    lake.upload(session, in_order(count=4))
    lake.upload(session, in_order(count=4), path="camera", tag="Picture")
    lake.lakehouse.sessions.finalize(session.uuid)
    retain(lake, "policies:\n  - {name: pictures, tag: Picture, max_bytes: 0 B}\n")
    assert [topic.ontology_tag for topic in lake.lakehouse.sequences.describe("drive").topics] == [TAG]


def test_what_an_open_session_needs_is_kept_and_something_younger_goes_instead(lake: ScatteredLake) -> None:
    size = fill(lake, "oldest", "older", "young")
    lake.lakehouse.sessions.create("oldest")
    report = retain(lake, f"policies:\n  - {{name: small, max_bytes: {2.5 * size} B}}\n")
    assert left(lake) == ["oldest", "young"]
    assert report.policies[0].kept == ["oldest"]


class TestPinned:
    @on_both_kinds
    def test_a_policy_that_would_delete_pinned_data_is_refused(self, lake: ScatteredLake) -> None:
        fill(lake, "loose-before")
        lake.lakehouse.sequences.delete("loose-before")
        fill(lake, "pinned")
        tag(lake, "training-v1")
        fill(lake, "loose")
        policies = (
            "policies:\n  - {name: all, max_bytes: 0 B}\n  - {name: others, sequences: 'loose*', max_bytes: 0 B}\n"
        )
        for dry_run in (True, False):
            report = retain(lake, policies, dry_run=dry_run)
            refused, done = report.policies
            assert "'pinned' is pinned by tag 'training-v1' of table scattered.front" in refused.refused
            assert refused.deleted == []
            assert [name for name, _, _ in done.deleted] == ["loose"]
            assert not report.is_clean
        assert left(lake) == ["pinned"]

    @on_both_kinds
    def test_a_branch_pins_as_a_tag_does_and_no_longer_than_it_is_there(self, lake: ScatteredLake) -> None:
        fill(lake, "tried")
        table = lake.stock_table("scattered.front")
        table.manage_snapshots().create_branch(table.metadata.current_snapshot_id or 0, "experiment").commit()
        fill(lake, "loose")
        refused = retain(lake, "policies:\n  - {name: all, max_bytes: 0 B}\n").policies[0].refused
        assert "'tried' is pinned by branch 'experiment' of table scattered.front" in refused
        retain(lake, "policies:\n  - {name: all, pinned: keep, max_bytes: 0 B}\n")
        assert left(lake) == ["tried"]
        lake.stock_table("scattered.front").manage_snapshots().remove_branch("experiment").commit()
        retain(lake, "policies:\n  - {name: all, max_bytes: 0 B}\n")
        assert left(lake) == []

    def test_or_keeps_it_and_deletes_something_younger(self, lake: ScatteredLake) -> None:
        size = fill(lake, "pinned")
        tag(lake, "training-v1")
        fill(lake, "loose", "young")
        report = retain(lake, f"policies:\n  - {{name: small, pinned: keep, max_bytes: {2.5 * size} B}}\n")
        assert left(lake) == ["pinned", "young"]
        assert report.policies[0].kept == ["pinned"]
        assert report.is_clean


def test_one_run_at_a_time(lake: ScatteredLake) -> None:
    opened = lake.lakehouse
    assert Lease(opened.database, RETENTION_LEASE).hold()
    assert run_retention(opened.database, opened.table_files, opened.deletion, opened.settings) is None


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("policies: [", 1, "not YAML"),
        ("rules: []", 1, "one key 'policies'"),
        ("policies: all", 1, "must be a list"),
        ("policies:\n  - just text", 2, "must be a mapping"),
        ("policies:\n  - max_age: 1 day", 2, "no 'name'"),
        ("policies:\n  - name: a", 2, "needs 'max_age', 'max_bytes' or both"),
        ("policies:\n  - name: a\n    max_age: 1 day\n    max_size: 1 GB", 4, "unknown key 'max_size'; known are name"),
        ("policies:\n  - name: a\n    max_age: soon", 3, "a time such as '90 days'"),
        ("policies:\n  - name: a\n    max_bytes: -5 GB", 3, "a size such as '500 GB'"),
        ("policies:\n  - name: a\n    max_bytes: 5 gb", 3, "a size such as '500 GB'"),
        ("policies:\n  - name: a\n    max_age: 1 day\n    pinned: delete", 4, "'refuse' or 'keep'"),
        ("policies:\n  - name: a\n    max_age: 1 day\n    metadata:\n      a: [1]", 5, "the value of 'a'"),
        ("policies:\n  - {name: a, max_age: 1 day}\n  - {name: a, max_age: 1 day}", 3, "taken by an earlier policy"),
        ("policies:\n  - name: a\n    name: b\n    max_age: 1 day", 3, "not YAML"),
        ("policies:\n  - name: 7\n    max_age: 1 day", 2, "'name' must be a text"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(lake: ScatteredLake, text: str, line: int, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        retain(lake, text)
    assert caught.value.message.startswith(f"retention.yaml:{line}: ")
    assert expected in caught.value.message


def test_without_a_file_there_is_no_policy(tmp_path: Path) -> None:
    assert read_policies(tmp_path / "retention.yaml") == []


sizes = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 100), st.booleans()), max_size=20)


@given(sizes, st.integers(0, 500))
def test_a_bucket_never_stays_too_full_if_anything_in_it_may_go(rows: list[tuple[int, int, bool]], limit: int) -> None:
    candidates = [
        Candidate("sequence", f"s{number}", number, f"s{number}", "", at_ns, size, is_open=is_open)
        for number, (at_ns, size, is_open) in enumerate(rows)
    ]
    choice = choose(RetentionPolicy("p", 1, max_bytes=limit), candidates, now_ns=100)
    gone = {each.candidate.name for each in choice.doomed}
    remaining = [each for each in candidates if each.name not in gone]
    assert not any(each.is_open for each in candidates if each.name in gone)
    assert all(each.candidate.size for each in choice.doomed), "what is empty makes no room"
    weighty = [each for each in remaining if each.size]
    assert sum(each.size for each in weighty) <= limit or all(each.is_open for each in weighty)
    youngest_gone = max((each.candidate.at_ns for each in choice.doomed), default=-1)
    assert all(each.is_open or each.at_ns >= youngest_gone for each in weighty)
    if choice.doomed:
        last = choice.doomed[-1].candidate
        assert sum(each.size for each in remaining) + last.size > limit, "no more than has to"
