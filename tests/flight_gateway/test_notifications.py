"""Notifications (protocol section 6.5)."""

import re

import pytest

from tests.flight_gateway.raw_client import RawClient


@pytest.mark.parametrize("kind", ["sequence", "topic"])
def test_notifications_are_listed_oldest_first_and_purged(raw: RawClient, name: str, kind: str) -> None:
    topic = raw.new_topic(name)
    locator = name if kind == "sequence" else topic.locator
    for message in ("first", "second \u00e9 \U0001f697\n" * 1000):
        raw.action(f"{kind}_notification_create", locator=locator, notification_type="error", msg=message)
    listed = raw.action(f"{kind}_notification_list", locator=locator)["notifications"]
    assert [note["msg"] for note in listed] == ["first", "second \u00e9 \U0001f697\n" * 1000]
    assert {note["name"] for note in listed} == {locator}
    assert {note["notification_type"] for note in listed} == {"error"}
    for note in listed:
        # Parsers of Python 3.10 refuse more than six digits.
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC", note["created_datetime"])
    for _ in range(2):
        assert raw.action(f"{kind}_notification_purge", locator=locator) is None
    assert raw.action(f"{kind}_notification_list", locator=locator) == {"notifications": []}


def test_what_does_not_exist_has_no_notifications(raw: RawClient) -> None:
    assert raw.action("sequence_notification_list", locator="nowhere") == {"notifications": []}
    assert raw.action("topic_notification_list", locator="nowhere/imu") == {"notifications": []}
    raw.action("topic_notification_purge", locator="nowhere/imu")


def test_notifications_disappear_with_what_they_are_about(raw: RawClient, name: str) -> None:
    raw.new_topic(name)
    raw.action("sequence_notification_create", locator=name, notification_type="error", msg="m")
    raw.action("sequence_delete", locator=name)
    raw.new_topic(name)
    assert raw.action("sequence_notification_list", locator=name) == {"notifications": []}
