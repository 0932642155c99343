"""What came of a recording."""

from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.orchestration.recordings.recording import SourceFile

NO_MESSAGES = "The recording holds no messages"


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What came of one topic.

    Attributes:
        topic: Path in the lake.
        original_topic: Name in the recording.
        message_type: As recorded; empty if the recording knows none.
        ontology_tag: Of the topic; empty if no message of it could be stored.
        expected: Messages according to the container's own index; None if it has none.
        found: Messages in the data.
        decoded: Messages that became rows.
        stored: Rows the lake has made durable; always equal to `decoded`.
        failed: Messages without a row, missing ones included.
        reasons: Why -> how many messages.
        notes: What else is worth knowing, for people.
        start_ns: Smallest timestamp, Unix ns; None without rows.
        end_ns: Largest timestamp, Unix ns; None without rows.
        total_bytes: Size of the stored files.
        files: Number of stored files.
    """

    topic: str
    original_topic: str
    message_type: str
    ontology_tag: str
    expected: int | None
    found: int
    decoded: int
    stored: int
    failed: int
    reasons: Mapping[str, int]
    notes: tuple[str, ...]
    start_ns: int | None
    end_ns: int | None
    total_bytes: int
    files: int

    @property
    def rows(self) -> int:
        """Rows of the topic in the lake."""
        return self.stored


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of one recording.

    Attributes:
        sequence: Name of the sequence.
        session: Locator of the session; None if the recording holds no messages.
        topics: One report per recorded topic, in the order of the recording; those without messages included.
        extra_topics: Topics that hold what is not in messages: send times, attachments.
        source_files: The files that were read.
        damages: What was broken in the container and is therefore missing.
        already_ingested: True if the sequence held this very recording before, and nothing was done.
        duration_s: Seconds it took.
    """

    sequence: str
    session: str | None
    topics: list[TopicReport]
    extra_topics: list[TopicReport]
    source_files: list[SourceFile]
    damages: tuple[str, ...]
    already_ingested: bool
    duration_s: float

    @property
    def rows(self) -> int:
        return sum(topic.stored for topic in self.topics)

    @property
    def failed(self) -> int:
        """Messages without a row, over all topics."""
        return sum(topic.failed for topic in self.topics)

    @property
    def is_complete(self) -> bool:
        """Whether every message of the recording is in the lake."""
        return not self.failed and not self.damages
