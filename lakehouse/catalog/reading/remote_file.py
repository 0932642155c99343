"""Files of an object store, fetched in as few requests as their row groups allow.

A request to an object store costs more than its bytes. Arrow asks for the size of a file before it opens it, and for
column chunks apart as soon as a few kilobytes lie between them. Here the end of a file is asked for at once, which
tells its size, and the wanted chunks of a row group are fetched together, with what lies between them.
"""

import io
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.storage import Warehouse

# What Arrow reads from the end of a file: enough for the footers of most.
TAIL_BYTES = 64 << 10
# As long as it takes to begin a request, a store sends about as much.
LARGEST_HOLE_BYTES = 1 << 20
# The next row group is fetched while one is decoded, unless it is so large that two were too much.
READ_AHEAD_BYTES = 32 << 20
# Small ones, such as the columns of a query, are over before a store has begun to answer: of these more are under way,
# the more the longer a read goes on, because many a query ends at its first match.
ROW_GROUPS_AHEAD = 8
SMALL_BYTES_AHEAD = 8 << 20
# What is fetched for a read that probably follows: at most so much of a row group, and of all.
FORESEEN_BYTES = 32 << 20
FORESEEN_CACHE_BYTES = 128 << 20

# They wait for the store, not for the processor; idle ones cost nothing.
_fetchers = ThreadPoolExecutor(16, thread_name_prefix="fetch")


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive bytes of a file."""

    start: int
    content: bytes

    @property
    def stop(self) -> int:
        return self.start + len(self.content)


class SparseFile(io.RawIOBase):
    """A file for Arrow to read, of which some spans are in memory and the rest is fetched when it is asked for.

    Args:
        size: Bytes of the whole file.
        fetch: Returns the bytes from one position up to another.
        spans: What is in memory from the beginning to the end.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], *spans: Span) -> None:
        self.size = size
        self._fetch = fetch
        self._kept = spans
        self._spans = spans
        self._position = 0

    def hold(self, spans: Sequence[Span]) -> None:
        """Have these in memory, in place of what the last call brought."""
        self._spans = (*self._kept, *spans)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = origin + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes | memoryview:
        """Bytes from here on; without a copy where they are in memory."""
        start = self._position
        stop = self.size if size is None or size < 0 else min(start + size, self.size)
        self._position = max(start, stop)
        if stop <= start:
            return b""
        for span in self._spans:
            if span.start <= start and stop <= span.stop:
                return memoryview(span.content)[start - span.start : stop - span.start]
        return self._fetch(start, stop)


class RemoteFiles:
    """Fetches parts of Parquet files; those that were foreseen are kept until they are asked for.

    Args:
        warehouse: Where the files are.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._foreseen: BoundedCache[tuple[str, int], list[Span]] = BoundedCache(
            FORESEEN_CACHE_BYTES, lambda spans: sum(len(span.content) for span in spans)
        )

    def tail(self, path: str) -> tuple[int, Span]:
        """Size of a file, and its end.

        Raises:
            StorageError: If it is gone, or the store fails.
        """
        content, size = self._warehouse.read_tail(path, TAIL_BYTES)
        return size, Span(size - len(content), content)

    def file(self, path: str, size: int, *spans: Span) -> SparseFile:
        """A file of which these spans are known."""
        return SparseFile(size, lambda start, stop: self._warehouse.read_range(path, start, stop), *spans)

    def fetched(
        self,
        file: SparseFile,
        path: str,
        metadata: pq.FileMetaData,
        row_groups: Sequence[int],
        columns: Sequence[str],
        foreseen: Sequence[str] = (),
    ) -> Generator[int]:
        """Row group after row group, each in memory when its number comes.

        Args:
            file: Made to hold the row group.
            path: Its URI.
            metadata: Its footer.
            row_groups: Numbers of row groups.
            columns: Columns, or Parquet paths of leaves, that will be read.
            foreseen: Those that will probably be read of the same row groups next.

        Raises:
            StorageError: If the file is gone, or the store fails.
        """
        wanted, possible = _leaves(metadata, columns), _leaves(metadata, [*columns, *foreseen])
        begun: dict[int, list[Future[Span]]] = {}
        sizes: dict[int, int] = {}

        def begin(row_group: int, limit: int) -> bool:
            """Ask for what is missing of a row group, unless that is too much; whether it is there or under way."""
            if row_group in begun or _is_known(self._foreseen.peek((path, row_group)), metadata, row_group, wanted):
                return True
            ranges = _together(_chunks(metadata, row_group, possible if foreseen else wanted))
            if foreseen and _length(ranges) > FORESEEN_BYTES:
                ranges = _together(_chunks(metadata, row_group, wanted))
            if _length(ranges) > limit:
                return False
            sizes[row_group] = _length(ranges)
            begun[row_group] = [_fetchers.submit(self._fetch, path, *each) for each in ranges]
            return True

        try:
            for position, row_group in enumerate(row_groups):
                begin(row_group, file.size)
                fetched = [future.result() for future in begun.pop(row_group, ())]
                if foreseen and fetched:
                    self._foreseen.keep((path, row_group), fetched)
                file.hold(fetched or self._foreseen.peek((path, row_group)) or ())
                for following in row_groups[position + 1 : position + 1 + min(2 << position, ROW_GROUPS_AHEAD)]:
                    ahead = sum(sizes[each] for each in begun)
                    if not begin(following, SMALL_BYTES_AHEAD - ahead if begun else READ_AHEAD_BYTES):
                        break
                yield row_group
        finally:
            for futures in begun.values():
                for future in futures:
                    future.cancel()

    def _fetch(self, path: str, start: int, stop: int) -> Span:
        return Span(start, self._warehouse.read_range(path, start, stop))


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[int]:
    """Numbers of the leaves that these are, or that are below them."""
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    prefixes = tuple(f"{column}." for column in columns)
    return [number for number, path in enumerate(paths) if path in columns or path.startswith(prefixes)]


def _chunks(metadata: pq.FileMetaData, row_group: int, leaves: Sequence[int]) -> list[tuple[int, int]]:
    """Where the column chunks of a row group begin and end, in the order of the file."""
    chunks = []
    of_group = metadata.row_group(row_group)
    for leaf in leaves:
        chunk = of_group.column(leaf)
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
            start = min(start, chunk.dictionary_page_offset)
        chunks.append((start, start + chunk.total_compressed_size))
    return sorted(chunks)


def _together(chunks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges to ask for: holes are filled where that costs less than another request."""
    ranges: list[tuple[int, int]] = []
    for start, stop in chunks:
        if ranges and start - ranges[-1][1] <= LARGEST_HOLE_BYTES:
            ranges[-1] = (ranges[-1][0], max(stop, ranges[-1][1]))
        else:
            ranges.append((start, stop))
    return ranges


def _length(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _is_known(spans: Sequence[Span] | None, metadata: pq.FileMetaData, row_group: int, leaves: Sequence[int]) -> bool:
    return spans is not None and all(
        any(span.start <= start and stop <= span.stop for span in spans)
        for start, stop in _chunks(metadata, row_group, leaves)
    )
