"""The data files of one upload: which is open, where the next rows go, when a file ends."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import pyarrow as pa

from lakehouse.catalog.iceberg.bounds import ElementCounts, count_rows
from lakehouse.catalog.iceberg.data_files import DataFileEntry, data_file_uri
from lakehouse.catalog.iceberg.leaves import parquet_leaves
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.writing.data_file_writer import DataFileWriter, FilePlace
from lakehouse.catalog.writing.day_buffer import RowGroup
from lakehouse.catalog.writing.encoding import choose_encoding
from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN, StoragePlan
from lakehouse.ontology.envelope import Envelope

# The disk takes closed files while the encoder goes on, but not more of them at a time.
FILES_BEING_SYNCHRONISED = 2
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
class PreparedRows:
    """One row group of a file, complete and sorted by time.

    Attributes:
        counts: The result of `count_rows`.
        size: Bytes of Arrow data.
    """

    day: int
    rows: pa.Table
    counts: Sequence[ElementCounts | None]
    size: int


class UploadFiles:
    """Sorts row groups into files: one partition each, rising in time, up to the size limit.

    For one thread at a time, except `prepare`.
    """

    def __init__(self, target: UploadTarget, limits: UploadLimits, warehouse: Warehouse) -> None:
        self._target = target
        self._limits = limits
        self._warehouse = warehouse
        self._envelope = Envelope(target.parquet_schema, target.sequence, target.session)
        self._leaves = parquet_leaves(target.parquet_schema)
        self._open_files: OrderedDict[int, DataFileWriter] = OrderedDict()
        self._entries: list[DataFileEntry] = []
        self._synchronising: deque[Future[None]] = deque()
        self._next_ordinal = 0
        # Grows only: a column that held NaN once will do so again.
        self._columns_with_nan: frozenset[int] = frozenset()

    @property
    def entries(self) -> tuple[DataFileEntry, ...]:
        """The closed files, in order of arrival."""
        return tuple(sorted(self._entries, key=lambda entry: entry.ordinal))

    def prepare(self, group: RowGroup) -> list[PreparedRows]:
        """All that can be done before it is known which file the rows go to. May run in any thread."""
        rows = self._envelope.add(group.rows())
        pieces = max(1, min(rows.num_rows, round(group.size / self._limits.buffer)))
        prepared = []
        for number in range(pieces):
            first, last = rows.num_rows * number // pieces, rows.num_rows * (number + 1) // pieces
            piece = rows.slice(first, last - first)
            prepared.append(PreparedRows(group.day, piece, count_rows(piece, self._leaves), group.size // pieces))
        return prepared

    def store(self, piece: PreparedRows) -> None:
        """Write one row group; opens and closes files as needed.

        Raises:
            StorageError: If the warehouse fails.
        """
        day, rows = piece.day, piece.rows
        times = rows.column(TIMESTAMP_COLUMN)
        start_ns, end_ns = times[0].as_py(), times[-1].as_py()
        with_nan = {
            leaf.field_id
            for leaf, count in zip(self._leaves, piece.counts, strict=True)
            if count is not None and count.nans and not leaf.is_repeated
        }
        self._columns_with_nan |= with_nan
        writer = self._open_files.get(day)
        if writer is not None and writer.end_ns is not None:
            full = self._limits.file and writer.arrow_bytes + piece.size > self._limits.file
            if full or start_ns < writer.end_ns or not with_nan <= writer.columns_with_nan:
                self._close_file(day)
                writer = None
        if writer is None:
            writer = self._open_file(day, rows)
        self._open_files.move_to_end(day)
        writer.write(rows, piece.counts, start_ns, end_ns, piece.size)

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
        entry = self._open_files[day].close()
        self._entries.append(entry)
        del self._open_files[day]
        self._synchronising.append(self._warehouse.begin_making_contents_durable(entry.path))
        self._await_synchronised(at_most=FILES_BEING_SYNCHRONISED)

    def _await_synchronised(self, at_most: int) -> None:
        while len(self._synchronising) > at_most:
            self._synchronising.popleft().result()

    def close(self) -> None:
        """Close all open files; `make_durable` makes them survive a power cut.

        Raises:
            StorageError: If the warehouse fails.
        """
        while self._open_files:
            self._close_file(next(iter(self._open_files)))

    def make_durable(self) -> None:
        """Return when the closed files survive a power cut, their names included.

        Raises:
            StorageError: If the warehouse fails.
        """
        self._await_synchronised(at_most=0)
        self._warehouse.make_names_durable(entry.path for entry in self._entries)

    def discard(self) -> None:
        """Remove all files, open and closed. What cannot be removed is an orphan that maintenance collects."""
        for writer in self._open_files.values():
            writer.discard()
        self._open_files.clear()
        self._warehouse.discard(entry.path for entry in self._entries)
