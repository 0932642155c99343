"""What a recording holds besides the payloads of its messages, as topics of their own."""

from __future__ import annotations

import pyarrow as pa

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SerializationFormat, SessionRecord
from lakehouse.catalog.topics import Upload
from lakehouse.orchestration.recordings.decoding.decoded import Indices
from lakehouse.orchestration.recordings.recording import LARGEST_TIME_NS, Attachment, RawMessages
from lakehouse.orchestration.recordings.report import TopicReport

MESSAGE_TIMES_TOPIC = "recording/message_times"
MESSAGE_TIMES_SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("topic", pa.string()),
        pa.field("publish_time_ns", pa.int64()),
        pa.field("sequence_number", pa.uint32()),
    ]
)
ATTACHMENTS_TOPIC = "recording/attachments"
ATTACHMENTS_SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("media_type", pa.string()),
        pa.field("create_time_ns", pa.int64()),
        pa.field("data", pa.binary()),
    ]
)


class ExtraTopic:
    """A topic that no channel of the recording corresponds to. It is created with its first row."""

    def __init__(
        self,
        lakehouse: Lakehouse,
        session: SessionRecord,
        path: str,
        ontology_tag: str,
        schema: pa.Schema,
        description: str,
    ) -> None:
        self._lakehouse = lakehouse
        self._session = session
        self._locator = TopicLocator(session.locator.sequence, path)
        self._tag = ontology_tag
        self._schema = schema
        self._description = description
        self._upload: Upload | None = None

    def write_columns(self, columns: list[pa.Array]) -> None:
        """Store rows given as one array per column."""
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        if not batch.num_rows:
            return
        if self._upload is None:
            metadata = {"recording": {"description": self._description}}
            topic_uuid = self._lakehouse.topics.create(
                self._session.uuid, self._locator, SerializationFormat.DEFAULT, self._tag, metadata
            )
            self._upload = self._lakehouse.topics.begin_upload(self._locator, topic_uuid, self._schema)
        self._upload.write(batch)

    def finish(self) -> TopicReport | None:
        """Make the topic durable; None if it has no row and therefore does not exist."""
        if self._upload is None:
            return None
        result = self._upload.finish()
        interval = result.interval
        return TopicReport(
            topic=self._locator.path,
            original_topic="",
            message_type="",
            ontology_tag=self._tag,
            expected=None,
            found=result.row_count,
            decoded=result.row_count,
            stored=result.row_count,
            failed=0,
            reasons={},
            notes=(self._description,),
            start_ns=interval.start_ns if interval else None,
            end_ns=interval.end_ns if interval else None,
            total_bytes=result.total_bytes,
            files=len(result.entries),
        )

    def abort(self) -> None:
        """Remove what was written."""
        if self._upload is not None:
            self._upload.abort()


class MessageTimesTopic(ExtraTopic):
    """When messages were sent, for topics whose columns have no place for it: one row per message that was sent at
    another time than it was recorded. `topic` and `timestamp_ns` say which message; equal ones are in stored order."""

    def __init__(self, lakehouse: Lakehouse, session: SessionRecord, path: str) -> None:
        super().__init__(
            lakehouse,
            session,
            path,
            "MessageTimes",
            MESSAGE_TIMES_SCHEMA,
            "When messages were sent, where that differs from when they were recorded",
        )

    def write(self, topic_path: str, block: RawMessages, rows: Indices) -> None:
        """Note the times of those messages of a block that became rows."""
        if block.publish_time_ns is None or block.sequence is None:
            return
        log_times, publish_times = block.log_time_ns[rows], block.publish_time_ns[rows]
        differs = log_times != publish_times
        self.write_columns(
            [
                pa.array(log_times[differs]),
                pa.repeat(pa.scalar(topic_path), int(differs.sum())),
                pa.array(publish_times[differs]),
                pa.array(block.sequence[rows][differs]),
            ]
        )


class AttachmentsTopic(ExtraTopic):
    """Files attached to an MCAP recording."""

    def __init__(self, lakehouse: Lakehouse, session: SessionRecord, path: str) -> None:
        super().__init__(lakehouse, session, path, "Attachment", ATTACHMENTS_SCHEMA, "Files attached to the recording")

    def write(self, attachment: Attachment) -> None:
        """Store one file; a time beyond the lake's range becomes the last moment of it."""
        self.write_columns(
            [
                pa.array([min(attachment.log_time_ns, LARGEST_TIME_NS)], pa.int64()),
                pa.array([attachment.name]),
                pa.array([attachment.media_type]),
                pa.array([min(attachment.create_time_ns, LARGEST_TIME_NS)], pa.int64()),
                pa.array([attachment.data], pa.binary()),
            ]
        )
