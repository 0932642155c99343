"""Which contracts apply to a topic, and which of them wins."""

from dataclasses import replace
from pathlib import Path

import pytest

from lakehouse.catalog.locators import SessionLocator, TopicLocator, new_ulid
from lakehouse.catalog.records import SerializationFormat, TopicRecord, TopicState
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.resolution import contract_of_sequence, contract_of_topic
from tests.contracts.contract_files import contract_text, rule

TOPIC = TopicRecord(
    id=1, sequence_id=1, session_id=1, locator=TopicLocator("drive", "imu/front"),
    session_locator=SessionLocator("drive", new_ulid(0)), session_is_finalized=True, uuid="u", ontology_tag="IMU",
    serialization_format=SerializationFormat.DEFAULT, user_metadata={}, state=TopicState.FINALIZED, created_at_ns=0,
    completed_at_ns=0, arrow_schema=b"", table_identifier="imu.imu_front", row_count=0, total_bytes=0, chunk_count=0,
    interval=None,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def add(folder: Path, contract_id: str, text: str) -> None:
    (folder / f"{contract_id}.yaml").write_text(text)


def test_shipped_rules_apply_by_type_and_to_every_topic(folder: Path) -> None:
    effective = contract_of_topic(ContractLibrary.load(folder).contracts, TOPIC)
    assert effective.sources == ("lakehouse.common 1.0.0", "lakehouse.imu 1.0.0")
    assert {"not_empty", "header_time", "orientation_norm", "schema", "required"} <= set(effective.rules)


def test_the_more_specific_contract_overrides_by_rule_id(folder: Path) -> None:
    # The names are in an order that would be the wrong one.
    add(folder, "a", contract_text("a", topics="imu/front", rules=[rule("gaps", "gaps", maxSeconds=3)]))
    add(folder, "b", contract_text("b", topics="imu/*", rules=[rule("gaps", "gaps", maxSeconds=2)]))
    add(folder, "c", contract_text("c", tag="IMU", rules=[rule("gaps", "gaps", maxSeconds=1)]))
    contracts = ContractLibrary.load(folder).contracts
    effective = contract_of_topic(contracts, TOPIC)
    assert effective.sources[-3:] == ("c 1.0.0", "b 1.0.0", "a 1.0.0")
    assert (effective.rules["gaps"].parameters, effective.rules["gaps"].contract) == ({"maxSeconds": 3.0}, "a")
    assert effective.rules["jitter"].contract == "lakehouse.imu", "what is not overridden is inherited"
    rear = replace(TOPIC, locator=TopicLocator("drive", "imu/rear"))
    assert contract_of_topic(contracts, rear).rules["gaps"].contract == "b"
    other = replace(TOPIC, locator=TopicLocator("drive", "other"))
    assert contract_of_topic(contracts, other).rules["gaps"].contract == "c"
    assert "a 1.0.0" not in contract_of_topic(contracts, replace(TOPIC, ontology_tag="GPS")).sources[:2]


def test_inherited_rules_can_be_disabled_and_inheritance_cut(folder: Path) -> None:
    add(folder, "a", contract_text("a", topics="imu/front", rules=[
        rule("jitter", "jitter", disabled=True, maxRelative=1), rule("schema", "schema", disabled=True)
    ]))  # fmt: skip
    effective = contract_of_topic(ContractLibrary.load(folder).contracts, TOPIC)
    assert not {"jitter", "schema"} & set(effective.rules)
    assert "gaps" in effective.rules
    add(folder, "b", contract_text("b", topics="imu/front", rules=[rule("own", "gaps", maxSeconds=1)], inherit=False))
    effective = contract_of_topic(ContractLibrary.load(folder).contracts, TOPIC)
    assert set(effective.rules) == {"own"}
    assert effective.sources == ("b 1.0.0",)


def test_a_contract_can_be_limited_to_certain_sequences(folder: Path) -> None:
    rules = [rule("present", "topics_present", topics=["imu/*"])]
    add(folder, "a", contract_text("a", sequences="fleet7_*", scope="sequence", rules=rules))
    contracts = ContractLibrary.load(folder).contracts
    assert "present" in contract_of_sequence(contracts, "fleet7_monday").rules
    assert set(contract_of_sequence(contracts, "drive").rules) == {"tf_tree", "recording_complete"}
