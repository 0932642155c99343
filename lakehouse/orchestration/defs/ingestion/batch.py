"""Recordings ingested inside one Dagster run, some at a time. What happens to one does not concern the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event

import dagster as dg

from lakehouse.catalog import crash_points
from lakehouse.catalog.errors import LakehouseError, NotFoundError, QuarantinedError, StateError, Transient, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata, complaints, report_metadata
from lakehouse.orchestration.defs.ingestion.side_by_side import StoppedError, side_by_side
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.recordings.commit import CommitReport, commit_upload
from lakehouse.orchestration.recordings.errors import IngestionRunningError
from lakehouse.orchestration.recordings.present import Stage, find_ingested
from lakehouse.orchestration.recordings.report import NO_MESSAGES, IngestReport
from lakehouse.orchestration.recordings.upload import Progress, upload_recording

# Each line of the log is a transaction of Dagster: only recordings that take long have any.
PROGRESS_INTERVAL_S = 15.0
# Of one run; there may be several runs. Decoding holds Python's lock most of the time: more would only take memory.
RECORDINGS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One recording of a batch.

    Attributes:
        sequence: The sequence it is to become.
        location: Where the recording is; None if it has to be found.
    """

    sequence: str
    location: str | None


@dataclass
class Outcome:
    """What came of a batch: names of sequences, and for what is not in the lake the reason by name of recording.

    Attributes:
        quarantined: Uploaded, and kept from being committed.
        events: What is to be told about it, not told yet.
        fault: What ended the batch, and nobody foresaw.
    """

    done: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    postponed: dict[str, LakehouseError] = field(default_factory=dict)
    events: list[Callable[[], None]] = field(default_factory=list)
    fault: Exception | None = None

    def add(self, other: Outcome) -> None:
        """Take in what came of others."""
        self.done += other.done
        self.quarantined |= other.quarantined
        self.refused |= other.refused
        self.postponed |= other.postponed
        self.fault = self.fault or other.fault


@dataclass(frozen=True)
class BatchEvents:
    """How a batch tells what happened, recording after recording, on the thread that runs it.

    In order even if a later recording is through first: Dagster's ranges of partitions go by the order in which they
    were made.
    """

    uploaded: Callable[[str, Metadata], None]
    committed: Callable[[str, Metadata], None]
    refused: Callable[[str, str, str], None]


class Batch:
    """Ingests a list of recordings, or a part of the way.

    Args:
        uploads: Whether to upload the recordings.
        commits: Whether to commit what is uploaded.
        replaces: Whether to delete sequences that hold the recording already, and ingest it again.
        is_retry: Whether the run has taken the same recordings before: those no longer there are dealt with.
    """

    def __init__(
        self,
        lake: Lakehouse,
        places: LandingPlaces,
        log: dg.DagsterLogManager,
        events: BatchEvents,
        *,
        uploads: bool = True,
        commits: bool = True,
        replaces: bool = False,
        is_retry: bool = False,
    ) -> None:
        self._lake = lake
        self._places = places
        self._log = log
        self._events = events
        self._uploads = uploads
        self._commits = commits
        self._replaces = replaces
        self._is_retry = is_retry
        self._put_aside: dict[str, str] = {}
        self._is_stopping = Event()

    def run(self, items: Sequence[Item]) -> Outcome:
        """Take the recordings in order, some at a time.

        Errors about one recording end in the outcome, all others are raised.
        """
        outcome = Outcome()
        # Those that want to be the same sequence one after the other, so that the first of them is it.
        wanting: dict[str, list[tuple[str, Item]]] = {}
        for number, item in enumerate(items, start=1):
            position = f"{number} of {len(items)}, " if len(items) > 1 else ""
            wanting.setdefault(item.sequence, []).append((position, item))
        tasks = [partial(self._take_in_turn, group) for group in wanting.values()]
        for part in side_by_side(tasks, RECORDINGS_AT_ONCE, self._is_stopping):
            self._add(outcome, part)
        # Of two with the same content, one had to stand back. The other is through by now.
        stood_back = [
            (position, item)
            for group in wanting.values()
            for position, item in group
            if isinstance(outcome.postponed.get(_name_of(item)), IngestionRunningError)
        ]
        for _, item in stood_back:
            outcome.postponed.pop(_name_of(item), None)
        self._add(outcome, self._take_in_turn(stood_back))
        if outcome.fault is not None:
            raise outcome.fault
        if len(items) > 1:
            kept_back = f"{len(outcome.quarantined)} in quarantine, " if outcome.quarantined else ""
            self._log.info(
                f"{len(items)} recordings: {len(outcome.done)} in the lake, {len(outcome.refused)} refused, "
                f"{kept_back}{len(outcome.postponed)} to be tried again"
            )
        return outcome

    @staticmethod
    def _add(outcome: Outcome, part: Outcome) -> None:
        for tell in part.events:
            tell()
        outcome.add(part)

    def _take_in_turn(self, items: Sequence[tuple[str, Item]]) -> Outcome:
        outcome = Outcome()
        for position, item in items:
            if self._is_stopping.is_set():
                break
            name = _name_of(item)
            try:
                if self._is_retry and self._was_dealt_with(item):
                    self._log.info(f"{name}: put aside by an earlier attempt of this run")
                    continue
                outcome.done.append(self._take(item, name, position, outcome))
            except QuarantinedError as error:
                # Listed by the asset `quarantined_sessions`, like those that came through the gateway.
                self._log.warning(f"{name}: {error.message}")
                outcome.quarantined[name] = error.message
            except LakehouseError as error:
                if isinstance(error, IngestionRunningError):
                    self._log.info(f"{name}: {error.message}")
                    outcome.postponed[name] = error
                elif isinstance(error, Transient):
                    # Not the recording's fault: it stays where it is.
                    self._log.warning(f"{name}: {error.message}")
                    outcome.postponed[name] = error
                else:
                    self._log.error(f"{name}: {error.message}")
                    outcome.refused[name] = error.message
                    self._refuse(item, name, error.message, outcome)
            except StoppedError:
                break
            except Exception as error:
                # Raised again by `run`, when what is through has been told.
                outcome.fault = error
                self._is_stopping.set()
        return outcome

    def _was_dealt_with(self, item: Item) -> bool:
        """Whether an earlier attempt refused a recording, or found its content under another name, and moved it."""
        if not self._uploads or item.location is None or self._stage(item.sequence) is not None:
            return False
        return not self._places.of(item.location).exists(item.location)

    def _take(self, item: Item, name: str, position: str, outcome: Outcome) -> str:
        sequence = item.sequence
        if self._uploads:
            sequence = self._upload(item, name, position, outcome)
        if self._commits:
            self._commit(sequence, outcome)
        return sequence

    def _upload(self, item: Item, name: str, position: str, outcome: Outcome) -> str:
        """Upload one recording, unless it is in the lake; returns the sequence that holds it."""
        stage = self._stage(item.sequence)
        location = item.location or self._places.find(item.sequence)
        if location is None or not self._places.of(location).exists(location):
            if stage in (Stage.COMMITTED, Stage.UPLOADED, Stage.EMPTY) and not self._replaces:
                self._log.info(f"sequence {item.sequence} is in the lake; nothing to upload")
                return item.sequence
            raise NotFoundError("recording", item.location or f"of sequence {item.sequence}")
        place = self._places.of(location)
        with place.fetched(location) as path:
            if self._replaces and stage is not None:
                self._log.info(f"deleting sequence {item.sequence} to ingest it again")
                self._lake.sequences.delete(item.sequence)
            progress = self._progress_to(position + name)
            report = upload_recording(self._lake, path, sequence_name=item.sequence, progress=progress)
        self._tell(report, item, name)
        metadata = report_metadata(report)
        self._put_aside[location] = place.mark_ingested(location)
        metadata["source"] = dg.MetadataValue.text(self._put_aside[location])
        outcome.events.append(partial(self._events.uploaded, report.sequence, metadata))
        return report.sequence

    def _progress_to(self, name: str) -> Progress:
        last_shown = time.monotonic()

        def show(done: int, total: int | None) -> None:
            nonlocal last_shown
            if self._is_stopping.is_set():
                raise StoppedError
            if time.monotonic() - last_shown >= PROGRESS_INTERVAL_S:
                last_shown = time.monotonic()
                self._log.info(f"{name}: {done:,} of {total:,} messages" if total else f"{name}: {done:,} messages")

        return show

    def _stage(self, sequence: str) -> Stage | None:
        try:
            return find_ingested(self._lake, sequence).stage
        except (NotFoundError, StateError):
            return None

    def _tell(self, report: IngestReport, item: Item, name: str) -> None:
        if report.already_ingested and report.sequence != item.sequence:
            self._log.warning(
                f"{name}: this very recording is in the lake already, as sequence {report.sequence}; nothing uploaded"
            )
        elif report.already_ingested:
            self._log.info(f"{name}: sequence {report.sequence} holds this very recording already; nothing uploaded")
        elif report.session is None:
            self._log.warning(f"{name}: {NO_MESSAGES.lower()}")
        for complaint in complaints(report):
            self._log.warning(f"{name}: {complaint}")

    def _commit(self, sequence: str, outcome: Outcome) -> None:
        report = commit_upload(self._lake, sequence)
        crash_points.reach("commit-event:before")
        if report.already_committed:
            self._log.info(f"sequence {sequence} is committed already")
        outcome.events.append(partial(self._events.committed, sequence, self._commit_metadata(report)))

    def _commit_metadata(self, report: CommitReport) -> Metadata:
        topics = self._lake.sequences.describe(report.sequence).topics
        intervals = [topic.interval for topic in topics if topic.interval is not None]
        metadata: Metadata = {
            "dagster/row_count": dg.MetadataValue.int(sum(topic.row_count for topic in topics)),
            "session": dg.MetadataValue.text(report.session or "none: the recording holds no messages"),
            "topics": dg.MetadataValue.int(len(topics)),
            "bytes": dg.MetadataValue.int(sum(topic.total_bytes for topic in topics)),
        }
        if intervals:
            start_ns = min(interval.start_ns for interval in intervals)
            end_ns = max(interval.end_ns for interval in intervals)
            metadata["seconds"] = dg.MetadataValue.float(round((end_ns - start_ns) / 1e9, 3))
        return metadata

    def _refuse(self, item: Item, name: str, reason: str, outcome: Outcome) -> None:
        # What is uploaded and may not be committed lies where uploads lie.
        moved = self._put_aside.get(item.location or "", item.location or "")
        if self._uploads and item.location is not None:
            place = self._places.of(item.location)
            if place.exists(item.location):
                moved = place.quarantine(item.location, reason)
        outcome.events.append(partial(self._events.refused, name, reason, moved))


def _name_of(item: Item) -> str:
    return item.location.rstrip("/").rpartition("/")[2] if item.location else item.sequence


def items_of(locations: Sequence[str], places: LandingPlaces) -> list[Item]:
    """Recordings by where they are, each to become the sequence that its name gives.

    Raises:
        BadRequestError: If one is not in a place that recordings are taken from.
    """
    return [Item(places.of(location).sequence_of(location.rstrip("/")), location) for location in locations]


def describe(reasons: dict[str, str]) -> str:
    """Names with their reasons in one text."""
    return "; ".join(f"{quoted(name)}: {reason}" for name, reason in reasons.items())
