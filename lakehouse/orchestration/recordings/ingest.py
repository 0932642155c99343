"""A recording in, a finalized session and a report out: upload and commit in one go, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lakehouse.catalog.errors import NotFoundError, QuarantinedError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.recordings.commit import commit_upload
from lakehouse.orchestration.recordings.report import IngestReport
from lakehouse.orchestration.recordings.upload import Progress, upload_recording


def ingest_recording(
    lakehouse: Lakehouse,
    path: Path | str,
    *,
    sequence_name: str | None = None,
    user_metadata: dict[str, Any] | None = None,
    progress: Progress | None = None,
    topics: Sequence[str] | None = None,
) -> IngestReport:
    """Ingest one recording as one sequence with one finalized session. Arguments are those of `upload_recording`.

    Returns:
        What came of it. If the lake holds this very recording, under whatever name, nothing is done and the report
        tells which sequence it is.

    Raises:
        QuarantinedError: If its session breaks a contract and was put in quarantine, where it stays.
        LakehouseError: What `upload_recording` and `commit_upload` raise; nothing is left of the recording then.
    """
    report = upload_recording(
        lakehouse, path, sequence_name=sequence_name, user_metadata=user_metadata, progress=progress, topics=topics
    )
    try:
        commit_upload(lakehouse, report.sequence)
    except QuarantinedError:
        raise  # kept for an operator to look at
    except BaseException:
        if not report.already_ingested:
            with suppress(NotFoundError):
                lakehouse.sequences.delete(report.sequence)
        raise
    return report
