"""Recordings ingested inside one Dagster run, some at a time. What happens to one does not concern the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from threading import Event

import dagster as dg

from lakehouse.catalog import crash_points
from lakehouse.catalog.errors import LakehouseError, NotFoundError, QuarantinedError, StateError, Transient
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.defs.ingestion.outcome import Item, Outcome
from lakehouse.orchestration.defs.ingestion.report_metadata import commit_metadata, complaints, report_metadata
from lakehouse.orchestration.defs.ingestion.side_by_side import StoppedError, side_by_side
from lakehouse.orchestration.defs.ingestion.telling import BatchEvents, Telling
from lakehouse.orchestration.landing.places import LandingPlaces
from lakehouse.orchestration.recordings.commit import commit_upload
from lakehouse.orchestration.recordings.errors import IngestionRunningError
from lakehouse.orchestration.recordings.present import Stage, find_ingested
from lakehouse.orchestration.recordings.report import NO_MESSAGES, IngestReport
from lakehouse.orchestration.recordings.upload import Progress, upload_recording

# Each line of the log is a transaction of Dagster: only recordings that take long have any.
PROGRESS_INTERVAL_S = 15.0
# Of one run; there may be several runs. Decoding holds Python's lock most of the time: more would only take memory.
RECORDINGS_AT_ONCE = 2


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
        """Take the recordings in order, some at a time, and tell of each when it is through.

        Errors about one recording end in the outcome, all others are raised.
        """
        outcome = Outcome()
        # Those that want to be the same sequence one after the other, so that the first of them is it.
        wanting: dict[str, list[tuple[str, Item]]] = {}
        for number, item in enumerate(items, start=1):
            position = f"{number} of {len(items)}, " if len(items) > 1 else ""
            wanting.setdefault(item.sequence, []).append((position, item))
        telling = Telling(self._lake, self._events, wanting)

        def take_in(name: str, part: Outcome) -> None:
            telling.tell(name, part)
            outcome.add(part)

        tasks = [partial(self._take_in_turn, group) for group in wanting.values()]
        # Closed before the lake is, if telling fails.
        with closing(side_by_side(tasks, RECORDINGS_AT_ONCE, self._is_stopping)) as parts:
            for name, part in parts:
                take_in(name, part)
        # Of two with the same content, one had to stand back. The other is through by now.
        stood_back = [
            (position, item)
            for group in wanting.values()
            for position, item in group
            if isinstance(outcome.postponed.get(item), IngestionRunningError)
        ]
        for _, item in stood_back:
            outcome.postponed.pop(item, None)
        for name, part in self._take_in_turn(stood_back):
            take_in(name, part)
        if outcome.fault is not None:
            raise outcome.fault
        if len(items) > 1:
            kept_back = f"{len(outcome.quarantined)} in quarantine, " if outcome.quarantined else ""
            self._log.info(
                f"{len(items)} recordings: {len(outcome.done)} in the lake, {len(outcome.refused)} refused, "
                f"{kept_back}{len(outcome.postponed)} to be tried again"
            )
        return outcome

    def _take_in_turn(self, items: Sequence[tuple[str, Item]]) -> Iterator[tuple[str, Outcome]]:
        for position, item in items:
            yield item.sequence, self._outcome_of(item, position)

    def _outcome_of(self, item: Item, position: str) -> Outcome:
        """Nothing, if the batch is being stopped."""
        outcome = Outcome()
        if self._is_stopping.is_set():
            return outcome
        name = item.name
        try:
            if self._is_retry and self._was_dealt_with(item):
                self._log.info(f"{name}: put aside by an earlier attempt of this run")
            else:
                outcome.done.append(self._take(item, position, outcome))
        except QuarantinedError as error:
            # Listed by the asset `quarantined_sessions`, like those that came through the gateway.
            self._log.warning(f"{name}: {error.message}")
            outcome.quarantined[item] = error.message
        except IngestionRunningError as error:
            self._log.info(f"{name}: {error.message}")
            outcome.postponed[item] = error
        except LakehouseError as error:
            if isinstance(error, Transient):
                # Not the recording's fault: it stays where it is.
                self._log.warning(f"{name}: {error.message}")
                outcome.postponed[item] = error
            else:
                self._log.error(f"{name}: {error.message}")
                outcome.refused[item] = error.message
                self._refuse(item, error.message, outcome)
        except StoppedError:
            pass
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

    def _take(self, item: Item, position: str, outcome: Outcome) -> str:
        sequence = item.sequence
        if self._uploads:
            sequence = self._upload(item, position, outcome)
        if self._commits:
            self._commit(sequence, outcome)
        return sequence

    def _upload(self, item: Item, position: str, outcome: Outcome) -> str:
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
            progress = self._progress_to(position + item.name)
            report = upload_recording(self._lake, path, sequence_name=item.sequence, progress=progress)
        self._log_report(report, item)
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

    def _log_report(self, report: IngestReport, item: Item) -> None:
        name = item.name
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
        topics = self._lake.sequences.describe(sequence).topics
        outcome.events.append(partial(self._events.committed, sequence, commit_metadata(topics, report.session)))

    def _refuse(self, item: Item, reason: str, outcome: Outcome) -> None:
        # What is uploaded and may not be committed lies where uploads lie.
        moved = self._put_aside.get(item.location or "", item.location or "")
        if self._uploads and item.location is not None:
            place = self._places.of(item.location)
            if place.exists(item.location):
                moved = place.quarantine(item.location, reason)
        outcome.events.append(partial(self._events.refused, item.name, reason, moved))
