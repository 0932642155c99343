"""The rules for names, on every action that takes one (protocol section 5.3)."""

import itertools
import string
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.flight_gateway.raw_client import RawClient, status_of

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
SESSION = "drive:01JXYZ3V8Q6M2W7K9T4R5N0ABC"
SOME_UUID = "00000000-0000-4000-8000-000000000000"

BAD_CHARACTERS = [f"dr{character}ive" for character in " !\"'*£$%&.\t\n\r\x00\x1b\x7fé\u2028\ud83d"]
BAD_SEQUENCES: list[Any] = ["", "a/b", "/drive", "drive/", SESSION, "a:b", *BAD_CHARACTERS, None, 7, [], {}, True]
BAD_TOPICS: list[Any] = ["", "drive", "/a/b", "a/", "a//b", "a/b/", "/", "//", SESSION, "a/b:c", "a:b/c"]
BAD_TOPICS += [f"drive/{bad}" for bad in BAD_CHARACTERS] + [None, 7, [], {}, True]
BAD_SESSIONS: list[Any] = ["", "drive", "drive/imu", ":", "drive:", ":01JXYZ3V8Q6M2W7K9T4R5N0ABC", SOME_UUID]
BAD_SESSIONS += [SESSION + ":x", SESSION.lower(), SESSION[:-1], SESSION + "0", "drive:81JXYZ3V8Q6M2W7K9T4R5N0ABC"]
BAD_SESSIONS += ["drive:01JXYZ3V8Q6M2W7K9T4R5N0ABI", "dr ive:01JXYZ3V8Q6M2W7K9T4R5N0ABC", None, 7, [], {}]
BAD_UUIDS: list[Any] = [
    "",
    "x",
    SOME_UUID[:-1],
    SOME_UUID + "0",
    SESSION,
    None,
    7,
    "g" * 32,
    "\u0660" * 32,
    "0" * 100_000,
]

NOTE = {"notification_type": "error", "msg": "m"}
CASES = [
    *itertools.product(["sequence_create", "sequence_delete", "session_create"], ["locator"], BAD_SEQUENCES),
    *itertools.product(
        [f"sequence_notification_{verb}" for verb in ("create", "list", "purge")], ["locator"], BAD_SEQUENCES
    ),
    *itertools.product(["topic_create", "topic_delete"], ["locator"], BAD_TOPICS),
    *itertools.product([f"topic_notification_{verb}" for verb in ("create", "list", "purge")], ["locator"], BAD_TOPICS),
    *itertools.product(["session_delete"], ["locator"], BAD_SESSIONS),
    *itertools.product(["session_finalize", "topic_create", "session_delete"], ["session_uuid"], BAD_UUIDS),
]


def valid_body(action: str) -> dict[str, Any]:
    if action == "session_delete":
        return {}
    if action == "session_finalize":
        return {"session_uuid": SOME_UUID}
    if action == "topic_create":
        extra = {"serialization_format": "default", "ontology_tag": "IMU", "user_metadata": {}}
        return {"session_uuid": SOME_UUID, "locator": "drive/imu"} | extra
    return {"locator": "drive/imu" if action.startswith("topic") else "drive"} | NOTE


def test_every_broken_name_is_an_invalid_argument_for_every_action(raw: RawClient) -> None:
    for action, field, value in CASES:
        refused = status_of(lambda: raw.action(action, valid_body(action) | {field: value}))  # noqa: B023
        assert refused.code is INVALID_ARGUMENT, (action, value)


def test_the_text_names_the_rule(raw: RawClient) -> None:
    assert "not a valid sequence locator" in status_of(lambda: raw.action("sequence_create", locator="a b")).text
    assert "not a valid topic locator" in status_of(lambda: raw.action("topic_delete", locator="a")).text
    assert "not a valid session locator" in status_of(lambda: raw.action("session_delete", locator="a")).text
    assert "not a valid UUID" in status_of(lambda: raw.action("session_finalize", session_uuid="a")).text


@pytest.mark.parametrize("suffix", ["+", "@", "~", "#", "(", ")", "-", "_", "0", "A", "x" * 200])
def test_other_printable_characters_are_allowed(raw: RawClient, name: str, suffix: str) -> None:
    topic = raw.new_topic(name + suffix, f"a/{suffix}/b")
    assert raw.describe(topic.locator).endpoints
    raw.action("sequence_delete", locator=name + suffix)


@pytest.mark.parametrize("field", ["serialization_format", "ontology_tag"])
@pytest.mark.parametrize("value", ["", None, 7, "\x00", "\ud800", pytest.param("x" * 100_000, id="long")])
def test_other_texts_of_a_topic_are_checked(raw: RawClient, name: str, field: str, value: Any) -> None:
    raw.action("sequence_create", locator=name)
    session = raw.action("session_create", locator=name)
    refused = status_of(lambda: raw.add_topic(name, session, "imu", **{field: value}))
    assert refused.code is INVALID_ARGUMENT


def test_notifications_know_one_type(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name)
    for kind in ("warning", "", "ERROR", None, 1):
        body = {"locator": name, "notification_type": kind, "msg": "m"}
        assert status_of(lambda: raw.action("sequence_notification_create", body)).code is INVALID_ARGUMENT  # noqa: B023


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from(string.printable + "é\u2028\ud800\x00"), max_size=12))
def test_any_text_is_either_a_name_or_refused(raw: RawClient, text: str) -> None:
    try:
        raw.action("sequence_create", locator=text)
    except grpc.RpcError:
        assert status_of(lambda: raw.action("sequence_create", locator=text)).code in (
            INVALID_ARGUMENT,
            grpc.StatusCode.ALREADY_EXISTS,
        )
    else:
        assert text in raw.names()
        assert text.isascii()
        assert not set(text) & set("/: .!\"'*$%&\t\n")
        raw.action("sequence_delete", locator=text)
