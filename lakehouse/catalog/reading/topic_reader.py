"""Reading topics: exact counts of a time window, and rows in time order as batches of the stored schema.

Topics of open sessions are served from the files recorded in the control plane, finalized ones from their Iceberg
table; which of the two holds is decided in one consistent view of the database.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial

import pyarrow as pa
from sqlalchemy import select

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import data_files, sessions, topics
from lakehouse.catalog.errors import DamagedDataError, LakehouseError, NotFoundError, StateError, StorageError
from lakehouse.catalog.iceberg.data_files import DataFileEntry, arrival_of
from lakehouse.catalog.reading.file_columns import WantedColumns
from lakehouse.catalog.reading.merge import TimedBatch, TimeSortedStream, largest_overlap, merge_by_time
from lakehouse.catalog.reading.parquet_slices import ParquetSlices, Selection
from lakehouse.catalog.reading.read_ahead import one_ahead
from lakehouse.catalog.reading.row_deletes import RowDeletes
from lakehouse.catalog.reading.skip_index import IndexedFile, SkipIndex
from lakehouse.catalog.records import SessionState, TopicRecord
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import INT64_MAX, INT64_MIN, UNBOUNDED, TimeInterval, TimeWindow
from lakehouse.ontology.arrow_iceberg import StoragePlan, UnstorableValueError, storage_plan

MIB = 1 << 20
# Small rows are decoded in larger pieces than they are sent in: what a piece costs in itself is then paid less often.
BATCHES_DECODED_AT_ONCE = 4
COUNTS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class WindowInfo:
    """What a window of a topic holds.

    Attributes:
        interval: First and last timestamp inside the window; None when there is none.
        row_count: Exact number of rows inside.
    """

    interval: TimeInterval | None
    row_count: int


class TopicReader:
    """Reads the rows of topics.

    Args:
        database: Control plane, which also holds the table pointers.
        warehouse: Data files.
        skip_index: Decoded manifests.
        target_batch_bytes: Size of Arrow data that a batch is cut to.
        max_batch_rows: Largest number of rows in a batch.
    """

    def __init__(
        self,
        database: Database,
        warehouse: Warehouse,
        skip_index: SkipIndex,
        *,
        target_batch_bytes: int = 25 * MIB,
        max_batch_rows: int = 8192,
    ) -> None:
        self._database = database
        self._skip_index = skip_index
        self._slices = ParquetSlices(warehouse)
        self._deletes = RowDeletes(warehouse)
        # A ticket is redeemed soon after its window was counted. Files are immutable, so counts hold.
        self._counts: BoundedCache[tuple[str, TimeWindow], tuple[int, int, int]] = BoundedCache(COUNTS_KEPT)
        self._target_batch_bytes = target_batch_bytes
        self._max_batch_rows = max_batch_rows

    def window_info(self, topic: TopicRecord, window: TimeWindow) -> WindowInfo:
        """Count the rows of a topic inside a window, reading at most the timestamps of row groups on its edges.

        Raises:
            NotFoundError: If the topic is gone.
            StorageError: If the warehouse or the database cannot be read.
        """
        row_count, first_ns, last_ns = 0, INT64_MAX, INT64_MIN
        plan = storage_plan(topic.arrow_schema) if topic.arrow_schema is not None else None
        with self._translated_errors(topic):
            for file in self._files(topic, window):
                count, first, last = self._count(file, self._selection(file, topic, window, plan), plan)
                row_count += count
                if count:
                    first_ns, last_ns = min(first_ns, first), max(last_ns, last)
        return WindowInfo(TimeInterval(first_ns, last_ns) if row_count else None, row_count)

    def read(self, topic: TopicRecord, window: TimeWindow = UNBOUNDED) -> Iterator[pa.RecordBatch]:
        """The rows of a topic inside a window.

        Rows come in time order, equal timestamps in order of arrival, in batches of exactly the stored schema and never
        empty. Files are opened as they are reached; closing the iterator closes them.

        Raises:
            NotFoundError: If the topic is gone, also if it is deleted while being read.
            StateError: If nothing was uploaded yet, so that there is no schema.
            StorageError: If the warehouse or the database cannot be read.
        """
        if topic.arrow_schema is None:
            raise StateError(f"topic '{topic.locator}' has no data: nothing was uploaded yet")
        plan = storage_plan(topic.arrow_schema)
        return self._batches(topic, window, plan)

    def _batches(self, topic: TopicRecord, window: TimeWindow, plan: StoragePlan) -> Iterator[pa.RecordBatch]:
        with self._translated_errors(topic):
            files = sorted(self._files(topic, window), key=lambda file: _arrival(file, topic.uuid))
            depth = largest_overlap([file.start_ns for file in files], [file.end_ns for file in files])
            streams = [
                TimeSortedStream(file.start_ns, rank, partial(self._open, file, topic, window, plan, depth))
                for rank, file in enumerate(files)
            ]
            for stored in one_ahead(merge_by_time(streams)):
                for batch in plan.from_storage_batches(stored):
                    yield from _cut(batch, self._max_batch_rows, self._target_batch_bytes)

    def _files(self, topic: TopicRecord, window: TimeWindow) -> list[IndexedFile]:
        with self._database.snapshot() as connection:
            row = connection.execute(
                select(topics.c.uuid, topics.c.table_identifier, sessions.c.state)
                .join_from(topics, sessions, topics.c.session_id == sessions.c.id)
                .where(topics.c.id == topic.id)
            ).one_or_none()
            if row is None or row.uuid != topic.uuid:
                raise NotFoundError("topic", topic.locator)
            if row.state == SessionState.FINALIZED:
                if row.table_identifier is None:
                    return []
                locations = self._skip_index.catalog.locations(connection, [row.table_identifier])
                location = locations.get(row.table_identifier)
            else:
                entries = connection.execute(
                    select(data_files.c.entry).where(data_files.c.topic_id == topic.id)
                ).scalars()
                return [file for file in map(_indexed, entries) if window.overlaps(file.start_ns, file.end_ns)]
        if location is None:
            raise StorageError(f"the table of topic '{topic.locator}' is missing from the catalog")
        return self._skip_index.sequence_files(location, topic.locator.sequence, window)

    def _count(self, file: IndexedFile, selection: Selection, plan: StoragePlan | None) -> tuple[int, int, int]:
        """Rows inside, and their first and last timestamps; whoever asks will read these columns next."""
        is_bounded = file.start_ns != INT64_MIN and file.end_ns != INT64_MAX
        if is_bounded and selection.is_by_time_only and selection.window.contains(file.start_ns, file.end_ns):
            return file.record_count, file.start_ns, file.end_ns
        if not selection.is_by_time_only or selection.columns is not None:
            return self._counted(file, selection, plan)
        key = (file.path, selection.window)
        return self._counts.get(key, lambda: self._counted(file, selection, plan))

    def _counted(self, file: IndexedFile, selection: Selection, plan: StoragePlan | None) -> tuple[int, int, int]:
        footer = self._slices.footer(file.path)
        count, first_ns, last_ns, edges = 0, INT64_MAX, INT64_MIN, []
        for row_group in footer.row_groups(selection.window):
            interval = footer.interval(row_group)
            if interval and selection.is_by_time_only and footer.lies_inside(row_group, selection.window):
                count += int(footer.row_counts[row_group])
                first_ns, last_ns = min(first_ns, interval.start_ns), max(last_ns, interval.end_ns)
            else:
                edges.append(row_group)
        foreseen = () if plan is None else _columns(plan, selection)
        for timestamps in self._slices.timestamps(file.path, edges, selection, foreseen):
            count += len(timestamps)
            first_ns, last_ns = min(first_ns, int(timestamps.min())), max(last_ns, int(timestamps.max()))
        return count, first_ns, last_ns

    def _open(
        self, file: IndexedFile, topic: TopicRecord, window: TimeWindow, plan: StoragePlan, depth: int
    ) -> Iterator[TimedBatch]:
        selection = self._selection(file, topic, window, plan)
        columns = _columns(plan, selection)
        bytes_per_row = self._slices.footer(file.path).bytes_per_row(columns)
        most_rows = self._max_batch_rows * BATCHES_DECODED_AT_ONCE
        rows = int(min(max(self._target_batch_bytes / bytes_per_row / depth, 1), most_rows))
        if arrival_of(file.path, topic.uuid) is not None or self._slices.is_sorted(file.path):
            found = self._slices.read(file.path, selection, columns, rows)
        else:
            found = self._slices.read_unsorted(file.path, selection, columns, rows, bytes_per_row)
        for batch in found:
            yield from _in_storage_form(batch, plan)

    def _selection(
        self, file: IndexedFile, topic: TopicRecord, window: TimeWindow, plan: StoragePlan | None
    ) -> Selection:
        sequence = topic.locator.sequence if file.holds_other_sequences else None
        deleted = self._deletes.positions(file.deletions, file.path) if file.deletions else None
        columns = None
        if plan is not None and topic.arrow_schema is not None:
            columns = self._slices.columns(file.path, file.columns, _wanted(topic.arrow_schema))
        return Selection(window, sequence, deleted, columns)

    @contextmanager
    def _translated_errors(self, topic: TopicRecord) -> Iterator[None]:
        try:
            yield
        except NotFoundError:
            raise
        except (LakehouseError, pa.ArrowException, OSError, ValueError, KeyError) as error:
            # Deleting a topic removes its files, whoever may be reading them.
            if self._is_gone(topic):
                raise NotFoundError("topic", topic.locator) from None
            if isinstance(error, LakehouseError):
                raise
            kind = DamagedDataError if _is_of_content(error) else StorageError
            # Values that another engine wrote and the topic's types cannot hold are told by their column.
            reason = f": {error}" if isinstance(error, UnstorableValueError) else ""
            raise kind(f"the stored rows of topic '{topic.locator}' cannot be read{reason}") from error

    def _is_gone(self, topic: TopicRecord) -> bool:
        with self._database.snapshot() as connection:
            uuid = connection.execute(select(topics.c.uuid).where(topics.c.id == topic.id)).scalar_one_or_none()
        return bool(uuid != topic.uuid)


def _is_of_content(error: Exception) -> bool:
    """Whether bytes were fetched and could not be decoded. What the operating system reports has a number; Arrow's
    own complaints about pages of Parquet files have none."""
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None
    return not isinstance(error, MemoryError | pa.ArrowCancelled)


@lru_cache(maxsize=1024)
def _wanted(arrow_schema: bytes) -> WantedColumns:
    return WantedColumns.of_plan(storage_plan(arrow_schema).payload)


def _columns(plan: StoragePlan, selection: Selection) -> list[str]:
    """What the file calls the columns of the topic."""
    return list(plan.storage_schema.names) if selection.columns is None else selection.columns.sources


def _in_storage_form(batch: TimedBatch, plan: StoragePlan) -> Iterator[TimedBatch]:
    """Rows in exactly the plan's storage schema, so that rows of any two files can be put together.

    Files of a table that evolved, or that another engine wrote, may hold wider types, other names of list children and
    other orders of columns.
    """
    columns = [batch.rows.column(name) for name in plan.storage_schema.names]
    if [column.type for column in columns] == plan.storage_schema.types:
        yield TimedBatch(batch.timestamps, pa.RecordBatch.from_arrays(columns, schema=plan.storage_schema))
        return
    start = 0
    for uploaded in plan.from_storage_batches(batch.rows):
        stop = start + uploaded.num_rows
        yield TimedBatch(batch.timestamps[start:stop], plan.to_storage(uploaded))
        start = stop


def _indexed(entry: bytes) -> IndexedFile:
    file = DataFileEntry.from_bytes(entry)
    return IndexedFile(file.path, file.record_count, file.file_size, file.start_ns, file.end_ns)


def _arrival(file: IndexedFile, topic_uuid: str) -> tuple[int, int, int, str]:
    """Order of arrival; files rewritten by other engines come by commit and name."""
    own = arrival_of(file.path, topic_uuid)
    return (file.sequence_number, 0, 0, file.path) if own is None else (0, *own, "")


def _cut(batch: pa.RecordBatch, max_rows: int, target_bytes: int) -> Iterator[pa.RecordBatch]:
    """Slices of a batch that keep to both limits, or hold one row."""
    if batch.num_rows > 1 and batch.nbytes > target_bytes:
        half = (batch.num_rows + 1) // 2
        yield from _cut(batch.slice(0, half), max_rows, target_bytes)
        yield from _cut(batch.slice(half), max_rows, target_bytes)
    else:
        for start in range(0, batch.num_rows, max_rows):
            yield batch.slice(start, max_rows)
