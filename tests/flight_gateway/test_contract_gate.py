"""A gateway that judges sessions before it commits them."""

from pathlib import Path

import grpc
import pytest
from mosaicolabs import MosaicoClient, SessionLevelErrorPolicy

from lakehouse.contracts.gate import guard
from tests.contracts.contract_files import contract_text, rule
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import RawClient, plain_batch, status_of
from tests.flight_gateway.test_run_command import running
from tests.flight_gateway.test_sdk import imu
from tests.processes import free_port


@pytest.fixture(autouse=True)
def strict(served: Served) -> None:
    folder = served.lakehouse.settings.contracts_path
    folder.mkdir(exist_ok=True)
    (folder / "strict.yaml").write_text(
        contract_text("strict", topics="short", rules=[rule("rows", "row_count", min=3)])
    )


def test_a_breach_is_a_failed_precondition_that_names_the_rule(served: Served, raw: RawClient, name: str) -> None:
    guard(served.lakehouse, "refuse")
    topic = raw.new_topic(name, "short")
    raw.upload(topic, plain_batch(1, 2))
    finalize = lambda: raw.action("session_finalize", session_uuid=topic.session_uuid)  # noqa: E731
    for _ in range(2):
        refused = status_of(finalize)
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
        assert f"breaks its contracts: {name}/short, rule rows (at least 3 rows): 2 rows" in refused.text
    raw.action("topic_delete", locator=topic.locator)
    again = raw.add_topic(name, {"uuid": topic.session_uuid, "locator": topic.session_locator}, "short")
    raw.upload(again, plain_batch(1, 2, 3))
    assert finalize() is None, "what was corrected passes"


def test_quarantine_seals_the_session_for_its_client(served: Served, raw: RawClient, name: str) -> None:
    guard(served.lakehouse, "quarantine")
    topic = raw.new_topic(name, "short")
    raw.upload(topic, plain_batch(1, 2))
    refused = status_of(lambda: raw.action("session_finalize", session_uuid=topic.session_uuid))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "it is in quarantine until an operator releases or discards it" in refused.text
    session = {"uuid": topic.session_uuid, "locator": topic.session_locator}
    assert status_of(lambda: raw.add_topic(name, session, "late")).code is grpc.StatusCode.FAILED_PRECONDITION
    (kept,) = [each for each in served.lakehouse.quarantine.sessions() if each.locator.sequence == name]
    served.lakehouse.quarantine.release(kept.locator)
    assert raw.describe(f"{name}/short") is not None


def test_a_client_of_the_sdk_is_told_and_what_is_good_passes(served: Served, sdk: MosaicoClient, name: str) -> None:
    guard(served.lakehouse, "refuse")
    with sdk.sequence_create(name, {}, on_error=SessionLevelErrorPolicy.Delete) as writer:
        topic = writer.topic_create("long", {}, type(imu(1).data))
        for number in range(5):
            topic.push(imu(number))
    (session,) = served.lakehouse.sequences.describe(name).sessions
    assert session.state == "finalized"
    with pytest.raises(Exception, match=r"rule rows \(at least 3 rows\): 1 rows"):  # noqa: SIM117
        with sdk.sequence_create(f"{name}-bad", {}, on_error=SessionLevelErrorPolicy.Report) as writer:
            writer.topic_create("short", {}, type(imu(1).data)).push(imu(1))
    (session,) = served.lakehouse.sequences.describe(f"{name}-bad").sessions
    assert session.state == "open"


def test_a_setting_is_all_it_takes(tmp_path: Path, name: str) -> None:
    (tmp_path / "contracts").mkdir()
    rules = [rule("rows", "row_count", min=3)]
    (tmp_path / "contracts" / "strict.yaml").write_text(contract_text("strict", topics="short", rules=rules))
    port = free_port()
    with running(tmp_path, port, LAKEHOUSE_GATEWAY_CONTRACT_POLICY="quarantine"):
        raw = RawClient(port)
        topic = raw.new_topic(name, "short")
        raw.upload(topic, plain_batch(1, 2))
        refused = status_of(lambda: raw.action("session_finalize", session_uuid=topic.session_uuid))
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "rule rows (at least 3 rows): 2 rows; it is in quarantine" in refused.text
        raw.close()
