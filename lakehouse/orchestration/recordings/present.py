"""What of a recording is in the lake already: the sequence of its name, or another one of the same content.

A content hash names a recording; the name of its file does not. Whoever uploads one holds a lease on its hash, so that
of two processes one uploads and the other finds it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from lakehouse.catalog.errors import NotFoundError, StateError, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.recording_losses import RECORDING_KEY, losses_of
from lakehouse.catalog.records import SessionRecord, SessionState, TopicState
from lakehouse.catalog.sequences import SequenceDescription
from lakehouse.orchestration.recordings.errors import ChangedRecordingError, IngestionRunningError
from lakehouse.orchestration.recordings.lineage import (
    CONTENT_HASH_PATH,
    content_hash,
    ingested_content_hash,
    ingested_selection,
)
from lakehouse.orchestration.recordings.recording import Recording
from lakehouse.orchestration.recordings.report import NO_MESSAGES, IngestReport, TopicReport

LEASE_S = 300.0
_RENEWAL_S = 30.0


class Stage(Enum):
    """How far the ingestion of a recording has come."""

    BROKEN = "its upload broke off"
    EMPTY = "it holds no messages, and there is nothing to commit"
    UPLOADED = "everything is uploaded into an open session"
    COMMITTED = "its session is finalized"


@dataclass(frozen=True, slots=True)
class PresentRecording:
    """A recording that is in the lake.

    Attributes:
        session: The session of the ingestion; None if it made none.
    """

    description: SequenceDescription
    stage: Stage
    session: SessionRecord | None

    @property
    def sequence(self) -> str:
        return self.description.sequence.name


@contextmanager
def sole_ingestion(lakehouse: Lakehouse, recording: Recording) -> Iterator[Callable[[], None]]:
    """Be the only one who ingests a recording of this content.

    Yields:
        A function to call while working, as often as one likes: it extends the lease.

    Raises:
        IngestionRunningError: If another process has the lease; from the function: if it has been taken over.
    """
    lease = Lease(lakehouse.database, f"ingest {content_hash(recording.source)}", LEASE_S)
    if not lease.hold():
        raise IngestionRunningError(recording.name)
    renewed = time.monotonic()

    def keep() -> None:
        nonlocal renewed
        if time.monotonic() - renewed < _RENEWAL_S:
            return
        renewed = time.monotonic()
        if not lease.hold():
            raise IngestionRunningError(recording.name)

    try:
        yield keep
    finally:
        lease.release()


def find_present(
    lakehouse: Lakehouse, name: str, recording: Recording, selection: Sequence[str] | None
) -> PresentRecording | None:
    """What the lake holds of a recording, under `name` or any other; None if nothing stands in its way.

    Raises:
        AlreadyExistsError: If the sequence `name` holds something else; a `ChangedRecordingError` if it was made from
            an earlier content of the same file.
        StateError: If the sequence `name` was made from other topics of this recording.
    """
    wanted = None if selection is None else sorted(selection)
    named = _describe(lakehouse, name)
    if named is not None:
        _check_same_content(named, recording)
        taken = ingested_selection(named.sequence)
        if taken != wanted:
            held = "all topics" if taken is None else f"the topics {', '.join(taken)}"
            raise StateError(
                f"sequence {quoted(name)} holds {held} of this recording: "
                "give another sequence name, or delete the sequence and ingest again"
            )
        return _present(lakehouse, named)
    for sequence in lakehouse.sequences.with_metadata(CONTENT_HASH_PATH, content_hash(recording.source)):
        if ingested_selection(sequence) == wanted:
            other = _describe(lakehouse, sequence.name)
            if other is not None:
                return _present(lakehouse, other)
    return None


def find_ingested(lakehouse: Lakehouse, sequence_name: str) -> PresentRecording:
    """The recording a sequence was made from.

    Raises:
        NotFoundError: If there is no such sequence.
        StateError: If it was not made from a recording.
    """
    description = lakehouse.sequences.describe(sequence_name)
    if ingested_content_hash(description.sequence) is None:
        raise StateError(
            f"sequence {quoted(sequence_name)} was not made from a recording: "
            "its session belongs to the client that opened it"
        )
    return _present(lakehouse, description)


def _describe(lakehouse: Lakehouse, name: str) -> SequenceDescription | None:
    try:
        return lakehouse.sequences.describe(name)
    except NotFoundError:
        return None


def _check_same_content(present: SequenceDescription, recording: Recording) -> None:
    ours = content_hash(recording.source)
    if ingested_content_hash(present.sequence) != ours:
        block = present.sequence.user_metadata.get(RECORDING_KEY)
        was = block.get("name") if isinstance(block, dict) else None
        raise ChangedRecordingError(present.sequence.name, recording.name, same_file=was == recording.name)


def _present(lakehouse: Lakehouse, description: SequenceDescription) -> PresentRecording:
    session = next(
        (item for item in description.sessions if item.state is SessionState.FINALIZED),
        next(iter(description.sessions), None),
    )
    return PresentRecording(description, _stage(lakehouse, description, session), session)


def _stage(lakehouse: Lakehouse, description: SequenceDescription, session: SessionRecord | None) -> Stage:
    if session is None:
        notes = lakehouse.notifications.list(description.sequence.name)
        return Stage.EMPTY if any(note.message == NO_MESSAGES for note in notes) else Stage.BROKEN
    if session.state is SessionState.FINALIZED:
        return Stage.COMMITTED
    if session.state is not SessionState.OPEN:
        return Stage.UPLOADED
    # Topics are begun with their first message and ended after the last message of all: when every one has ended,
    # nothing is missing.
    topics = [topic for topic in description.topics if topic.session_id == session.id]
    is_whole = bool(topics) and all(topic.state is TopicState.FINALIZED for topic in topics)
    return Stage.UPLOADED if is_whole else Stage.BROKEN


def report_present(present: PresentRecording, recording: Recording, started: float) -> IngestReport:
    """The report on a recording that is in the lake already."""
    losses = losses_of(present.description.sequence.user_metadata, ())
    reports = []
    for topic in present.description.topics:
        block = topic.user_metadata.get(RECORDING_KEY, {})
        reports.append(
            TopicReport(
                topic=topic.locator.path,
                original_topic=block.get("topic", ""),
                message_type=block.get("message_type", ""),
                ontology_tag=topic.ontology_tag,
                expected=block.get("message_count"),
                found=topic.row_count,
                decoded=topic.row_count,
                stored=topic.row_count,
                failed=0,
                reasons={},
                notes=(),
                start_ns=topic.interval.start_ns if topic.interval else None,
                end_ns=topic.interval.end_ns if topic.interval else None,
                total_bytes=topic.total_bytes,
                files=topic.chunk_count,
            )
        )
    return IngestReport(
        sequence=present.sequence,
        session=None if present.session is None else str(present.session.locator),
        topics=[report for report in reports if report.original_topic],
        extra_topics=[report for report in reports if not report.original_topic],
        source_files=recording.source,
        damages=() if losses is None else losses.damages,
        already_ingested=True,
        duration_s=time.monotonic() - started,
    )
