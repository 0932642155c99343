"""One upload of one topic: record batches in, durable time-sorted Parquet files out."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import pyarrow as pa

from lakehouse.catalog.errors import InvalidDataError, LakehouseError, StateError, StorageError
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import TimeInterval
from lakehouse.catalog.writing.day_buffer import DayBuffer, split_by_day
from lakehouse.catalog.writing.encoder_pool import EncoderPool, Job
from lakehouse.catalog.writing.memory_budget import UploadBudget
from lakehouse.catalog.writing.upload_files import PreparedRows, UploadFiles, UploadLimits, UploadTarget
from lakehouse.ontology.arrow_iceberg import UnstorableValueError

__all__ = ["TopicUpload", "UploadLimits", "UploadResult", "UploadTarget"]

# Row groups queued behind the one being encoded: enough to keep the encoder busy, few enough to bound memory.
QUEUED_ROW_GROUPS = 1


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
        self._budget = budget
        self._lane = pool.lane()
        self._batches_received = 0
        self._finished = False
        self._aborted = False

        # Guards the buffers: other uploads may ask for an early flush from their own threads.
        self._lock = threading.Lock()
        self._buffers: dict[int, DayBuffer] = {}
        self._buffered = 0

        # Touched by jobs of the lane only, which run one at a time, and when the lane is idle.
        self._files = UploadFiles(target, limits, warehouse)
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
            self._lane.submit(Job(self._files.close, lambda: None))
            self._lane.drain()
            self._files.make_durable()
        except BaseException as error:
            self.abort()
            raise _as_lakehouse_error(error) from error
        self._finished = True
        self._budget.unregister(self)
        entries = self._files.entries
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
        self._files.discard()

    def flushable_bytes(self) -> int:
        """Bytes that an early flush could write (see `BufferOwner`)."""
        return 0 if self._aborted else self._buffered

    def flush_early(self) -> None:
        """Start encoding the largest buffer (see `BufferOwner`)."""
        with self._lock:
            if not self._aborted and self._buffers:
                self._submit(self._largest_day(), last=False, prepare_here=False)

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

    def _submit(self, day: int, *, last: bool, prepare_here: bool = True) -> None:
        """Hand a buffer to the encoder; the lock is held.

        Encoding takes longest, and one thread at a time encodes the rows of an upload. So the thread that brings them
        prepares them too, unless it belongs to another upload, which must not meet the errors of this one.
        """
        buffer = self._buffers[day]
        if buffer.is_empty:
            return
        before = buffer.size
        group = buffer.take(everything=last)
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
                for piece in prepare():
                    self._files.store(piece)
            finally:
                land()

        prepare: Callable[[], list[PreparedRows]] = partial(self._files.prepare, group)
        if prepare_here:
            try:
                prepare = partial(list, prepare())
            except BaseException:
                land()
                raise
        self._lane.submit(Job(run, land))


def _as_lakehouse_error(error: BaseException) -> BaseException:
    if isinstance(error, LakehouseError) or not isinstance(error, (OSError, pa.ArrowException)):
        return error
    return StorageError("the upload could not be stored")
