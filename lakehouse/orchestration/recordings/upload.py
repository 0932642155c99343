"""A recording in, an open session that holds all of it and a report out. `commit.py` finalizes the session.

Everything goes through the catalog's own functions, like an upload through the gateway. Whatever fails: the session and
the sequence made here are deleted again, and nothing is left. What a killed upload left behind is removed by the next
one of the same recording.

A topic's `timestamp_ns` is the time the recorder received the message (bag time, MCAP log time), as in the bridges of
the official SDK. When a message was sent is kept too if the recording says something else about it: in a column
`publish_time_ns` for encodings other than ROS, as the SDK's MCAP bridge does; and for ROS messages, whose columns are
those of the ontology or of the message itself, in the topic `recording/message_times`. Files attached to an MCAP become
rows of the topic `recording/attachments`. Channels without messages become no topic; sequence and report list them.

An intact recording without any message becomes a sequence too, with its metadata, a notification that says so, and no
session, because a session needs a topic.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lakehouse.catalog.errors import LakehouseError, NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import parse_sequence_name
from lakehouse.catalog.recording_losses import RECORDING_KEY, Losses, with_losses
from lakehouse.catalog.records import SessionRecord
from lakehouse.orchestration.recordings.containers import open_recording
from lakehouse.orchestration.recordings.decoding.channels import ROS_ENCODINGS, needs_survey
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.errors import EmptyRecordingError, UnreadableRecordingError
from lakehouse.orchestration.recordings.extras import (
    ATTACHMENTS_TOPIC,
    MESSAGE_TIMES_TOPIC,
    AttachmentsTopic,
    MessageTimesTopic,
)
from lakehouse.orchestration.recordings.lineage import sequence_metadata, storable
from lakehouse.orchestration.recordings.naming import sequence_name_of, topic_path_of
from lakehouse.orchestration.recordings.present import Stage, find_present, report_present, sole_ingestion
from lakehouse.orchestration.recordings.recording import Channel, Recording
from lakehouse.orchestration.recordings.report import NO_MESSAGES, IngestReport, TopicReport
from lakehouse.orchestration.recordings.topic_writer import TopicWriter

Progress = Callable[[int, int | None], None]
"""Called with the messages done so far and all messages, None if the recording does not count them."""


def upload_recording(
    lakehouse: Lakehouse,
    path: Path | str,
    *,
    sequence_name: str | None = None,
    user_metadata: dict[str, Any] | None = None,
    progress: Progress | None = None,
    topics: Sequence[str] | None = None,
) -> IngestReport:
    """Upload one recording as one sequence with one session, which stays open.

    Args:
        lakehouse: Where to.
        path: An MCAP file, a ROS 1 bag, a rosbag2 directory or storage file.
        sequence_name: Name of the sequence; by default made from the file name.
        user_metadata: Added to the metadata of the sequence; the key `recording` is ours.
        progress: Told about every block of messages.
        topics: Names or glob patterns of the recorded topics to take; all by default.

    Returns:
        What came of it. If the lake holds this very recording, under whatever name, nothing is done and the report
        tells which sequence it is.

    Raises:
        UnreadableRecordingError: If the recording is damaged and nothing of it can be salvaged.
        UnsupportedRecordingError: If it is of a kind we do not read.
        EmptyRecordingError: If none of its messages can be stored, or it has none of the topics asked for.
        AlreadyExistsError: If the sequence exists and holds something else.
        StateError: If the sequence was made of other topics of this recording.
        IngestionRunningError: If another process ingests this recording.
        InvalidNameError: If `sequence_name` breaks the naming rules.
    """
    started = time.monotonic()
    path = Path(path)
    name = parse_sequence_name(sequence_name) if sequence_name is not None else sequence_name_of(path)
    with open_recording(path) as recording:
        channels = [channel for channel in recording.channels if _is_chosen(channel, topics)]
        if topics is not None and not channels:
            raise EmptyRecordingError(recording.name, "it has none of the topics asked for")
        with sole_ingestion(lakehouse, recording) as keep_lease:
            present = find_present(lakehouse, name, recording, topics)
            if present is not None and present.stage is not Stage.BROKEN:
                return report_present(present, recording, started)
            if present is not None:
                lakehouse.sequences.delete(present.sequence)

            def tell(done: int, total: int | None) -> None:
                keep_lease()
                if progress is not None:
                    progress(done, total)

            metadata = dict(user_metadata or {}) | sequence_metadata(recording, topics)
            is_empty = topics is None and _is_empty(recording)
            lakehouse.sequences.create(name, metadata)
            if is_empty:
                lakehouse.notifications.create(name, "error", NO_MESSAGES)
                return _report(name, None, recording, [], [], started)
            return _upload(lakehouse, name, recording, _Ingestion(lakehouse, recording, channels, tell), started)


def _upload(
    lakehouse: Lakehouse, name: str, recording: Recording, ingestion: _Ingestion, started: float
) -> IngestReport:
    try:
        session = lakehouse.sessions.create(name)
        reports = ingestion.run(session)
    except BaseException:
        ingestion.abort()
        with suppress(NotFoundError):
            lakehouse.sequences.delete(name)
        raise
    return _report(name, session, recording, reports, ingestion.extra_reports, started)


class _Ingestion:
    """The way of one recording into one session."""

    def __init__(self, lakehouse: Lakehouse, recording: Recording, channels: list[Channel], progress: Progress) -> None:
        self.extra_reports: list[TopicReport] = []
        self._lakehouse = lakehouse
        self._recording = recording
        self._channels = channels
        self._progress = progress
        self._writers: dict[int, TopicWriter] = {}
        self._extras: list[MessageTimesTopic | AttachmentsTopic] = []

    def run(self, session: SessionRecord) -> list[TopicReport]:
        """Store everything in the session, and end all of its topics."""
        taken: set[str] = set()
        surveys = self._survey()
        names = Counter(channel.topic for channel in self._channels)
        for channel in self._channels:
            topic_path = topic_path_of(channel.topic, taken)
            taken.add(topic_path)
            several = (f"the recording has messages of several types under '{channel.topic}'",)
            self._writers[channel.id] = TopicWriter(
                self._lakehouse,
                session,
                self._recording,
                channel,
                topic_path,
                surveys.get(channel.id),
                several if names[channel.topic] > 1 else (),
            )
        times = MessageTimesTopic(self._lakehouse, session, topic_path_of(MESSAGE_TIMES_TOPIC, taken))
        attachments = AttachmentsTopic(self._lakehouse, session, topic_path_of(ATTACHMENTS_TOPIC, taken))
        self._extras = [times, attachments]
        self._write_messages(times)
        for attachment in self._recording.attachments():
            attachments.write(attachment)
        if self._recording.damages:
            text = "The recording is damaged; what could be read is here. " + "; ".join(self._recording.damages)
            self._lakehouse.notifications.create(session.locator.sequence, "error", text)
        self._keep_losses(session.locator.sequence)
        # Not before the last message of the last topic: that all topics have ended means that nothing is missing.
        reports = [writer.finish() for writer in self._writers.values()]
        self.extra_reports = [report for extra in self._extras if (report := extra.finish()) is not None]
        if not any(report.stored for report in [*reports, *self.extra_reports]):
            if self._recording.damages:
                raise UnreadableRecordingError(self._recording.name, self._recording.damages[0])
            raise EmptyRecordingError(self._recording.name, "it holds no message that could be stored")
        return reports

    def abort(self) -> None:
        """Remove what was written."""
        for writer in [*self._writers.values(), *self._extras]:
            with suppress(LakehouseError):
                writer.abort()

    def _keep_losses(self, sequence: str) -> None:
        """What of the recording is not in the lake is part of what the sequence says about itself."""
        missing = sum(writer.failures().total() for writer in self._writers.values())
        losses = Losses(tuple(self._recording.damages), missing)
        metadata = self._lakehouse.sequences.get(sequence).user_metadata
        block = storable(with_losses(metadata[RECORDING_KEY], losses))
        self._lakehouse.sequences.replace_metadata(sequence, metadata | {RECORDING_KEY: block})

    def _survey(self) -> dict[int, JsonSurvey]:
        """A first pass over the channels whose messages do not say what the later ones look like."""
        surveys = {channel.id: JsonSurvey() for channel in self._channels if needs_survey(channel)}
        if surveys:
            chosen = [channel for channel in self._channels if channel.id in surveys]
            for block in self._recording.read_messages(chosen):
                surveys[block.channel.id].observe(block.payloads)
            self._recording.unusable.clear()  # counted again when the messages are written
        return surveys

    def _write_messages(self, times: MessageTimesTopic) -> None:
        counts = [channel.message_count for channel in self._channels]
        total = None if None in counts else sum(count or 0 for count in counts)
        done = 0
        for block in self._recording.read_messages(self._channels):
            writer = self._writers[block.channel.id]
            rows = writer.write(block)
            if block.channel.encoding in ROS_ENCODINGS:
                times.write(writer.locator.path, block, rows)
            done += len(block.payloads)
            self._progress(done, total)


def _is_chosen(channel: Channel, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(channel.topic, pattern) for pattern in patterns)


def _is_empty(recording: Recording) -> bool:
    """Whether the container is intact and holds neither a message nor an attachment."""
    if any(channel.message_count for channel in recording.channels):
        return False
    holds_something = any(True for _ in recording.read_messages()) or any(True for _ in recording.attachments())
    holds_something = holds_something or bool(recording.unusable) or bool(recording.damages)
    recording.unusable.clear()  # counted again when the messages are written
    return not holds_something


def _report(
    name: str,
    session: SessionRecord | None,
    recording: Recording,
    topics: list[TopicReport],
    extra_topics: list[TopicReport],
    started: float,
) -> IngestReport:
    return IngestReport(
        sequence=name,
        session=None if session is None else str(session.locator),
        topics=topics,
        extra_topics=extra_topics,
        source_files=recording.source,
        damages=tuple(recording.damages),
        already_ingested=False,
        duration_s=time.monotonic() - started,
    )
