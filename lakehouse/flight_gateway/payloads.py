"""Everything about JSON on the wire: requests in action bodies and descriptors, and the envelopes of responses.

Requests are typed strictly (a number is no text, `true` is no number); keys a request does not need are ignored.
No other module knows that payloads are JSON, so another encoding replaces this module only (protocol section 16.4).
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, Self

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.locators import SessionLocator, TopicLocator, parse_sequence_name, parse_uuid
from lakehouse.catalog.query.engine import (
    MAX_INTERSECTED_TOPICS,
    ClusterRequest,
    MatchingSequence,
    MatchingTopic,
)
from lakehouse.catalog.records import NotificationRecord, SessionRecord
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.time_window import TimeInterval, TimeWindow

PROTOCOL_VERSION = (0, 7, 0)
# What gRPC can send at most; informative for clients, whose receive limit Flight lifts.
MAX_ENCODE_MESSAGE_SIZE = 2**31 - 1
# Room for the names of a hundred thousand sequences, as a query within the result of another sends them.
MAX_QUERY_SIZE = 16 << 20


def encode(value: dict[str, Any]) -> bytes:
    """JSON text in ASCII, so that every string survives, lone surrogates included."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


@dataclass(frozen=True, slots=True)
class Fields:
    """The members of one JSON object, read by name and type. Each method raises BadRequestError on a mismatch."""

    members: dict[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a JSON object; no bytes at all stand for the empty object.

        Raises:
            BadRequestError: If the bytes are no UTF-8 JSON object, or hold a number that JSON cannot give back.
        """
        if not data:
            return cls({})
        try:
            value = json.loads(data.decode("utf-8"), parse_constant=_refuse_number, parse_float=_finite_float)
        except BadRequestError:
            raise
        except (ValueError, RecursionError):
            raise BadRequestError("the payload is not valid JSON") from None
        if not isinstance(value, dict):
            raise BadRequestError("the payload must be a JSON object")
        return cls(value)

    def __contains__(self, key: str) -> bool:
        return self.members.get(key) is not None

    def text(self, key: str) -> str:
        value = self.members.get(key)
        if not isinstance(value, str):
            raise BadRequestError(f"{quoted(key)} is {'missing' if value is None else 'not a text'}")
        return value

    def integer(self, key: str) -> int:
        value = self.optional_integer(key)
        if value is None:
            raise BadRequestError(f"{quoted(key)} is missing")
        return value

    def optional_integer(self, key: str) -> int | None:
        value = self.members.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise BadRequestError(f"{quoted(key)} is not an integer")
        return value

    def optional_object(self, key: str) -> dict[str, Any]:
        value = self.members.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise BadRequestError(f"{quoted(key)} is not an object")
        return value


def _refuse_number(text: str) -> NoReturn:
    raise BadRequestError(f"the payload is not valid JSON: {quoted(text, 40)} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


@dataclass(frozen=True, slots=True)
class SequenceCreate:
    name: str
    user_metadata: dict[str, Any]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        fields = Fields.parse(body)
        return cls(parse_sequence_name(fields.text("locator")), fields.optional_object("user_metadata"))


@dataclass(frozen=True, slots=True)
class SequenceReference:
    name: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(parse_sequence_name(Fields.parse(body).text("locator")))


@dataclass(frozen=True, slots=True)
class SessionFinalize:
    session_uuid: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(parse_uuid(Fields.parse(body).text("session_uuid")))


@dataclass(frozen=True, slots=True)
class SessionDelete:
    """Clients up to 0.4 name the session by UUID, later ones by locator."""

    session: SessionLocator | str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        fields = Fields.parse(body)
        if "locator" not in fields and "session_uuid" in fields:
            return cls(parse_uuid(fields.text("session_uuid")))
        return cls(SessionLocator.parse(fields.text("locator")))


@dataclass(frozen=True, slots=True)
class TopicCreate:
    session_uuid: str
    locator: TopicLocator
    serialization_format: str
    ontology_tag: str
    user_metadata: dict[str, Any]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        fields = Fields.parse(body)
        return cls(
            parse_uuid(fields.text("session_uuid")),
            TopicLocator.parse(fields.text("locator")),
            fields.text("serialization_format"),
            fields.text("ontology_tag"),
            fields.optional_object("user_metadata"),
        )


@dataclass(frozen=True, slots=True)
class TopicReference:
    locator: TopicLocator

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(TopicLocator.parse(Fields.parse(body).text("locator")))


@dataclass(frozen=True, slots=True)
class NotificationText:
    """What a notification says; whom it concerns is in the same body."""

    notification_type: str
    message: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        fields = Fields.parse(body)
        return cls(fields.text("notification_type"), fields.text("msg"))


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """The command of a GetFlightInfo or GetSchema descriptor. The locator's kind is for the caller to find out."""

    resource_locator: str
    window: TimeWindow

    @classmethod
    def parse(cls, command: bytes) -> Self:
        fields = Fields.parse(command)
        return cls(
            fields.text("resource_locator"),
            TimeWindow(fields.optional_integer("timestamp_ns_start"), fields.optional_integer("timestamp_ns_end")),
        )


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """The command of a DoPut descriptor."""

    locator: TopicLocator
    topic_uuid: str

    @classmethod
    def parse(cls, command: bytes) -> Self:
        fields = Fields.parse(command)
        return cls(TopicLocator.parse(fields.text("resource_locator")), parse_uuid(fields.text("topic_uuid")))


@dataclass(frozen=True, slots=True)
class TopicIntersection:
    topics: list[ClusterRequest]
    intersect_dt_ns: int

    @classmethod
    def parse(cls, body: bytes) -> Self:
        fields = Fields.parse(body)
        members = fields.members.get("topics")
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise BadRequestError("'topics' is not a list of objects")
        if len(members) > MAX_INTERSECTED_TOPICS:
            raise BadRequestError(f"an intersection takes at most {MAX_INTERSECTED_TOPICS} topics")
        return cls(
            [_cluster_request(Fields(member)) for member in members], fields.optional_integer("intersect_dt_ns") or 0
        )


def query_request(body: bytes) -> dict[str, Any]:
    """The JSON object of a query, whose grammar the catalog knows."""
    if len(body) > MAX_QUERY_SIZE:
        raise BadRequestError(f"a query may be at most {MAX_QUERY_SIZE} bytes long")
    return Fields.parse(body).members


def cluster_request(body: bytes) -> ClusterRequest:
    """What to cluster in one topic."""
    return _cluster_request(Fields.parse(body))


def _cluster_request(fields: Fields) -> ClusterRequest:
    window = Fields(fields.optional_object("timestamp_range"))
    return ClusterRequest.parse(
        TopicLocator.parse(fields.text("locator")),
        fields.optional_object("ontology"),
        fields.optional_integer("clustering_dt_ns") or 0,
        TimeWindow(window.optional_integer("start_ns"), window.optional_integer("end_ns")),
    )


def query_result(sequences: list[MatchingSequence]) -> dict[str, Any]:
    """Sequences with their topics; with the interval of matching rows where the query asked for it."""
    return {
        "items": [
            {"sequence": sequence.name, "topics": [_matching_topic(topic) for topic in sequence.topics]}
            for sequence in sequences
        ]
    }


def _matching_topic(topic: MatchingTopic) -> dict[str, Any]:
    shown: dict[str, Any] = {"locator": str(topic.locator), "ontology_tag": topic.ontology_tag}
    if topic.interval is not None:
        shown["timestamp_range"] = [topic.interval.start_ns, topic.interval.end_ns]
    return shown


def clusters(intervals: Iterable[TimeInterval]) -> Iterator[dict[str, Any]]:
    """Numbered intervals, each the response of a result of its own."""
    for number, interval in enumerate(intervals):
        yield {"ts": {"start_ns": interval.start_ns, "end_ns": interval.end_ns}, "id": number}


def envelope(action: str, response: dict[str, Any] | None) -> bytes:
    """The body of an action's result; `response` is None for actions that return nothing."""
    return encode({"action": action, "response": response})


def version() -> dict[str, Any]:
    major, minor, patch = PROTOCOL_VERSION
    semver = {"major": major, "minor": minor, "patch": patch, "pre": None}
    return {"version": f"{major}.{minor}.{patch}", "semver": semver}


def info(settings: Settings) -> dict[str, Any]:
    """The handshake (protocol section 3); all sizes in bytes."""
    return version() | {
        "config": {
            "grpc_max_decode_message_size": settings.max_grpc_message_size,
            "grpc_max_encode_message_size": MAX_ENCODE_MESSAGE_SIZE,
            "grpc_target_encode_message_size": settings.target_message_size,
        }
    }


def session_created(session: SessionRecord) -> dict[str, Any]:
    # Exactly these keys: clients take any other for a programming error.
    return {"uuid": session.uuid, "locator": str(session.locator)}


def topic_created(topic_uuid: str) -> dict[str, Any]:
    return {"uuid": topic_uuid}


def notification_list(notifications: list[NotificationRecord]) -> dict[str, Any]:
    return {
        "notifications": [
            {
                "name": notification.name,
                "notification_type": notification.notification_type,
                "msg": notification.message,
                "created_datetime": _datetime_text(notification.created_at_ns),
            }
            for notification in notifications
        ]
    }


def _datetime_text(unix_ns: int) -> str:
    """`2026-10-08 12:30:00.123456 UTC`; six digits because the parsers of Python 3.10 refuse nine."""
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=unix_ns // 1000)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f UTC")
