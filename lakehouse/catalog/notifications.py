"""Notes that clients leave on sequences and topics, typically about a failed upload.

They are rows of the control plane, and of an Iceberg table in the same commit: so they are not lost with the database.
"""

import time
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select
from sqlalchemy.exc import IntegrityError

from lakehouse.catalog import audit
from lakehouse.catalog.commits.committer import Committer
from lakehouse.catalog.commits.metadata_tables import MetadataTables
from lakehouse.catalog.commits.plan import CommitPlan, StalePlanError
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_sequence, find_topic
from lakehouse.catalog.control_plane.schema import notifications
from lakehouse.catalog.errors import BadRequestError, NotFoundError, quoted
from lakehouse.catalog.locators import SessionLocator, TopicLocator, check_text
from lakehouse.catalog.records import NotificationRecord

NOTIFICATION_TYPES = ("error",)
MAX_MESSAGE_LENGTH = 1 << 20


class Notifications:
    """Creates, lists and purges notifications. A resource is a sequence name or a topic locator."""

    def __init__(self, database: Database, committer: Committer, metadata_tables: MetadataTables) -> None:
        self._database = database
        self._committer = committer
        self._metadata_tables = metadata_tables

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
        sequence, path = (resource, None) if isinstance(resource, str) else (resource.sequence, resource.path)
        record = NotificationRecord(sequence, path, notification_type, message, time.time_ns())

        def prepare() -> CommitPlan:
            with self._database.snapshot() as connection:
                target = _existing(connection, resource)
            plan = self._metadata_tables.note(record, target.session)

            def apply(connection: Connection) -> None:
                if _existing(connection, resource) != target:
                    raise StalePlanError
                try:
                    _insert(connection, record, target)
                except IntegrityError:
                    # Deleted since it was found.
                    raise _not_found(resource) from None

            return CommitPlan(plan.changes, apply)

        self._committer.commit(prepare)

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
        with self._database.snapshot() as connection:
            target = _target(connection, resource)
            has_notes = target is not None and connection.scalar(
                select(exists(notifications.c.id).where(_notes_on(target)))
            )
        if target is None or not has_notes:
            return

        actor = audit.current_actor()

        def apply(connection: Connection) -> None:
            purged = connection.execute(delete(notifications).where(_notes_on(target))).rowcount
            audit.record(connection, "notification_purge", resource, actor=actor, notifications=purged)

        self._committer.commit(lambda: CommitPlan(self._metadata_tables.remove_notes(resource).changes, apply))


@dataclass(frozen=True)
class _Target:
    """What carries notes: row ids, and the session of the topic if it is one."""

    sequence_id: int
    topic_id: int | None
    session: SessionLocator | None


def _insert(connection: Connection, record: NotificationRecord, target: _Target) -> None:
    connection.execute(
        insert(notifications).values(
            sequence_id=target.sequence_id,
            topic_id=target.topic_id,
            notification_type=record.notification_type,
            message=record.message,
            created_at_ns=record.created_at_ns,
        )
    )


def _notes_on(target: _Target) -> ColumnElement[bool]:
    return and_(
        notifications.c.sequence_id == target.sequence_id,
        notifications.c.topic_id.is_not_distinct_from(target.topic_id),
    )


def _existing(connection: Connection, resource: str | TopicLocator) -> _Target:
    target = _target(connection, resource)
    if target is None:
        raise _not_found(resource)
    return target


def _not_found(resource: str | TopicLocator) -> NotFoundError:
    return NotFoundError("sequence" if isinstance(resource, str) else "topic", resource)


def _target(connection: Connection, resource: str | TopicLocator) -> _Target | None:
    if isinstance(resource, TopicLocator):
        topic = find_topic(connection, resource)
        return None if topic is None else _Target(topic.sequence_id, topic.id, topic.session_locator)
    sequence = find_sequence(connection, resource)
    return None if sequence is None else _Target(sequence.id, None, None)
