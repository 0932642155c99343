"""One upload of one topic: record batches in, durable time-sorted Parquet files out."""

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from lakehouse.catalog.bounds import count_rows
from lakehouse.catalog.data_file_writer import DataFileWriter, FilePlace
from lakehouse.catalog.data_files import DataFileEntry, data_file_uri
from lakehouse.catalog.day_buffer import DayBuffer, RowGroup, split_by_day
from lakehouse.catalog.encoder_pool import EncoderPool, Job
from lakehouse.catalog.encoding import choose_encoding
from lakehouse.catalog.envelope import Envelope
from lakehouse.catalog.errors import InvalidDataError, LakehouseError, StateError, StorageError
from lakehouse.catalog.leaves import parquet_leaves
from lakehouse.catalog.memory_budget import UploadBudget
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import TimeInterval
from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN, StoragePlan, UnstorableValueError

# Row groups queued behind the one being encoded: enough to keep the encoder busy, few enough to bound memory.
QUEUED_ROW_GROUPS = 1
# Recordings cross midnight; timestamps that jump between more days cost small files, not file handles.
OPEN_FILES = 2


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """What is uploaded, and where to.

    Attributes:
        topic_uuid: Names the files.
        sequence: Name of the sequence: partition value and column.
        session: Locator of the session: column.
        table_location: URI of the topic's Iceberg table.
        plan: Mapping of the uploaded schema to storage.
        parquet_schema: Schema of the files with the table's field ids, envelope included.
    """

    topic_uuid: str
    sequence: str
    session: str
    table_location: str
    plan: StoragePlan
    parquet_schema: pa.Schema


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Sizes in bytes of Arrow data.

    Attributes:
        row_group: What an upload buffers before it encodes a row group.
        file: Where a data file ends; 0: unlimited.
    """

    row_group: int
    file: int

    @property
    def buffer(self) -> int:
        """Target of a row group, which never exceeds that of a file."""
        return min(self.row_group, self.file) if self.file else self.row_group


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What an upload stored.

    Attributes:
        total_bytes: Sum of the file sizes.
        interval: Smallest and largest timestamp; None without rows.
    """

    entries: tuple[DataFileEntry, ...]
    row_count: int
    total_bytes: int
    interval: TimeInterval | None


class TopicUpload:
    """Takes the batches of one upload from one thread at a time; encodes them in the pool.

    Use as a context manager: leaving it on an exception, or without `finish`, removes every file. After any error of
    `write` or `finish` the upload is already aborted.
    """

    def __init__(
        self,
        target: UploadTarget,
        limits: UploadLimits,
        warehouse: Warehouse,
        budget: UploadBudget,
        pool: EncoderPool,
    ) -> None:
        """Prepare; nothing is written before there are rows.

        Args:
            target: What is uploaded, and where to.
            limits: Sizes of row groups and files.
            warehouse: Where the files go.
            budget: Shared by all uploads of the process.
            pool: Shared by all uploads of the process.
        """
        self._target = target
        self._limits = limits
        self._warehouse = warehouse
        self._budget = budget
        self._lane = pool.lane()
        self._envelope = Envelope(target.parquet_schema, target.sequence, target.session)
        self._leaves = parquet_leaves(target.parquet_schema)
        self._batches_received = 0
        self._finished = False
        self._aborted = False

        # Guards the buffers: other uploads may ask for an early flush from their own threads.
        self._lock = threading.Lock()
        self._buffers: dict[int, DayBuffer] = {}
        self._buffered = 0

        # Touched by jobs of the lane only, which run one at a time, and when the lane is idle.
        self._open_files: OrderedDict[int, DataFileWriter] = OrderedDict()
        self._entries: list[DataFileEntry] = []
        self._next_ordinal = 0
        self._columns_with_nan: frozenset[int] = frozenset()
        self._budget.register(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None or not self._finished:
            self.abort()

    def write(self, batch: pa.RecordBatch) -> None:
        """Take one batch; may wait for the encoder or for memory.

        Raises:
            InvalidDataError: If the batch breaks the Arrow format or the schema of the upload.
            StorageError: If this or an earlier batch could not be stored.
            StateError: If the upload has ended.
        """
        self._check_open()
        try:
            self._write(batch)
        except BaseException as error:
            self.abort()
            raise _as_lakehouse_error(error) from error

    def finish(self) -> UploadResult:
        """Store what is buffered; when this returns, everything survives a crash and a power cut.

        Raises:
            StorageError: If something could not be stored.
            StateError: If the upload has ended.
        """
        self._check_open()
        try:
            with self._lock:
                for day in sorted(self._buffers):
                    self._submit(day, last=True)
            self._lane.submit(Job(self._close_files, lambda: None))
            self._lane.drain()
            self._warehouse.make_names_durable(entry.path for entry in self._entries)
        except BaseException as error:
            self.abort()
            raise _as_lakehouse_error(error) from error
        self._finished = True
        self._budget.unregister(self)
        entries = tuple(sorted(self._entries, key=lambda entry: entry.ordinal))
        return UploadResult(
            entries,
            sum(entry.record_count for entry in entries),
            sum(entry.file_size for entry in entries),
            TimeInterval(min(entry.start_ns for entry in entries), max(entry.end_ns for entry in entries))
            if entries
            else None,
        )

    def abort(self) -> None:
        """Remove every file of the upload, also after `finish`; calling it again does nothing."""
        if self._aborted:
            return
        self._aborted = True
        self._lane.cancel()
        self._budget.unregister(self)
        with self._lock:
            self._buffers.clear()
            self._budget.release(self._buffered)
            self._buffered = 0
        # What cannot be removed now is an orphan that maintenance collects.
        for writer in self._open_files.values():
            with suppress(StorageError):
                writer.discard()
        self._open_files.clear()
        with suppress(StorageError):
            self._warehouse.delete(entry.path for entry in self._entries)

    def flushable_bytes(self) -> int:
        """Bytes that an early flush could write (see `BufferOwner`)."""
        return 0 if self._aborted else self._buffered

    def flush_early(self) -> None:
        """Start encoding the largest buffer (see `BufferOwner`)."""
        with self._lock:
            if not self._aborted and self._buffers:
                self._submit(self._largest_day(), last=False)

    def _check_open(self) -> None:
        if self._finished or self._aborted:
            raise StateError("the upload has ended")

    def _write(self, batch: pa.RecordBatch) -> None:
        self._batches_received += 1
        if not batch.schema.equals(self._target.plan.arrow_schema, check_metadata=False):
            raise InvalidDataError(f"record batch {self._batches_received} does not have the schema of the upload")
        try:
            batch.validate(full=True)
        except pa.ArrowException as error:
            raise InvalidDataError(f"record batch {self._batches_received} is no valid Arrow data: {error}") from None
        if batch.num_rows == 0:
            return
        try:
            stored = self._target.plan.to_storage(batch)
        except UnstorableValueError as error:
            raise InvalidDataError(f"record batch {self._batches_received}: {error}") from None
        added = 0
        with self._lock:
            self._check_open()
            for piece in split_by_day(stored):
                buffer = self._buffers.setdefault(piece.day, DayBuffer(piece.day))
                added += buffer.append(piece)
            self._buffered += added
            self._budget.charge(added)
        self._budget.settle()
        with self._lock:
            while self._buffered >= self._limits.buffer and self._buffers:
                self._submit(self._largest_day(), last=False)
        self._lane.wait_for_room(QUEUED_ROW_GROUPS)

    def _largest_day(self) -> int:
        return max(self._buffers.values(), key=lambda buffer: buffer.size).day

    def _submit(self, day: int, *, last: bool) -> None:
        """Hand a buffer to the encoder; the lock is held."""
        buffer = self._buffers[day]
        if buffer.is_empty:
            return
        before = buffer.size
        row_group = buffer.take(everything=last)
        if buffer.is_empty and not buffer.saw_disorder:
            del self._buffers[day]
        size = before - buffer.size
        self._buffered -= size
        self._budget.depart(size)
        landed = threading.Event()

        def land() -> None:
            if not landed.is_set():
                landed.set()
                self._budget.land(size)

        def run() -> None:
            try:
                self._store(row_group)
            finally:
                land()

        self._lane.submit(Job(run, land))

    def _store(self, group: RowGroup) -> None:
        rows = self._envelope.add(group.rows())
        pieces = max(1, min(rows.num_rows, round(group.size / self._limits.buffer)))
        for number in range(pieces):
            first, last = rows.num_rows * number // pieces, rows.num_rows * (number + 1) // pieces
            self._store_piece(group.day, rows.slice(first, last - first), group.size // pieces)

    def _store_piece(self, day: int, rows: pa.Table, size: int) -> None:
        times = rows.column(TIMESTAMP_COLUMN)
        start_ns, end_ns = times[0].as_py(), times[-1].as_py()
        counts = count_rows(rows, self._leaves)
        with_nan = {
            leaf.field_id
            for leaf, count in zip(self._leaves, counts, strict=True)
            if count is not None and count.nans and not leaf.is_repeated
        }
        self._columns_with_nan |= with_nan
        writer = self._open_files.get(day)
        if writer is not None and writer.end_ns is not None:
            full = self._limits.file and writer.arrow_bytes + size > self._limits.file
            if full or start_ns < writer.end_ns or not with_nan <= writer.columns_with_nan:
                self._close_file(day)
                writer = None
        if writer is None:
            writer = self._open_file(day, rows)
        self._open_files.move_to_end(day)
        writer.write(rows, counts, start_ns, end_ns, size)

    def _open_file(self, day: int, rows: pa.Table) -> DataFileWriter:
        while len(self._open_files) >= OPEN_FILES:
            self._close_file(next(iter(self._open_files)))
        ordinal = self._next_ordinal
        target = self._target
        uri = data_file_uri(target.table_location, target.sequence, day, target.topic_uuid, ordinal)
        writer = DataFileWriter(
            self._warehouse,
            FilePlace(uri, target.sequence, day, ordinal),
            self._envelope.file_schema,
            self._leaves,
            choose_encoding(rows, self._leaves, self._columns_with_nan),
            self._columns_with_nan,
        )
        self._next_ordinal += 1
        self._open_files[day] = writer
        return writer

    def _close_file(self, day: int) -> None:
        # The writer stays in the table until it is closed, so that abort() finds it when closing fails.
        self._entries.append(self._open_files[day].close())
        del self._open_files[day]

    def _close_files(self) -> None:
        while self._open_files:
            self._close_file(next(iter(self._open_files)))


def _as_lakehouse_error(error: BaseException) -> BaseException:
    if isinstance(error, LakehouseError) or not isinstance(error, (OSError, pa.ArrowException)):
        return error
    return StorageError("the upload could not be stored")
