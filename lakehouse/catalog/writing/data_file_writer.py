"""One open Parquet file of an upload."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.catalog import crash_points
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.bounds import ElementCounts, column_metrics, float_extremes
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.leaves import Leaf
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.writing.encoding import FileEncoding


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where a file stands: its URI, its partition and its number within the upload."""

    uri: str
    sequence: str
    day: int
    ordinal: int


class DataFileWriter:
    """Writes row groups of rising time into one file, and describes it when it is closed."""

    def __init__(
        self,
        warehouse: Warehouse,
        place: FilePlace,
        schema: pa.Schema,
        leaves: Sequence[Leaf],
        encoding: FileEncoding,
        columns_with_nan: frozenset[int],
    ) -> None:
        """Create the file.

        Args:
            warehouse: Where the file goes.
            place: Its URI and partition.
            schema: Its columns.
            leaves: The leaves of the schema.
            encoding: The encoding of each leaf.
            columns_with_nan: Field ids of the columns that may hold NaN in this file, and so get no statistics.

        Raises:
            StorageError: If the warehouse refuses.
        """
        self.place = place
        self.columns_with_nan = columns_with_nan
        self.arrow_bytes = 0
        self.end_ns: int | None = None
        self._start_ns = 0
        self._rows = 0
        self._warehouse = warehouse
        self._leaves = leaves
        self._counts: list[Sequence[ElementCounts | None]] = []
        self._footers: list[pq.FileMetaData] = []
        self._sink = warehouse.open_output(place.uri)
        try:
            self._writer = pq.ParquetWriter(
                self._sink,
                schema,
                # The exact Arrow schema is kept with the topic; here it would fill the footers of small files.
                store_schema=False,
                metadata_collector=self._footers,
                **encoding.writer_options(),
            )
        except BaseException:
            self._remove()
            raise

    def write(
        self, rows: pa.Table, counts: Sequence[ElementCounts | None], start_ns: int, end_ns: int, arrow_bytes: int
    ) -> None:
        """Write one row group, sorted by time, none of it before what the file holds.

        Args:
            rows: The rows of the row group.
            counts: The result of `count_rows`.
            start_ns, end_ns: First and last time.
            arrow_bytes: Size of the rows in memory.

        Raises:
            StorageError: If the warehouse fails.
        """
        for leaf, count in zip(self._leaves, counts, strict=True):
            if count is not None and leaf.field_id in self.columns_with_nan:
                count.extremes = float_extremes(rows, leaf)
        try:
            self._writer.write_table(rows, row_group_size=max(1, rows.num_rows))
        except OSError as error:
            raise StorageError("a data file could not be written") from error
        self._counts.append(counts)
        if self._rows == 0:
            self._start_ns = start_ns
        self.end_ns = end_ns
        self._rows += rows.num_rows
        self.arrow_bytes += arrow_bytes

    @property
    def stored_bytes(self) -> int:
        """Size of the row groups written so far."""
        return int(self._sink.tell())

    def close(self) -> DataFileEntry:
        """Finish the file; making it survive a power cut is left to the caller.

        Raises:
            StorageError: If the warehouse fails.
        """
        assert self.end_ns is not None, "a data file holds at least one row"
        crash_points.reach("data-file-close:before")
        try:
            self._writer.close()
            size = self._sink.tell()
            self._sink.close()
        except OSError as error:
            raise StorageError("a data file could not be written") from error
        crash_points.reach("data-file-close:after")
        footer = self._footers[0]
        metrics = column_metrics(footer, self._leaves, self._counts)
        return DataFileEntry(
            path=self.place.uri,
            sequence=self.place.sequence,
            day=self.place.day,
            record_count=self._rows,
            file_size=size,
            start_ns=self._start_ns,
            end_ns=self.end_ns,
            ordinal=self.place.ordinal,
            column_sizes=metrics.column_sizes,
            value_counts=metrics.value_counts,
            null_value_counts=metrics.null_value_counts,
            nan_value_counts=metrics.nan_value_counts,
            lower_bounds=metrics.lower_bounds,
            upper_bounds=metrics.upper_bounds,
            element_bounds=metrics.element_bounds,
            split_offsets=_split_offsets(footer),
        )

    def discard(self) -> None:
        """Give the file up and remove what is there of it."""
        # After a failed write the writer may be in any state, and says so with any exception.
        with suppress(Exception):
            self._writer.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError, pa.ArrowException):
            self._sink.close()
        self._warehouse.discard([self.place.uri])


def _split_offsets(footer: pq.FileMetaData) -> tuple[int, ...]:
    offsets = []
    for number in range(footer.num_row_groups):
        first = footer.row_group(number).column(0)
        dictionary = first.dictionary_page_offset if first.has_dictionary_page else None
        offsets.append(min(first.data_page_offset, dictionary) if dictionary else first.data_page_offset)
    return tuple(sorted(offsets))
