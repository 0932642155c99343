"""Which topics hold a row that satisfies all conditions, and when: exact, opening only files that may hold one."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import select

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import topics as topic_rows
from lakehouse.catalog.errors import (
    BadRequestError,
    LakehouseError,
    NotFoundError,
    ResourceExhaustedError,
    StateError,
    StorageError,
)
from lakehouse.catalog.iceberg.column_history import ColumnPath
from lakehouse.catalog.query.clusters import clusterize
from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.element_bounds import ElementBounds
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.file_candidates import CandidateFile, CandidateFinder
from lakehouse.catalog.query.file_index import DEFAULT_CACHE_BYTES, FileIndex
from lakehouse.catalog.query.file_scan import BATCH_BYTES, FileScanner
from lakehouse.catalog.query.predicates import RowPredicate
from lakehouse.catalog.reading.file_columns import WantedColumns
from lakehouse.catalog.reading.merge import TimedBatch, TimeSortedStream, merge_by_time
from lakehouse.catalog.reading.parquet_slices import ParquetSlices, Selection
from lakehouse.catalog.reading.row_deletes import RowDeletes
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import UNBOUNDED, TimeInterval, TimeWindow
from lakehouse.ontology.arrow_iceberg import storage_plan
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

_IDS_PER_LOOKUP = 500

Item = TypeVar("Item")
Result = TypeVar("Result")


class ContentSearch:
    """Answers conditions on rows.

    Args:
        database: Control plane, which also holds the table pointers.
        warehouse: Data files.
        skip_index: Decoded manifests.
        concurrency: Topics that one query scans at the same time.
        cache_bytes: Memory for columns of bounds.
        is_pruning: Whether bounds are believed; without, every file is scanned.
        activity: Counts what was looked at.
        memory_bytes: Rows that one query decodes at a time, bytes; 0 for as many as are scanned fastest.
    """

    def __init__(
        self,
        database: Database,
        warehouse: Warehouse,
        skip_index: SkipIndex,
        *,
        concurrency: int = 4,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        is_pruning: bool = True,
        activity: Activity | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._database = database
        self._slices = ParquetSlices(warehouse)
        self._deletes = RowDeletes(warehouse)
        self._concurrency = concurrency
        self.is_pruning = is_pruning
        self.index = FileIndex(skip_index, cache_bytes)
        elements = ElementBounds()
        self.candidates = CandidateFinder(
            database, skip_index, self.index, elements, is_pruning=is_pruning, activity=activity
        )
        batch_bytes = min(BATCH_BYTES, memory_bytes // max(concurrency, 1)) if memory_bytes else BATCH_BYTES
        self.scanner = FileScanner(
            self._slices, elements, is_pruning=is_pruning, activity=activity, batch_bytes=batch_bytes
        )

    def matching(
        self,
        topics: Sequence[TopicRecord],
        conditions: Sequence[FieldCondition],
        *,
        with_ranges: bool = False,
        explanation: Explanation | None = None,
    ) -> dict[int, TimeInterval | None]:
        """Topics with at least one row that satisfies all conditions.

        Args:
            topics: Topics of the one tag that all conditions name.
            conditions: They have to hold together on one row.
            with_ranges: Also find the first and last timestamp of matching rows.
            explanation: Filled with what was looked at.

        Returns:
            By `TopicRecord.id` the interval of matching rows, None without `with_ranges`. Topics that are gone by now
            are not among them.

        Raises:
            BadRequestError: If a condition does not fit the list it is about.
            StorageError: If database or warehouse cannot be read.
        """
        found = self.candidates.find(topics, conditions, explanation)
        work = list(found.items())
        by_id = {topic.id: topic for topic in topics} if work else {}
        shared: dict[str, set[str]] = {}

        def search(item: tuple[int, list[CandidateFile]]) -> tuple[int, TimeInterval | None] | None:
            topic_id, files = item
            with self._gone_is_no_match(by_id[topic_id]):
                interval = self._search_topic(by_id[topic_id], files, with_ranges, explanation, shared)
                if interval is not None:
                    return topic_id, interval if with_ranges else None
            return None

        matched = dict(each for each in self._in_parallel(search, work) if each is not None)
        alive = self._alive(by_id[topic_id] for topic_id in matched)
        result = {topic_id: interval for topic_id, interval in matched.items() if topic_id in alive}
        if explanation is not None:
            explanation.add(topics_considered=len(topics), topics_matched=len(result))
        return result

    def clusterize(
        self,
        topic: TopicRecord,
        conditions: Sequence[FieldCondition],
        dt_ns: int,
        window: TimeWindow = UNBOUNDED,
        explanation: Explanation | None = None,
    ) -> Iterator[TimeInterval]:
        """When all conditions hold in a topic, joined to clusters (protocol section 13.1), streaming.

        Raises:
            BadRequestError: If a condition does not fit the list it is about.
            NotFoundError: If the topic is gone.
            StateError: If nothing was uploaded yet.
            StorageError: If database or warehouse cannot be read.
        """
        if topic.arrow_schema is None:
            raise StateError(f"topic '{topic.locator}' has no data: nothing was uploaded yet")
        RowPredicate.compile(conditions, storage_plan(topic.arrow_schema))  # refuse before the first result
        return clusterize(self.timestamps(topic, conditions, window, explanation), dt_ns)

    def timestamps(
        self,
        topic: TopicRecord,
        conditions: Sequence[FieldCondition],
        window: TimeWindow = UNBOUNDED,
        explanation: Explanation | None = None,
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Timestamps of the matching rows of a topic, ascending over all arrays; see `clusterize`."""
        with self._translated_errors(topic):
            if not self._alive([topic]):
                raise NotFoundError("topic", topic.locator)
            files = self.candidates.find([topic], conditions, explanation).get(topic.id, [])
            streams = [
                TimeSortedStream(
                    candidate.file.start_ns, rank, partial(self._sorted, candidate, topic, window, explanation)
                )
                for rank, candidate in enumerate(files)
                if window.overlaps(candidate.file.start_ns, candidate.file.end_ns)
            ]
            for batch in merge_by_time(streams):
                yield batch.column(0).to_numpy()

    def _sorted(
        self, candidate: CandidateFile, topic: TopicRecord, window: TimeWindow, explanation: Explanation | None
    ) -> Iterator[TimedBatch]:
        """Matching timestamps of one file in time order."""
        path, selection = candidate.file.path, self._selection(candidate, topic, window)
        found: Iterable[npt.NDArray[np.int64]] = self.scanner.matches(path, selection, candidate.predicate, explanation)
        if topic.uuid not in path and not self._slices.is_sorted(path):
            # Eight bytes per matching row of a file that another engine wrote.
            everything = self._collected(found)
            found = [np.sort(np.concatenate(everything))] if everything else []
        for times in found:
            yield TimedBatch(times, pa.record_batch([pa.array(times)], names=[TIMESTAMP_COLUMN]))

    def _collected(self, found: Iterable[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
        everything, size = [], 0
        for times in found:
            everything.append(times)
            size += times.nbytes
            if self._memory_bytes and size > self._memory_bytes:
                raise ResourceExhaustedError(
                    f"the rows that match do not fit into the {self._memory_bytes:,} bytes that a query may hold; "
                    "narrow it by time"
                )
        return everything

    def _search_topic(
        self,
        topic: TopicRecord,
        files: list[CandidateFile],
        with_range: bool,
        explanation: Explanation | None,
        shared: dict[str, set[str]],
    ) -> TimeInterval | None:
        """Interval of the matching rows, or of some of them without `with_range`.

        Files that hold several sequences are scanned once for all topics: `shared` keeps what was found by path.
        """
        first_ns: int | None = None
        last_ns = 0
        for candidate in files:
            if first_ns is not None and first_ns <= candidate.file.start_ns and candidate.file.end_ns <= last_ns:
                continue
            selection = self._selection(candidate, topic, UNBOUNDED)
            if candidate.file.holds_other_sequences:
                sequences = shared.get(candidate.file.path)
                if sequences is None:
                    everybody = replace(selection, sequence=None)
                    sequences = self.scanner.sequences(candidate.file.path, everybody, candidate.predicate)
                    shared[candidate.file.path] = sequences
                if topic.locator.sequence not in sequences:
                    continue
            for times in self.scanner.matches(candidate.file.path, selection, candidate.predicate, explanation):
                low, high = int(times.min()), int(times.max())
                first_ns, last_ns = (low, high) if first_ns is None else (min(first_ns, low), max(last_ns, high))
                if not with_range:
                    return TimeInterval(first_ns, last_ns)
        return None if first_ns is None else TimeInterval(first_ns, last_ns)

    def _selection(self, candidate: CandidateFile, topic: TopicRecord, window: TimeWindow) -> Selection:
        file = candidate.file
        sequence = topic.locator.sequence if file.holds_other_sequences else None
        deleted = self._deletes.positions(file.deletions, file.path) if file.deletions else None
        leaves = tuple(path for each in candidate.predicate.conditions for path in each.column.leaf_paths)
        columns = self._slices.columns(file.path, file.columns, _wanted(leaves))
        return Selection(window, sequence, deleted, columns)

    def audit(
        self, topics: Sequence[TopicRecord], conditions: Sequence[FieldCondition], *, sample: int = 100, seed: int = 0
    ) -> list["AuditFinding"]:
        """Read again some of the files and row groups that bounds exclude, and report those that hold a match.

        Args:
            topics, conditions: See `matching`.
            sample: Largest number of excluded files read, and of other files whose excluded row groups are read.
            seed: Chooses the sample.

        Returns:
            What should not have been excluded: nothing, unless a bound is wrong.

        Raises:
            BadRequestError: If a condition does not fit the list it is about.
            StorageError: If database or warehouse cannot be read.
        """
        by_id = {topic.id: topic for topic in topics}
        generator = random.Random(seed)
        findings: list[AuditFinding] = []
        for found in (self.candidates.excluded(topics, conditions), self.candidates.find(topics, conditions)):
            files = [(by_id[topic_id], each) for topic_id, of_topic in found.items() for each in of_topic]
            for topic, candidate in generator.sample(files, min(sample, len(files))):
                with self._gone_is_no_match(topic):
                    findings += self._audit_file(topic, candidate)
        return findings

    def _audit_file(self, topic: TopicRecord, candidate: CandidateFile) -> list["AuditFinding"]:
        path, selection = candidate.file.path, self._selection(candidate, topic, UNBOUNDED)
        plan = self.scanner.plan(path, selection, candidate.predicate)
        is_excluded = candidate.excluded_by is not None
        row_groups = sorted((*plan.row_groups, *plan.excluded)) if is_excluded else plan.excluded
        return [
            AuditFinding(topic.id, path, row_group, candidate.excluded_by)
            for row_group in row_groups
            if any(True for _ in self.scanner.matches_in(path, selection, candidate.predicate, plan, (row_group,)))
        ]

    def _in_parallel(self, search: Callable[[Item], Result], work: Sequence[Item]) -> list[Result]:
        if len(work) < 2 or self._concurrency < 2:
            return [search(item) for item in work]
        pool = ThreadPoolExecutor(min(self._concurrency, len(work)), thread_name_prefix="content-search")
        context = copy_context()
        try:
            # Each in a copy: a context cannot be entered twice at the same time.
            return list(pool.map(lambda item: context.copy().run(search, item), work))
        finally:
            pool.shutdown(cancel_futures=True)

    @contextmanager
    def _gone_is_no_match(self, topic: TopicRecord) -> Iterator[None]:
        """Deleting a topic removes its files, whoever may be reading them."""
        with suppress(NotFoundError), self._translated_errors(topic):
            yield

    @contextmanager
    def _translated_errors(self, topic: TopicRecord) -> Iterator[None]:
        try:
            yield
        except BadRequestError:
            raise
        except (LakehouseError, pa.ArrowException, OSError, ValueError, KeyError) as error:
            if not self._alive([topic]):
                raise NotFoundError("topic", topic.locator) from None
            if isinstance(error, LakehouseError):
                raise
            raise StorageError(f"the stored rows of topic '{topic.locator}' cannot be read") from error

    def _alive(self, topics: Iterable[TopicRecord]) -> set[int]:
        """Those of the topics that still exist."""
        uuids = {topic.id: topic.uuid for topic in topics}
        found: set[int] = set()
        if not uuids:
            return found
        ids = list(uuids)
        with self._database.snapshot() as connection:
            for start in range(0, len(ids), _IDS_PER_LOOKUP):
                query = select(topic_rows.c.id, topic_rows.c.uuid).where(
                    topic_rows.c.id.in_(ids[start : start + _IDS_PER_LOOKUP])
                )
                found.update(row.id for row in connection.execute(query) if uuids[row.id] == row.uuid)
        return found


@lru_cache(maxsize=1024)
def _wanted(leaves: tuple[ColumnPath, ...]) -> WantedColumns:
    return WantedColumns.of_paths(leaves)


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Rows that match although bounds say that none can.

    Attributes:
        topic_id: The topic.
        path: The data file.
        row_group: Its row group with the rows.
        excluded_by: The condition whose bounds excluded the file; None if statistics excluded the row group only.
    """

    topic_id: int
    path: str
    row_group: int
    excluded_by: FieldCondition | None
