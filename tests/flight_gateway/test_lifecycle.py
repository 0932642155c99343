"""The state machine of sequences, sessions and topics (protocol section 7.3)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.flight_gateway.raw_client import RawClient, plain_batch, status_of, upload_messages

OK, FAILED_PRECONDITION, NOT_FOUND = "OK", grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


def outcome(call: Callable[[], object]) -> object:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined]
    return OK


def race(*calls: Callable[[], object]) -> list[object]:
    """How simultaneous calls end."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def test_create_responses_have_exactly_the_keys_that_clients_accept(raw: RawClient, name: str) -> None:
    assert raw.action("sequence_create", locator=name, user_metadata={}) is None
    session = raw.action("session_create", locator=name)
    assert set(session) == {"uuid", "locator"}
    assert session["locator"].startswith(f"{name}:")
    topic = raw.action(
        "topic_create",
        session_uuid=session["uuid"],
        locator=f"{name}/imu",
        serialization_format="default",
        ontology_tag="IMU",
        user_metadata={},
    )
    assert set(topic) == {"uuid"}


def test_a_session_is_finalized_once_all_its_topics_are(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    finalize = lambda: raw.action("session_finalize", session_uuid=topic.session_uuid)  # noqa: E731
    assert status_of(finalize).code is FAILED_PRECONDITION
    raw.upload(topic, plain_batch(1, 2, 3))
    assert finalize() is None
    refused = status_of(finalize)
    assert refused.code is FAILED_PRECONDITION
    assert "already finalized" in refused.text


def test_an_empty_session_cannot_be_finalized(raw: RawClient, name: str) -> None:
    raw.action("sequence_create", locator=name, user_metadata={})
    session = raw.action("session_create", locator=name)
    assert status_of(lambda: raw.action("session_finalize", session_uuid=session["uuid"])).code is FAILED_PRECONDITION


def test_a_topic_cannot_join_a_finalized_session(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic)
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    session = {"uuid": topic.session_uuid, "locator": topic.session_locator}
    assert status_of(lambda: raw.add_topic(name, session, "late")).code is FAILED_PRECONDITION


def test_a_topic_takes_one_upload_in_its_life(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    assert status_of(lambda: raw.upload(topic, plain_batch(2))).code is FAILED_PRECONDITION


def test_names_are_unique(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name, "imu")
    assert status_of(lambda: raw.action("sequence_create", locator=name)).code is grpc.StatusCode.ALREADY_EXISTS
    other_session = raw.action("session_create", locator=topic.sequence)
    refused = status_of(lambda: raw.add_topic(name, other_session, "imu"))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert "already exists" in refused.text


def test_a_topic_belongs_to_the_sequence_of_its_session(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.action("sequence_create", locator=f"{name}-other")
    session = {"uuid": topic.session_uuid, "locator": topic.session_locator}
    assert status_of(lambda: raw.add_topic(f"{name}-other", session, "imu")).code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("sequence_delete", {"locator": "nowhere"}),
        ("session_create", {"locator": "nowhere"}),
        ("session_finalize", {"session_uuid": "00000000-0000-4000-8000-000000000000"}),
        ("session_delete", {"locator": "nowhere:01JXYZ3V8Q6M2W7K9T4R5N0ABC"}),
        ("session_delete", {"session_uuid": "00000000-0000-4000-8000-000000000000"}),
        ("topic_delete", {"locator": "nowhere/imu"}),
        ("sequence_notification_create", {"locator": "nowhere", "notification_type": "error", "msg": "m"}),
        ("topic_notification_create", {"locator": "nowhere/imu", "notification_type": "error", "msg": "m"}),
        (
            "topic_create",
            {
                "session_uuid": "00000000-0000-4000-8000-000000000000",
                "locator": "nowhere/imu",
                "serialization_format": "default",
                "ontology_tag": "IMU",
            },
        ),
    ],
)
def test_what_does_not_exist_is_not_found(raw: RawClient, action: str, body: dict[str, str]) -> None:
    refused = status_of(lambda: raw.action(action, body))
    assert refused.code is NOT_FOUND
    assert "not found" in refused.text


def test_deleting_twice_is_not_found_the_second_time(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    for action, locator in [
        ("topic_delete", topic.locator),
        ("session_delete", topic.session_locator),
        ("sequence_delete", name),
    ]:
        assert raw.action(action, locator=locator) is None
        assert status_of(lambda: raw.action(action, locator=locator)).code is NOT_FOUND  # noqa: B023


def test_deleting_a_session_keeps_the_sequence_and_frees_the_topic_names(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name, "imu")
    raw.upload(topic, plain_batch(1, 2))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    raw.action("session_delete", locator=topic.session_locator)
    assert raw.describe(name).endpoints == []
    again = raw.add_topic(name, raw.action("session_create", locator=name), "imu")
    raw.upload(again, plain_batch(7))
    assert raw.describe(name).endpoints[0].app_metadata.count(b'"total_row_count":1,') == 1


def test_older_clients_delete_a_session_by_uuid(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.action("session_delete", session_uuid=topic.session_uuid)
    assert raw.describe(name).endpoints == []


def test_a_finalized_topic_can_be_deleted(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    raw.action("topic_delete", locator=topic.locator)
    assert status_of(lambda: raw.describe(topic.locator)).code is NOT_FOUND


def test_a_reused_name_shows_no_old_data_not_even_to_an_old_ticket(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1, 2, 3))
    raw.action("session_finalize", session_uuid=topic.session_uuid)
    old_ticket = raw.describe(topic.locator).endpoints[0].ticket.ticket
    raw.action("sequence_delete", locator=name)
    assert status_of(lambda: raw.get(old_ticket)).code is NOT_FOUND
    new = raw.new_topic(name)
    raw.upload(new, plain_batch(9))
    assert len(raw.get(raw.describe(new.locator).endpoints[0].ticket.ticket)) == 2
    assert status_of(lambda: raw.get(old_ticket)).code is NOT_FOUND


def test_a_sequence_with_a_running_upload_can_be_deleted(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    messages = upload_messages(topic, plain_batch(1), plain_batch(2))

    def deleting_half_way() -> object:
        yield from messages[:2]
        raw.action("sequence_delete", locator=name)
        yield from messages[2:]

    assert outcome(lambda: raw.put(deleting_half_way())) is not OK  # type: ignore[arg-type]
    assert name not in raw.names()
    raw.new_topic(name)


def test_of_two_simultaneous_creations_one_wins(raw: RawClient, name: str) -> None:
    for round_number in range(5):
        create = lambda n=f"{name}-{round_number}": raw.action("sequence_create", locator=n)  # noqa: E731
        assert sorted(map(str, race(*[create] * 4))) == sorted([OK] + [str(grpc.StatusCode.ALREADY_EXISTS)] * 3)
        assert race(create) == [grpc.StatusCode.ALREADY_EXISTS]


def test_of_two_simultaneous_uploads_one_wins(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    results = race(*[lambda: raw.upload(topic, plain_batch(1))] * 3)
    assert results.count(OK) == 1
    assert results.count(FAILED_PRECONDITION) == 2


def test_of_two_simultaneous_finalizations_one_wins(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    results = race(*[lambda: raw.action("session_finalize", session_uuid=topic.session_uuid)] * 3)
    assert results.count(OK) == 1
    assert results.count(FAILED_PRECONDITION) == 2


def test_a_topic_created_while_its_session_is_finalized_is_either_in_or_refused(raw: RawClient, name: str) -> None:
    topic = raw.new_topic(name)
    raw.upload(topic, plain_batch(1))
    session = {"uuid": topic.session_uuid, "locator": topic.session_locator}
    finalized, created = race(
        lambda: raw.action("session_finalize", session_uuid=topic.session_uuid),
        lambda: raw.add_topic(name, session, "second"),
    )
    assert sorted(map(str, (finalized, created))) == sorted(map(str, (OK, FAILED_PRECONDITION)))
