"""What the control plane knows about sequences, sessions and topics, as plain immutable records."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lakehouse.catalog.locators import SessionLocator, TopicLocator
from lakehouse.catalog.time_window import TimeInterval


class SessionState(StrEnum):
    """Where a session is in its life.

    A session is `COMMITTING` while its tables are committed to one by one, by a catalog that cannot commit them in the
    transaction of our own records: topics are sealed, readers are still served from the recorded files, and the way
    leads only forward.

    `QUARANTINED` is a session that was judged before its commit and may not be committed: it is sealed too, and either
    released into its commit, or discarded.
    """

    OPEN = "open"
    QUARANTINED = "quarantined"
    COMMITTING = "committing"
    FINALIZED = "finalized"


class TopicState(StrEnum):
    EMPTY = "empty"
    UPLOADING = "uploading"
    FINALIZED = "finalized"


class SerializationFormat(StrEnum):
    """A storage hint; never changes what is on the wire (protocol section 11.5)."""

    DEFAULT = "default"
    RAGGED = "ragged"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    id: int
    name: str
    user_metadata: dict[str, Any]
    created_at_ns: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session.

    Attributes:
        quarantine_reason, quarantined_at_ns: Why, and since when, it is in quarantine; None if it is not.
    """

    id: int
    sequence_id: int
    locator: SessionLocator
    uuid: str
    public_uuid: str
    state: SessionState
    created_at_ns: int
    completed_at_ns: int | None
    quarantine_reason: str | None = None
    quarantined_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """One topic.

    Attributes:
        arrow_schema: IPC bytes of the exact uploaded schema; None before the upload began.
        table_identifier: `namespace.table` of the Iceberg table; None before the upload began.
        interval: Smallest and largest timestamp present; None without rows.
        total_bytes: Sum of the stored file sizes.
        session_is_finalized: Whether the rows are in the Iceberg table (else in recorded, unpublished files).
    """

    id: int
    sequence_id: int
    session_id: int
    locator: TopicLocator
    session_locator: SessionLocator
    session_is_finalized: bool
    uuid: str
    ontology_tag: str
    serialization_format: SerializationFormat
    user_metadata: dict[str, Any]
    state: TopicState
    created_at_ns: int
    completed_at_ns: int | None
    arrow_schema: bytes | None
    table_identifier: str | None
    row_count: int
    total_bytes: int
    chunk_count: int
    interval: TimeInterval | None


@dataclass(frozen=True, slots=True)
class NotificationRecord:
    """A note on a sequence, or on a topic when `topic_path` is given."""

    sequence: str
    topic_path: str | None
    notification_type: str
    message: str
    created_at_ns: int

    @property
    def name(self) -> str:
        return self.sequence if self.topic_path is None else f"{self.sequence}/{self.topic_path}"
