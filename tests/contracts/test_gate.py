"""Write, audit, publish: what a gate refuses or puts in quarantine, and the ways out of it."""

import re
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from lakehouse.catalog import audit
from lakehouse.catalog.audit import latest_entries
from lakehouse.catalog.control_plane.schema import sessions
from lakehouse.catalog.errors import (
    CommitConflictError,
    ContractBreachError,
    NotFoundError,
    QuarantinedError,
    StateError,
    StorageError,
)
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionRecord, SessionState, TopicState
from lakehouse.contracts.gate import ContractGate, Policy, guard
from tests.catalog.test_metadata_tables import names
from tests.contracts.recordings import imu_rows, imu_table, record_sequence, upload

REASON = "breaks its contracts: drive/imu, rule gentle (length of the vector at most 1): 200 of 200 rows: 9."


def uploaded(lake: Lakehouse, sequence: str = "drive") -> SessionRecord:
    return record_sequence(lake, sequence, {"imu": ("IMU", imu_table(imu_rows(200)))}, finalize=False)


def state(lake: Lakehouse) -> SessionState:
    (session,) = lake.sequences.describe("drive").sessions
    return session.state


def test_who_is_refused_stays_open_and_may_try_again(shared: Lakehouse, folder: Path) -> None:
    guard(shared, "refuse")
    session = uploaded(shared)
    with pytest.raises(ContractBreachError, match=re.escape(REASON)) as refused:
        shared.sessions.finalize(session.uuid)
    assert not isinstance(refused.value, QuarantinedError)
    assert state(shared) is SessionState.OPEN
    assert shared.quarantine.sessions() == []
    (folder / "strict.yaml").unlink()
    shared.sessions.finalize(session.uuid)
    assert state(shared) is SessionState.FINALIZED
    with pytest.raises(StateError, match="already finalized"):
        shared.sessions.finalize(session.uuid)


def test_a_session_in_quarantine_is_sealed_and_not_published_until_it_is_released(shared: Lakehouse) -> None:
    guard(shared, "quarantine")
    record_sequence(shared, "other", {"ok": ("IMU", imu_table(imu_rows(5)))})
    session = uploaded(shared)
    with pytest.raises(QuarantinedError, match=re.escape(REASON)):
        shared.sessions.finalize(session.uuid)
    (kept,) = shared.quarantine.sessions()
    assert (kept.locator, kept.state) == (session.locator, SessionState.QUARANTINED)
    assert REASON in (kept.quarantine_reason or "")
    with pytest.raises(StateError, match="sealed: it is quarantined"):
        shared.topics.create(session.uuid, TopicLocator("drive", "late"), "default", "IMU")
    assert shared.recovery.stale(0) == [], "nobody discards it for its age"
    with pytest.raises(StateError, match="only open sessions can be discarded"):
        shared.recovery.discard(kept)
    assert names(shared, "topics") == ["other/ok"]
    topic = shared.topics.get(TopicLocator("drive", "imu"))
    assert sum(batch.num_rows for batch in shared.reader.read(topic)) == 200, "readable as that of an open session"
    guard(shared, "report")
    with pytest.raises(StateError, match="in quarantine until an operator releases or discards it: breaks its contr"):
        shared.sessions.finalize(session.uuid)
    shared.quarantine.release(session.locator)
    assert state(shared) is SessionState.FINALIZED
    assert sorted(names(shared, "topics")) == ["drive/imu", "other/ok"]
    (published,) = shared.sequences.describe("drive").sessions
    assert published.quarantine_reason is None
    with pytest.raises(StateError, match="is finalized: it is not in quarantine"):
        shared.quarantine.release(session.locator)


def test_once_it_keeps_its_contracts_it_passes(shared: Lakehouse, folder: Path) -> None:
    guard(shared, "quarantine")
    session = uploaded(shared)
    for _ in range(2):
        with pytest.raises(QuarantinedError):
            shared.sessions.finalize(session.uuid)
    (folder / "strict.yaml").unlink()
    shared.sessions.finalize(session.uuid)
    assert state(shared) is SessionState.FINALIZED
    assert shared.quarantine.sessions() == []


def test_what_is_discarded_leaves_nothing_but_its_verdicts(shared: Lakehouse, tmp_path: Path) -> None:
    guard(shared, "quarantine")
    session = uploaded(shared)
    with pytest.raises(QuarantinedError):
        shared.sessions.finalize(session.uuid)
    with audit.acting_as("operator"):
        assert shared.quarantine.discard(session.locator), "its sequence holds nothing else"
    assert "drive" not in shared.sequences.names()
    assert not list((tmp_path / "lake" / "warehouse" / "imu").rglob("*.parquet"))
    with shared.database.snapshot() as connection:
        entries = latest_entries(connection, limit=2)
    assert {(each.operation, each.resource, each.actor) for each in entries} == {
        ("session_delete", str(session.locator), "operator"),
        ("sequence_delete", "drive", "operator"),
    }
    again = uploaded(shared)
    with pytest.raises(StateError, match="is open: it is not in quarantine"):
        shared.quarantine.discard(again.locator)
    assert state(shared) is SessionState.OPEN


def test_a_session_in_quarantine_may_be_named_by_its_sequence_while_that_has_no_other(shared: Lakehouse) -> None:
    first = uploaded(shared)
    shared.quarantine.put(first.locator, "too loud")
    assert shared.quarantine.named("drive") == shared.quarantine.named(str(first.locator)) == first.locator
    second = shared.sessions.create("drive")
    upload(shared, second, "late", "IMU", imu_table(imu_rows(5)))
    shared.quarantine.put(second.locator, "too loud")
    with pytest.raises(StateError, match=f"'drive' has 2 sessions in quarantine, name one: {first.locator}, "):
        shared.quarantine.named("drive")
    assert not shared.quarantine.discard(first.locator), "its sequence holds another session"
    assert shared.quarantine.discard(second.locator)
    with pytest.raises(NotFoundError, match="session in quarantine of sequence 'drive' not found"):
        shared.quarantine.named("drive")


@pytest.mark.parametrize("policy", ["refuse", "quarantine"])
def test_a_contract_that_cannot_be_read_may_be_the_one_that_refuses(
    shared: Lakehouse, folder: Path, policy: Policy
) -> None:
    (folder / "strict.yaml").write_text("kind: [")
    guard(shared, policy)
    session = uploaded(shared)
    with pytest.raises(ContractBreachError, match=r"cannot be judged: strict\.yaml, line 1"):
        shared.sessions.finalize(session.uuid)
    assert state(shared) is (SessionState.OPEN if policy == "refuse" else SessionState.QUARANTINED)


def test_what_was_not_judged_is_not_committed(lake: Lakehouse) -> None:
    session = uploaded(lake)
    gate = ContractGate(lake, "refuse")

    def slipping_in(judged: SessionRecord) -> list[int]:
        found = list(gate(judged))
        if len(found) == 1:
            upload(lake, session, "late", "IMU", imu_table(imu_rows(5)))
        return found

    lake.sessions.admission = slipping_in
    with pytest.raises(CommitConflictError, match="other topics than when it was judged"):
        lake.sessions.finalize(session.uuid)
    lake.sessions.finalize(session.uuid)
    assert state(lake) is SessionState.FINALIZED


def test_a_topic_that_comes_after_the_session_was_found_whole_is_not_committed_unjudged(shared: Lakehouse) -> None:
    session = record_sequence(shared, "drive", {"ok": ("IMU", imu_table(imu_rows(5)))}, finalize=False)
    gate = ContractGate(shared, "quarantine")
    locator, rows = TopicLocator("drive", "imu"), imu_table(imu_rows(200))

    def slipping_in(judged: SessionRecord) -> list[int]:
        topic = shared.topics.create(session.uuid, locator, "default", "IMU")
        found = list(gate(judged))
        with shared.topics.begin_upload(locator, topic, rows.schema) as writer:
            writer.write(rows.to_batches()[0])
            writer.finish()
        return found

    shared.sessions.admission = slipping_in
    with pytest.raises(CommitConflictError, match="other topics than when it was judged"):
        shared.sessions.finalize(session.uuid)
    assert state(shared) is SessionState.OPEN
    guard(shared, "quarantine")
    with pytest.raises(QuarantinedError, match=re.escape(REASON)):
        shared.sessions.finalize(session.uuid)


def test_only_what_is_whole_and_was_judged_goes_into_quarantine(shared: Lakehouse) -> None:
    session = uploaded(shared)
    imu = shared.topics.get(TopicLocator("drive", "imu"))
    locator, rows = TopicLocator("drive", "late"), imu_table(imu_rows(5))
    topic = shared.topics.create(session.uuid, locator, "default", "IMU")
    with pytest.raises(CommitConflictError, match="not uploaded"):
        shared.quarantine.put(session.locator, "too loud", [imu.id])
    with shared.topics.begin_upload(locator, topic, rows.schema) as writer:
        writer.write(rows.to_batches()[0])
        with pytest.raises(CommitConflictError, match="not uploaded"):
            shared.quarantine.put(session.locator, "too loud")
        writer.finish()
    with pytest.raises(CommitConflictError, match="others than when it was judged"):
        shared.quarantine.put(session.locator, "too loud", [imu.id])
    assert state(shared) is SessionState.OPEN
    shared.quarantine.put(session.locator, "too loud", [imu.id, shared.topics.get(locator).id])
    assert state(shared) is SessionState.QUARANTINED


def test_nothing_is_uploaded_into_a_session_that_is_sealed(shared: Lakehouse) -> None:
    session = uploaded(shared)
    locator, schema = TopicLocator("drive", "late"), imu_table(imu_rows(5)).schema
    topic = shared.topics.create(session.uuid, locator, "default", "IMU")
    with shared.database.transaction() as connection:
        sealed = update(sessions).where(sessions.c.uuid == session.uuid).values(state=SessionState.QUARANTINED)
        connection.execute(sealed)
    with pytest.raises(StateError, match="its session is not open any more"):
        shared.topics.begin_upload(locator, topic, schema)
    assert shared.topics.get(locator).state is TopicState.EMPTY


def data_file(lake: Lakehouse) -> Path:
    uuid = lake.topics.get(TopicLocator("drive", "ok")).uuid
    (file,) = [path for path in lake.settings.home.rglob("*.parquet") if uuid in path.name]
    return file


def test_rows_that_cannot_be_read_for_now_say_nothing_about_the_session(shared: Lakehouse) -> None:
    session = record_sequence(shared, "drive", {"ok": ("IMU", imu_table(imu_rows(200)))}, finalize=False)
    guard(shared, "quarantine")
    file = data_file(shared)
    away = file.rename(file.with_suffix(".away"))
    with pytest.raises(StorageError, match="a file of the warehouse is missing"):
        shared.sessions.finalize(session.uuid)
    assert state(shared) is SessionState.OPEN
    away.rename(file)
    shared.sessions.finalize(session.uuid)
    assert state(shared) is SessionState.FINALIZED


def test_rows_that_cannot_be_decoded_break_every_contract(shared: Lakehouse) -> None:
    session = record_sequence(shared, "drive", {"ok": ("IMU", imu_table(imu_rows(200)))}, finalize=False)
    guard(shared, "quarantine")
    file = data_file(shared)
    content = file.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    file.write_bytes(content[:4] + b"\xff" * (footer - 4) + content[footer:])
    with pytest.raises(QuarantinedError, match="rule readable"):
        shared.sessions.finalize(session.uuid)


def test_a_session_that_is_not_ready_is_not_judged(lake: Lakehouse) -> None:
    guard(lake, "quarantine")
    lake.sequences.create("drive", {})
    session = lake.sessions.create("drive")
    with pytest.raises(StateError, match="is empty"):
        lake.sessions.finalize(session.uuid)
    lake.topics.create(session.uuid, TopicLocator("drive", "imu"), "default", "IMU")
    with pytest.raises(StateError, match="has not been uploaded yet"):
        lake.sessions.finalize(session.uuid)
    assert state(lake) is SessionState.OPEN


def test_every_step_is_in_the_audit_log(lake: Lakehouse) -> None:
    session = uploaded(lake)
    lake.quarantine.put(session.locator, "too loud")
    lake.quarantine.release(session.locator)
    with lake.database.snapshot() as connection:
        entries = latest_entries(connection, limit=3)
    assert [each.operation for each in entries] == ["session_finalize", "session_release", "session_quarantine"]
    assert {each.resource for each in entries} == {str(session.locator)}
    assert entries[1].details == entries[2].details == {"reason": "too loud"}
    with pytest.raises(StateError, match="is finalized"):
        lake.quarantine.put(session.locator, "too late")


def test_a_release_that_fails_is_not_in_the_audit_log(shared: Lakehouse) -> None:
    session = uploaded(shared)
    shared.quarantine.put(session.locator, "too loud")
    shared.topics.delete(TopicLocator("drive", "imu"))
    with pytest.raises(StateError, match="is empty"):
        shared.quarantine.release(session.locator)
    assert state(shared) is SessionState.QUARANTINED
    with shared.database.snapshot() as connection:
        entries = latest_entries(connection, limit=10)
    assert "session_release" not in [each.operation for each in entries]


def test_a_gate_never_loads_great_expectations(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test may have loaded it: from here on, importing it would fail.
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    guard(lake, "refuse")
    lake.sessions.finalize(uploaded(lake).uuid)
    assert state(lake) is SessionState.FINALIZED
