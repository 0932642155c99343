"""What a content query looked at, and what bounds spared it."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lakehouse.catalog.query.conditions import FieldCondition

_LONGEST_OPERAND = 80


def condition_text(condition: FieldCondition) -> str:
    """A condition in one short line."""
    operand = repr(condition.condition.operand)
    if len(operand) > _LONGEST_OPERAND:
        operand = operand[:_LONGEST_OPERAND] + "..."
    return f"{condition.path} {condition.condition.operator} {operand}"


class Explanation:
    """Counts of one query; several threads may add to them.

    Attributes:
        files_compared_first: Data files of whole tables whose bounds were compared before any topic was looked up;
            None: topics were few enough to be looked up at once, and this and the two below are left out.
        files_excluded_first: Those of them that cannot hold a match, by the condition whose bounds say so first.
        sequences_left_over: Sequences in which topics were looked up then; None: too many to be worth a list, topics
            of all were.
        topics_considered: Topics with the tag, in the sequences that were left over.
        topics_matched: Those that have a matching row.
        files_considered: Data files of those topics.
        files_excluded: Files never opened, by the condition whose bounds excluded them first.
        files_opened: Files whose footer and rows were looked at.
        row_groups_considered: Row groups of opened files.
        row_groups_excluded: Row groups not read, by the condition whose statistics excluded them first.
        row_groups_read: Row groups of which rows were read.
        rows_scanned: Rows tested one by one.
    """

    def __init__(self) -> None:
        self.files_compared_first: int | None = None
        self.files_excluded_first: Counter[str] = Counter()
        self.sequences_left_over: int | None = None
        self.topics_considered = 0
        self.topics_matched = 0
        self.files_considered = 0
        self.files_excluded: Counter[str] = Counter()
        self.files_opened = 0
        self.row_groups_considered = 0
        self.row_groups_excluded: Counter[str] = Counter()
        self.row_groups_read = 0
        self.rows_scanned = 0
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to counters by name."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def compare_first(self, excluded: Iterable[tuple[FieldCondition, int]], count: int) -> None:
        """Count files whose bounds were compared before topics were looked up, and those excluded by a condition."""
        with self._lock:
            self.files_compared_first = (self.files_compared_first or 0) + count
            for condition, number in excluded:
                self.files_excluded_first[condition_text(condition)] += number

    def exclude_files(self, condition: FieldCondition, count: int) -> None:
        """Count files that the bounds of a condition excluded."""
        if count:
            with self._lock:
                self.files_excluded[condition_text(condition)] += count

    def exclude_row_groups(self, condition: FieldCondition, count: int) -> None:
        """Count row groups that the statistics of a condition excluded."""
        if count:
            with self._lock:
                self.row_groups_excluded[condition_text(condition)] += count

    def to_json(self) -> Mapping[str, Any]:
        """The counts as a JSON object."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in self._counts()}

    def _counts(self) -> list[tuple[str, Any]]:
        left_out = set() if self.files_compared_first is not None else {"files_excluded_first"}
        return [
            (name, value)
            for name, value in vars(self).items()
            if not name.startswith("_") and value is not None and name not in left_out
        ]
