"""The actions of DoAction: one table from the name to the permission it needs and the function that answers it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lakehouse.catalog.access.permissions import Permission
from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator
from lakehouse.flight_gateway import payloads
from lakehouse.flight_gateway.limits import RequestLimits

Response = dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        answer: From the lakehouse and the request body to the `response` member of the result; None for nothing. An
            action that answers in pieces returns an iterator of them, each the `response` of a result of its own.
    """

    permission: Permission
    answer: Callable[[Lakehouse, bytes], Response | Iterator[Response]]

    def responses(self, lakehouse: Lakehouse, body: bytes, limits: RequestLimits) -> Iterator[Response]:
        """The `response` members of all results. Errors of the request itself come before the first.

        Only searches look at the time limit: what changes the lake must not stop half-way.
        """
        answered = limits.timed(lambda: self.answer(lakehouse, body))
        return limits.timed_results(answered) if isinstance(answered, Iterator) else iter((answered,))


def find_action(name: str) -> Action:
    """The action of that name.

    Raises:
        BadRequestError: If the protocol has none.
    """
    try:
        return ACTIONS[name]
    except KeyError:
        raise BadRequestError(f"unknown action {quoted(name)}") from None


def _info(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.info(lakehouse.settings)


def _version(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.version()


def _sequence_create(lakehouse: Lakehouse, body: bytes) -> Response:
    request = payloads.SequenceCreate.parse(body)
    lakehouse.sequences.create(request.name, request.user_metadata)
    return None


def _sequence_delete(lakehouse: Lakehouse, body: bytes) -> Response:
    lakehouse.sequences.delete(payloads.SequenceReference.parse(body).name)
    return None


def _session_create(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.session_created(lakehouse.sessions.create(payloads.SequenceReference.parse(body).name))


def _session_finalize(lakehouse: Lakehouse, body: bytes) -> Response:
    lakehouse.sessions.finalize(payloads.SessionFinalize.parse(body).session_uuid)
    return None


def _session_delete(lakehouse: Lakehouse, body: bytes) -> Response:
    session = payloads.SessionDelete.parse(body).session
    if isinstance(session, SessionLocator):
        lakehouse.sessions.delete(session)
    else:
        lakehouse.sessions.delete_by_uuid(session)
    return None


def _topic_create(lakehouse: Lakehouse, body: bytes) -> Response:
    request = payloads.TopicCreate.parse(body)
    return payloads.topic_created(
        lakehouse.topics.create(
            request.session_uuid,
            request.locator,
            request.serialization_format,
            request.ontology_tag,
            request.user_metadata,
        )
    )


def _topic_delete(lakehouse: Lakehouse, body: bytes) -> Response:
    lakehouse.topics.delete(payloads.TopicReference.parse(body).locator)
    return None


def _sequence_notification_create(lakehouse: Lakehouse, body: bytes) -> Response:
    sequence, note = payloads.SequenceReference.parse(body), payloads.NotificationText.parse(body)
    lakehouse.notifications.create(sequence.name, note.notification_type, note.message)
    return None


def _sequence_notification_list(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.notification_list(lakehouse.notifications.list(payloads.SequenceReference.parse(body).name))


def _sequence_notification_purge(lakehouse: Lakehouse, body: bytes) -> Response:
    lakehouse.notifications.purge(payloads.SequenceReference.parse(body).name)
    return None


def _topic_notification_create(lakehouse: Lakehouse, body: bytes) -> Response:
    topic, note = payloads.TopicReference.parse(body), payloads.NotificationText.parse(body)
    lakehouse.notifications.create(topic.locator, note.notification_type, note.message)
    return None


def _topic_notification_list(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.notification_list(lakehouse.notifications.list(payloads.TopicReference.parse(body).locator))


def _topic_notification_purge(lakehouse: Lakehouse, body: bytes) -> Response:
    lakehouse.notifications.purge(payloads.TopicReference.parse(body).locator)
    return None


def _query(lakehouse: Lakehouse, body: bytes) -> Response:
    return payloads.query_result(lakehouse.query(payloads.query_request(body)))


def _topic_filter_clusterize(lakehouse: Lakehouse, body: bytes) -> Iterator[Response]:
    return payloads.clusters(lakehouse.queries.clusterize(payloads.cluster_request(body)))


def _topic_filter_intersect(lakehouse: Lakehouse, body: bytes) -> Iterator[Response]:
    request = payloads.TopicIntersection.parse(body)
    return payloads.clusters(lakehouse.queries.intersect(request.topics, request.intersect_dt_ns))


ACTIONS: dict[str, Action] = {
    "info": Action(Permission.ANY, _info),
    "version": Action(Permission.ANY, _version),
    "sequence_create": Action(Permission.WRITE, _sequence_create),
    "sequence_delete": Action(Permission.DELETE, _sequence_delete),
    "session_create": Action(Permission.WRITE, _session_create),
    "session_finalize": Action(Permission.WRITE, _session_finalize),
    "session_delete": Action(Permission.DELETE, _session_delete),
    "topic_create": Action(Permission.WRITE, _topic_create),
    "topic_delete": Action(Permission.DELETE, _topic_delete),
    "sequence_notification_create": Action(Permission.WRITE, _sequence_notification_create),
    "sequence_notification_list": Action(Permission.READ, _sequence_notification_list),
    "sequence_notification_purge": Action(Permission.DELETE, _sequence_notification_purge),
    "topic_notification_create": Action(Permission.WRITE, _topic_notification_create),
    "topic_notification_list": Action(Permission.READ, _topic_notification_list),
    "topic_notification_purge": Action(Permission.DELETE, _topic_notification_purge),
    "query": Action(Permission.READ, _query),
    "topic_filter_clusterize": Action(Permission.READ, _topic_filter_clusterize),
    "topic_filter_intersect": Action(Permission.READ, _topic_filter_intersect),
}
