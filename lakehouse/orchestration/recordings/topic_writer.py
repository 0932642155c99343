"""One topic of a recording on its way into the lake."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionRecord
from lakehouse.catalog.topics import Upload
from lakehouse.orchestration.recordings.conversion import Conversion, choose_conversion
from lakehouse.orchestration.recordings.decoding.decoded import Indices
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.lineage import topic_metadata
from lakehouse.orchestration.recordings.recording import Channel, RawMessages, Recording
from lakehouse.orchestration.recordings.report import TopicReport

_SAMPLE = 256

MISSING = "missing in the data, although the recording's index counts them"


class TopicWriter:
    """Converts and uploads the messages of one channel. The topic is created with its first message."""

    def __init__(
        self,
        lakehouse: Lakehouse,
        session: SessionRecord,
        recording: Recording,
        channel: Channel,
        path: str,
        survey: JsonSurvey | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.channel = channel
        self.locator = TopicLocator(session.locator.sequence, path)
        self.conversion: Conversion | None = None
        self._lakehouse = lakehouse
        self._session = session
        self._recording = recording
        self._survey = survey
        self._notes = notes
        self._upload: Upload | None = None
        self._found = 0
        self._decoded = 0
        self._failures: Counter[str] = Counter()

    def write(self, block: RawMessages) -> Indices:
        """Store the messages of a block.

        Returns:
            The positions in the block of the messages that became rows.
        """
        if self.conversion is None:
            self.conversion = choose_conversion(
                self.channel,
                block.payloads[:_SAMPLE],
                has_publish_times=block.publish_time_ns is not None,
                survey=self._survey,
            )
        schema = self.conversion.schema
        if self._upload is None:
            self._upload = self._begin(self.conversion, schema)
        decoded = self.conversion.convert(block.payloads)
        columns: list[pa.Array] = [pa.array(block.log_time_ns[decoded.rows]), *decoded.batch.columns]
        if self.conversion.keeps_publish_time:
            columns.append(
                pa.nulls(len(decoded.rows), pa.int64())
                if block.publish_time_ns is None
                else pa.array(block.publish_time_ns[decoded.rows])
            )
        if len(decoded.rows):
            self._upload.write(pa.RecordBatch.from_arrays(columns, schema=schema))
        self._found += len(block.payloads)
        self._decoded += len(decoded.rows)
        self._failures.update(decoded.failures)
        return decoded.rows

    @property
    def found(self) -> int:
        """Messages in the data, those that could not be handed out included."""
        return self._found + sum(self._unusable.values())

    def failures(self) -> Counter[str]:
        """Why -> how many messages have no row, once all are written."""
        failures = self._failures + self._unusable
        expected = self.channel.message_count
        if expected is not None and expected > self.found:
            failures[MISSING] = expected - self.found
        return failures

    def finish(self) -> TopicReport:
        """Make the topic durable, and leave a notification on it if messages are missing."""
        failures, found, expected = self.failures(), self.found, self.channel.message_count
        notes = list(self._notes)
        if self.conversion and self.conversion.note:
            notes.append(self.conversion.note)
        if expected is not None and found > expected:
            notes.append(f"{found - expected:,} messages more than the recording's index counts")
        result = self._upload.finish() if self._upload else None
        interval = result.interval if result else None
        report = TopicReport(
            topic=self.locator.path,
            original_topic=self.channel.topic,
            message_type=self.channel.message_type,
            ontology_tag=self.conversion.ontology_tag if self.conversion else "",
            expected=expected,
            found=found,
            decoded=self._decoded,
            stored=result.row_count if result else 0,
            failed=failures.total(),
            reasons=dict(failures.most_common()),
            notes=tuple(notes),
            start_ns=interval.start_ns if interval else None,
            end_ns=interval.end_ns if interval else None,
            total_bytes=result.total_bytes if result else 0,
            files=len(result.entries) if result else 0,
        )
        if result and report.failed:
            self._lakehouse.notifications.create(self.locator, "error", describe_failures(report))
        return report

    @property
    def _unusable(self) -> Counter[str]:
        return self._recording.unusable.get(self.channel.id, Counter())

    def abort(self) -> None:
        """Remove what was written."""
        if self._upload:
            self._upload.abort()

    def _begin(self, conversion: Conversion, schema: pa.Schema) -> Upload:
        topic_uuid = self._lakehouse.topics.create(
            self._session.uuid,
            self.locator,
            conversion.serialization_format,
            conversion.ontology_tag,
            topic_metadata(self._recording, self.channel, note=conversion.note),
        )
        return self._lakehouse.topics.begin_upload(self.locator, topic_uuid, schema)


def describe_failures(report: TopicReport) -> str:
    """The failures of a topic as a text for people."""
    reasons = "; ".join(f"{count:,}: {reason}" for reason, count in report.reasons.items())
    return f"{report.failed:,} of {report.stored + report.failed:,} messages could not be stored ({reasons})"
