"""The second half of an ingestion: what was uploaded into an open session becomes visible to every reader."""

from dataclasses import dataclass

from lakehouse.catalog.errors import StateError, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.recordings.present import PresentRecording, Stage, find_ingested


@dataclass(frozen=True, slots=True)
class CommitReport:
    """What came of committing an uploaded recording.

    Attributes:
        sequence: Its sequence.
        session: Locator of its session; None if the recording holds no messages.
        already_committed: True if there was nothing left to do.
    """

    sequence: str
    session: str | None
    already_committed: bool


def commit_upload(lakehouse: Lakehouse, sequence_name: str) -> CommitReport:
    """Finalize the session that `upload_recording` left open; nothing happens if it is finalized already.

    Raises:
        NotFoundError: If there is no such sequence.
        StateError: If it was not made from a recording, or its upload broke off.
        CommitConflictError: If other writers kept winning the race for its tables.
        StorageError: If the database or the warehouse fails; the session stays open then.
    """
    present = find_ingested(lakehouse, sequence_name)
    session = present.session
    if present.stage is Stage.BROKEN:
        raise StateError(
            f"the upload of sequence {quoted(sequence_name)} broke off: wait if it is still running, "
            "else ingest the recording again"
        )
    if session is None or present.stage is Stage.COMMITTED:
        return _report(present, already_committed=True)
    try:
        lakehouse.sessions.finalize(session.uuid)
    except StateError:
        if find_ingested(lakehouse, sequence_name).stage is not Stage.COMMITTED:
            raise
        return _report(present, already_committed=True)  # somebody else was faster
    return _report(present, already_committed=False)


def _report(present: PresentRecording, *, already_committed: bool) -> CommitReport:
    session = None if present.session is None else str(present.session.locator)
    return CommitReport(present.sequence, session, already_committed)
