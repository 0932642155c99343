"""What the official SDK says of the lake, as rows that engines can be asked for."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from mosaicolabs import MosaicoClient
from mosaicolabs.handlers import SequenceHandler, TopicHandler

from tests.engines.plain_values import plain

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def message_rows(client: MosaicoClient, sequence: str, path: str) -> tuple[list[str], list[Any]]:
    """Names of the fields of a topic's messages; and of each message its time in ns and in whole µs, and the fields."""
    with_topic = _topic(client, sequence, path)
    struct = with_topic.ontology_schema
    messages = list(with_topic.get_data_streamer())
    # By way of Arrow, as fields of structs have no order in the SDK's classes that anybody could rely on.
    data = pa.array([message.data.model_dump() for message in messages], struct).to_pylist()
    stamps = [(message.timestamp_ns, message.timestamp_ns // 1000) for message in messages]
    return struct.names, [(*both, *plain(each)) for both, each in zip(stamps, data, strict=True)]


def sequence_rows(client: MosaicoClient, names: Iterable[str]) -> list[Any]:
    """Name, creation time in ns and in µs, metadata; sorted by name."""
    handlers = (_sequence(client, name) for name in sorted(names))
    return [(each.name, *_both(each.created_timestamp), each.user_metadata) for each in handlers]


def session_rows(client: MosaicoClient, names: Iterable[str]) -> list[Any]:
    """Locator, sequence, creation and completion time in ns; of sealed sessions, sorted by locator."""
    return sorted(
        (session.locator, name, session.created_timestamp, session.completed_timestamp)
        for name in names
        for session in _sequence(client, name).sessions
        if session.locked
    )


def topic_rows(client: MosaicoClient, names: Iterable[str]) -> list[Any]:
    """Of topics of sealed sessions, sorted by locator: sequence, path, session, tag, format, number of messages, bytes,
    number of files, first and last time in ns, creation time in ns, metadata.
    """
    found: dict[str, Any] = {}
    for name in names:
        for session in _sequence(client, name).sessions:
            for path in session.topics if session.locked else ():
                topic = _topic(client, name, path)
                assert topic.locked
                span = topic.timestamp_ns_min, topic.timestamp_ns_max
                sizes = _message_count(topic), topic.total_size_bytes, topic.chunks_number
                kind = topic.ontology_tag, topic.serialization_format.value
                short = path.removeprefix("/")
                identity = name, short, session.locator
                found[f"{name}/{short}"] = (
                    *identity,
                    *kind,
                    *sizes,
                    *span,
                    topic.created_timestamp,
                    topic.user_metadata,
                )
    return [found[locator] for locator in sorted(found)]


def notification_rows(client: MosaicoClient, name: str) -> list[Any]:
    """Resource, kind, text and time in µs of the notes on a sequence and its topics, sorted."""
    notes = [(name, note) for note in client.list_sequence_notifications(name)]
    for path in _sequence(client, name).topics:
        notes += [(f"{name}{path}", note) for note in client.list_topic_notifications(name, path)]
    return sorted(
        (resource, note.type.value, note.message, (note.created_datetime - _EPOCH) // timedelta(microseconds=1))
        for resource, note in notes
    )


def is_sealed(client: MosaicoClient, name: str) -> bool:
    """Whether a sequence of one session is complete."""
    client.clear_sequence_handlers_cache()
    handler = client.sequence_handler(name)
    return handler is not None and [session.locked for session in handler.sessions] == [True]


def _sequence(client: MosaicoClient, name: str) -> SequenceHandler:
    handler = client.sequence_handler(name)
    assert handler is not None, name
    return handler


def _topic(client: MosaicoClient, sequence: str, path: str) -> TopicHandler:
    handler = client.topic_handler(sequence, path)
    assert handler is not None, (sequence, path)
    return handler


def _message_count(topic: TopicHandler) -> int | None:
    if topic.timestamp_ns_min is None:  # which no streamer can be had for
        return 0
    streamer = topic.get_data_streamer()
    try:
        return streamer.msg_count
    finally:
        streamer.close()


def _both(ns: int) -> Iterator[int]:
    yield ns
    yield ns // 1000
