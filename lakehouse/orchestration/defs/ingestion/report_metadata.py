"""The report on a recording as metadata of an asset, what an operator asks first at the top."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lakehouse.catalog.records import TopicRecord
from lakehouse.orchestration.recordings.report import IngestReport, TopicReport

Metadata = dict[str, dg.MetadataValue[Any]]
NO_SESSION = "none: the recording holds no messages"


def report_metadata(report: IngestReport) -> Metadata:
    """The ingest report as Dagster metadata, what an operator asks first at the top.

    Totals, a table with one row per topic, the source files; if it applies, what is `missing` and why, and `remarks`.
    """
    topics = [*report.topics, *report.extra_topics]
    starts = [topic.start_ns for topic in topics if topic.start_ns is not None]
    ends = [topic.end_ns for topic in topics if topic.end_ns is not None]
    metadata: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(report.rows),
        "undecoded_messages": dg.MetadataValue.int(report.failed),
    }
    if missing := complaints(report):
        metadata["missing"] = _list(missing)
    if remarks := [f"{topic.topic}: {note}" for topic in report.topics for note in topic.notes]:
        metadata["remarks"] = _list(remarks)
    if starts:
        metadata["recorded_from"] = dg.MetadataValue.text(utc(min(starts)))
        metadata["recorded_to"] = dg.MetadataValue.text(utc(max(ends)))
    return metadata | {
        "bytes": dg.MetadataValue.int(sum(topic.total_bytes for topic in topics)),
        "topics": dg.MetadataValue.table([_topic_row(topic) for topic in topics], schema=TOPIC_TABLE),
        "sequence": dg.MetadataValue.text(report.sequence),
        "session": dg.MetadataValue.text(report.session or NO_SESSION),
        "source_files": _list(
            [f"{file.name}, {file.size:,} bytes, SHA-256 {file.sha256}" for file in report.source_files]
        ),
    }


def commit_metadata(topics: Sequence[TopicRecord], session: str | None) -> Metadata:
    """What a commit made visible; without a session if the recording holds no messages."""
    intervals = [topic.interval for topic in topics if topic.interval is not None]
    metadata: Metadata = {
        "dagster/row_count": dg.MetadataValue.int(sum(topic.row_count for topic in topics)),
        "session": dg.MetadataValue.text(session or NO_SESSION),
        "topics": dg.MetadataValue.int(len(topics)),
        "bytes": dg.MetadataValue.int(sum(topic.total_bytes for topic in topics)),
    }
    if intervals:
        start_ns = min(interval.start_ns for interval in intervals)
        end_ns = max(interval.end_ns for interval in intervals)
        metadata["seconds"] = dg.MetadataValue.float(round((end_ns - start_ns) / 1e9, 3))
    return metadata


def complaints(report: IngestReport) -> list[str]:
    """What of the recording is not in the lake, and why."""
    return [f"damaged: {damage}" for damage in report.damages] + [
        f"{topic.topic}: {count:,} messages not stored: {reason}"
        for topic in report.topics
        for reason, count in topic.reasons.items()
    ]


def _list(lines: list[str]) -> dg.MetadataValue[Any]:
    """Lines one below the other, none of their characters taken for Markdown."""
    return dg.MetadataValue.md("\n".join(f"- {_MARKDOWN.sub(_escape, line)}" for line in lines))


_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~]")


def _escape(character: re.Match[str]) -> str:
    return "\\" + character.group()


TOPIC_TABLE = dg.TableSchema(
    columns=[
        dg.TableColumn("topic", description="Path in the lake"),
        dg.TableColumn("rows", "int", description="Rows stored"),
        dg.TableColumn("recorded", "int", description="Messages according to the recording's own index, if it has one"),
        dg.TableColumn("undecoded", "int", description="Messages without a row"),
        dg.TableColumn("type", description="Ontology tag"),
        dg.TableColumn("seconds", "float", description="From the first to the last message"),
        dg.TableColumn("bytes", "int", description="Size of the stored files"),
        dg.TableColumn("message type", description="As recorded"),
    ]
)


def _topic_row(topic: TopicReport) -> dg.TableRecord:
    seconds = None if topic.start_ns is None or topic.end_ns is None else (topic.end_ns - topic.start_ns) / 1e9
    return dg.TableRecord(
        {
            "topic": topic.topic,
            "rows": topic.rows,
            "recorded": topic.expected,
            "undecoded": topic.failed,
            "type": topic.ontology_tag,
            "seconds": seconds if seconds is None else round(seconds, 3),
            "bytes": topic.total_bytes,
            "message type": topic.message_type,
        }
    )


def utc(unix_ns: int) -> str:
    """ISO 8601 with all nanoseconds; the plain number where the calendar ends."""
    try:
        moment = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ns} ns"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ns % 1_000_000_000:09d}Z"
