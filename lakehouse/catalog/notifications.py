"""Notes that clients leave on sequences and topics, typically about a failed upload."""

import time

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog import audit
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_sequence, find_topic
from lakehouse.catalog.control_plane.schema import notifications
from lakehouse.catalog.errors import BadRequestError, NotFoundError, quoted
from lakehouse.catalog.locators import TopicLocator, check_text
from lakehouse.catalog.records import NotificationRecord

NOTIFICATION_TYPES = ("error",)
MAX_MESSAGE_LENGTH = 1 << 20


class Notifications:
    """Creates, lists and purges notifications. A resource is a sequence name or a topic locator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, resource: str | TopicLocator, notification_type: str, message: str) -> None:
        """Add a note.

        Raises:
            BadRequestError: If the type is unknown or the message cannot be stored.
            NotFoundError: If the sequence or topic does not exist.
        """
        if notification_type not in NOTIFICATION_TYPES:
            raise BadRequestError(
                f"{quoted(notification_type)} is not a notification type; allowed: {', '.join(NOTIFICATION_TYPES)}"
            )
        check_text("notification message", message, max_length=MAX_MESSAGE_LENGTH)
        not_found = NotFoundError("sequence" if isinstance(resource, str) else "topic", resource)
        with self._database.transaction() as connection:
            target = _target(connection, resource)
            if target is None:
                raise not_found
            sequence_id, topic_id = target
            try:
                connection.execute(
                    insert(notifications).values(
                        sequence_id=sequence_id,
                        topic_id=topic_id,
                        notification_type=notification_type,
                        message=message,
                        created_at_ns=time.time_ns(),
                    )
                )
            except IntegrityError:
                # Deleted since it was found.
                raise not_found from None

    def list(self, resource: str | TopicLocator) -> list[NotificationRecord]:
        """The notes on exactly this resource, oldest first; empty when it does not exist."""
        with self._database.snapshot() as connection:
            target = _target(connection, resource)
            if target is None:
                return []
            rows = connection.execute(select(notifications).where(_notes_on(target)).order_by(notifications.c.id))
            sequence, path = (resource, None) if isinstance(resource, str) else (resource.sequence, resource.path)
            return [
                NotificationRecord(sequence, path, row.notification_type, row.message, row.created_at_ns)
                for row in rows
            ]

    def purge(self, resource: str | TopicLocator) -> None:
        """Remove all notes on exactly this resource; none is fine."""
        with self._database.transaction() as connection:
            if target := _target(connection, resource):
                purged = connection.execute(delete(notifications).where(_notes_on(target))).rowcount
                if purged:
                    audit.record(connection, "notification_purge", resource, notifications=purged)


def _notes_on(target: tuple[int, int | None]) -> ColumnElement[bool]:
    sequence_id, topic_id = target
    return and_(notifications.c.sequence_id == sequence_id, notifications.c.topic_id.is_not_distinct_from(topic_id))


def _target(connection: Connection, resource: str | TopicLocator) -> tuple[int, int | None] | None:
    """Row ids of (sequence, topic) that carry the notes on a resource."""
    if isinstance(resource, TopicLocator):
        topic = find_topic(connection, resource)
        return None if topic is None else (topic.sequence_id, topic.id)
    sequence = find_sequence(connection, resource)
    return None if sequence is None else (sequence.id, None)
