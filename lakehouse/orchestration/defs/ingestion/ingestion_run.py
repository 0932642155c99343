"""One recording ingested inside a Dagster run: progress to the log, the report as metadata."""

import time
from pathlib import Path
from typing import Any

import dagster as dg

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.recordings.ingest import IngestReport, ingest_recording

PROGRESS_INTERVAL_S = 5.0


def ingest_one(
    lake: Lakehouse, path: Path, log: dg.DagsterLogManager, *, sequence_name: str | None = None
) -> dict[str, dg.MetadataValue[Any]]:
    """Ingest a recording and describe the result for the asset catalog.

    Raises:
        LakehouseError: If the recording is refused; nothing is left behind.
    """
    last_shown = time.monotonic()

    def show_progress(done: int, total: int | None) -> None:
        nonlocal last_shown
        if time.monotonic() - last_shown >= PROGRESS_INTERVAL_S:
            last_shown = time.monotonic()
            log.info(f"{path.name}: {done:,} of {total:,} messages" if total else f"{path.name}: {done:,} messages")

    report = ingest_recording(lake, path, sequence_name=sequence_name, progress=show_progress)
    return report_metadata(report)


def report_metadata(report: IngestReport) -> dict[str, dg.MetadataValue[Any]]:
    """The ingest report as Dagster metadata: totals, source files, and a table with one row per topic."""
    topics = report.topics
    return {
        "dagster/row_count": dg.MetadataValue.int(sum(topic.rows for topic in topics)),
        "bytes": dg.MetadataValue.int(sum(topic.total_bytes for topic in topics)),
        "sequence": dg.MetadataValue.text(report.sequence),
        "session": dg.MetadataValue.text(report.session or "-"),
        "source_files": dg.MetadataValue.json(
            [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in report.source_files]
        ),
        "undecoded_messages": dg.MetadataValue.int(sum(topic.failed for topic in topics)),
        "topics": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "topic": topic.topic,
                        "ontology tag": topic.ontology_tag,
                        "message type": topic.message_type,
                        "in recording": topic.expected if topic.expected is not None else -1,
                        "rows": topic.rows,
                        "undecoded": topic.failed,
                        "reasons": "; ".join(topic.reasons),
                        "bytes": topic.total_bytes,
                    }
                )
                for topic in topics
            ]
        ),
    }
