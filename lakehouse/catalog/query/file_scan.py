"""The rows of one data file that satisfy a predicate, reading only the leaves and row groups that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lakehouse.catalog import work_limit
from lakehouse.catalog.activity import Activity
from lakehouse.catalog.query.element_bounds import ElementBounds
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.predicates import RowPredicate
from lakehouse.catalog.query.pruning import can_exclude, may_match
from lakehouse.catalog.query.row_group_bounds import find_leaf, row_group_bounds
from lakehouse.catalog.reading.parquet_slices import Footer, ParquetSlices, Selection
from lakehouse.ontology.storage_names import SEQUENCE_COLUMN, TIMESTAMP_COLUMN

MIB = 1 << 20
MAX_ROWS_PER_BATCH = 1 << 16
# Decoded size that a batch of the leaves read is cut to.
BATCH_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """What is read of a file.

    Attributes:
        columns: Parquet paths of the leaves.
        row_groups: Row groups that may hold matching rows.
        excluded: Row groups inside the window which statistics exclude.
        rows_per_batch: Rows decoded at a time.
    """

    columns: tuple[str, ...]
    row_groups: tuple[int, ...]
    excluded: tuple[int, ...]
    rows_per_batch: int


class FileScanner:
    """Finds matching rows in data files.

    Args:
        slices: Reads files and keeps footers.
        elements: Told the bounds of lists and maps.
        is_pruning: Whether statistics of row groups are believed.
        activity: Counts the files.
        batch_bytes: Decoded rows of a file held at a time, bytes.
    """

    def __init__(
        self,
        slices: ParquetSlices,
        elements: ElementBounds,
        *,
        is_pruning: bool = True,
        activity: Activity | None = None,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._batch_bytes = batch_bytes
        self._activity = activity or Activity()
        self._slices = slices
        self._elements = elements
        self._is_pruning = is_pruning

    def plan(
        self, path: str, selection: Selection, predicate: RowPredicate, explanation: Explanation | None = None
    ) -> ScanPlan:
        """Decide what to read.

        Raises:
            StorageError: If the file is gone or damaged.
        """
        work_limit.check()
        self._activity.add(query_files_opened=1)
        footer = self._slices.footer(path)
        row_groups = np.array(footer.row_groups(selection.window), np.int64)
        kept = np.ones(len(row_groups), np.bool_)
        columns = {TIMESTAMP_COLUMN: None}
        leaves = []
        for condition in predicate.conditions:
            column = condition.column
            found = {leaf: _find(footer, leaf, selection) for leaf in column.leaf_paths}
            leaves += [number for number in found.values() if number is not None]
            if self._is_pruning and can_exclude(condition) and len(row_groups):
                bounds = row_group_bounds(
                    footer.metadata, found[column.leaf_path], column.storage_kind, row_groups.tolist()
                )
                if column.is_repeated and len(row_groups) == np.count_nonzero(footer.row_counts):
                    self._elements.learn(path, column.leaf_path, bounds)
                may = may_match(condition, bounds)
                if explanation is not None:
                    explanation.exclude_row_groups(condition.source, int(np.count_nonzero(kept & ~may)))
                kept &= may
        columns |= {footer.metadata.schema.column(number).path: None for number in leaves}
        if explanation is not None:
            explanation.add(
                files_opened=1, row_groups_considered=len(row_groups), row_groups_read=int(np.count_nonzero(kept))
            )
        return ScanPlan(
            tuple(columns),
            tuple(row_groups[kept].tolist()),
            tuple(row_groups[~kept].tolist()),
            _rows_per_batch(footer, leaves, self._batch_bytes),
        )

    def matches(
        self, path: str, selection: Selection, predicate: RowPredicate, explanation: Explanation | None = None
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Timestamps of the matching rows in file order, in arrays that are never empty.

        Raises:
            StorageError: If the file is gone or damaged.
        """
        if predicate.is_never:
            return
        plan = self.plan(path, selection, predicate, explanation)
        yield from self.matches_in(path, selection, predicate, plan, plan.row_groups, explanation)

    def matches_in(
        self,
        path: str,
        selection: Selection,
        predicate: RowPredicate,
        plan: ScanPlan,
        row_groups: tuple[int, ...],
        explanation: Explanation | None = None,
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Like `matches`, in these row groups only."""
        for batch in self._slices.rows(path, row_groups, selection, plan.columns, plan.rows_per_batch):
            work_limit.check()
            if explanation is not None:
                explanation.add(rows_scanned=len(batch.timestamps))
            found = predicate.mask(batch.rows)
            if found.all():
                yield batch.timestamps
            elif found.any():
                yield batch.timestamps[found]

    def sequences(self, path: str, selection: Selection, predicate: RowPredicate) -> set[str]:
        """Sequences of matching rows, of a file that may hold several.

        Raises:
            StorageError: If the file is gone or damaged.
        """
        plan = self.plan(path, selection, predicate)
        found: set[str] = set()
        columns = [*plan.columns, SEQUENCE_COLUMN]
        for batch in self._slices.rows(path, plan.row_groups, selection, columns, plan.rows_per_batch):
            work_limit.check()
            names = batch.rows.column(SEQUENCE_COLUMN).filter(predicate.mask(batch.rows))
            found.update(name for name in names.unique().to_pylist() if name is not None)
        return found


def _find(footer: Footer, leaf: tuple[str, ...], selection: Selection) -> int | None:
    """Number of the Parquet column of a leaf of the topic; None if the file has none."""
    own = leaf if selection.columns is None else selection.columns.source_path(leaf)
    return None if own is None else find_leaf(footer.metadata, own)


def _rows_per_batch(footer: Footer, leaves: list[int], batch_bytes: int) -> int:
    metadata = footer.metadata
    size = sum(
        metadata.row_group(group).column(leaf).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for leaf in set(leaves)
    )
    bytes_per_row = 8 + size / max(metadata.num_rows, 1)
    return int(min(max(batch_bytes / bytes_per_row, 1), MAX_ROWS_PER_BATCH))
