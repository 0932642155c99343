"""Which data files of one partition are worth being made into fewer. Pure functions.

Files of one topic and day are in time order each, but may overlap in time: where rows arrived in disorder, many small
ones do. Where two hold equal times, the order of arrival decides which row is read first. So files may be merged if
nothing that overlaps them arrived in between: then the merged file can take the place of the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lakehouse.catalog.iceberg.data_files import Arrival

# Files of a group are open at the same time where they overlap.
MOST_FILES_AT_ONCE = 128
# A group without end would be one step that nobody sees the progress of: it ends at so many files, or times the target.
MOST_FILES_IN_GROUP = 4096
MOST_TARGETS_IN_GROUP = 4
# Smaller than this share of the target is small. Files just below the target would be rewritten for next to nothing.
SMALL_SHARE = 8


@dataclass(frozen=True, slots=True)
class CompactionRule:
    """When compaction pays.

    Attributes:
        target_bytes: Size, as stored, at which a file is complete.
        min_files: Number of small files that is worth it.
    """

    target_bytes: int
    min_files: int

    @property
    def small_bytes(self) -> int:
        """Below this a file is small."""
        return max(self.target_bytes // SMALL_SHARE, 1)


@dataclass(frozen=True, slots=True)
class PartitionFile:
    """One data file of a partition.

    Attributes:
        path: URI.
        rows: Number of rows.
        size: Bytes as stored.
        start_ns, end_ns: First and last time.
        arrival: See `arrival_of`; None for files that another engine wrote, which are left alone.
        has_nan: Field ids of the columns with NaN, as far as they are known.
    """

    path: str
    rows: int
    size: int
    start_ns: int
    end_ns: int
    arrival: Arrival | None
    has_nan: frozenset[int] = frozenset()


def groups_to_compact(files: Iterable[PartitionFile], rule: CompactionRule) -> list[list[PartitionFile]]:
    """Groups of small files of one partition, each to be rewritten as few; files in order of arrival."""
    groups: list[list[PartitionFile]] = []
    # Small files that overlap nothing but one another, neighbours in time: they may be joined in any way.
    free: list[PartitionFile] = []
    free_bytes = 0

    def is_small(file: PartitionFile) -> bool:
        return file.arrival is not None and file.size < rule.small_bytes

    def end_free() -> None:
        nonlocal free_bytes
        if len(free) >= rule.min_files:
            groups.append(_by_arrival(free))
        free.clear()
        free_bytes = 0

    for overlapping in _overlapping(files):
        if all(map(is_small, overlapping)) and len(overlapping) <= MOST_FILES_AT_ONCE:
            free.extend(overlapping)
            free_bytes += sum(file.size for file in overlapping)
            if len(free) >= MOST_FILES_IN_GROUP or free_bytes >= MOST_TARGETS_IN_GROUP * rule.target_bytes:
                end_free()
            continue
        end_free()
        run: list[PartitionFile] = []
        for file in [*_by_arrival(overlapping), None]:
            if file is not None and is_small(file):
                run.append(file)
            if file is None or not is_small(file) or len(run) == MOST_FILES_AT_ONCE:
                if len(run) >= rule.min_files:
                    groups.append(run)
                run = []
    end_free()
    return groups


def _by_arrival(files: Iterable[PartitionFile]) -> list[PartitionFile]:
    """Files of other engines last, as they are read."""
    return sorted(files, key=lambda file: (file.arrival is None, file.arrival or (0, 0), file.path))


def _overlapping(files: Iterable[PartitionFile]) -> Iterable[Sequence[PartitionFile]]:
    """The files in groups that have no moment in common, by time."""
    group: list[PartitionFile] = []
    end_ns = 0
    for file in sorted(files, key=lambda file: (file.start_ns, file.end_ns)):
        if group and file.start_ns > end_ns:
            yield group
            group = []
        end_ns = max(end_ns, file.end_ns) if group else file.end_ns
        group.append(file)
    if group:
        yield group
