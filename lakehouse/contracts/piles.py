"""Columns that Great Expectations itself is to look at, collected until they are worth one judgement.

A judgement costs tens of milliseconds whatever its size, so small topics that are asked the same questions share one.
The memory they wait in is bounded.
"""

import numpy as np

from lakehouse.contracts.binding import Piece, filled
from lakehouse.contracts.judging import Answer, PlainJudge, Question

MAX_BYTES = 64 << 20


class Piles:
    """One pile per set of questions.

    Args:
        judge: Judges them.
        max_bytes: Derived columns kept waiting, over all piles; None: `MAX_BYTES`.
    """

    def __init__(self, judge: PlainJudge, max_bytes: int | None = None) -> None:
        self._judge = judge
        self._max_bytes = MAX_BYTES if max_bytes is None else max_bytes
        self._piles: dict[str, list[Piece]] = {}
        self._questions: dict[str, list[tuple[str, Question]]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, piece: Piece) -> None:
        """Add a piece; judges the largest pile if there is too much."""
        key = piece.topic.batch_key
        self._questions.setdefault(key, piece.topic.questions)
        self._piles.setdefault(key, []).append(piece)
        self._sizes[key] = self._sizes.get(key, 0) + piece.nbytes
        while sum(self._sizes.values()) > self._max_bytes:
            self._flush(max(self._sizes, key=lambda each: self._sizes[each]))

    def flush(self) -> None:
        """Judge everything."""
        for key in list(self._piles):
            self._flush(key)

    def _flush(self, key: str) -> None:
        pieces, _ = self._piles.pop(key), self._sizes.pop(key)
        names = sorted({name for piece in pieces for name in piece.columns})
        types = {name: next(p.columns[name].dtype for p in pieces if name in p.columns) for name in names}
        columns = {
            name: np.concatenate([filled(piece.columns, name, len(piece), types[name]) for piece in pieces])
            for name in names
        }
        # A rule that gave up half-way leaves questions without a column.
        questions = [(rule_id, each) for rule_id, each in self._questions.pop(key) if each.column in columns]
        answers = self._judge.judge(columns, [each for _, each in questions])
        by_rule: dict[str, list[tuple[str, Answer]]] = {}
        for (rule_id, question), answer in zip(questions, answers, strict=True):
            by_rule.setdefault(rule_id, []).append((question.column, answer))
        for rule_id, found in by_rule.items():
            _settle(pieces, rule_id, found)


def _settle(pieces: list[Piece], rule_id: str, found: list[tuple[str, Answer]]) -> None:
    """Give the answers about one rule back to the topics they are about."""
    complaint = next((answer.complaint for _, answer in found if answer.complaint), None)
    start = 0
    for piece in pieces:
        bound = piece.topic.rules[rule_id]
        end = start + len(piece)
        if complaint is not None:
            bound.give_up(complaint)
        if bound.is_working:
            derived = {
                column.rpartition("|")[2]: values for column, values in piece.columns.items() if _is_of(rule_id, column)
            }
            own = [
                (column.rpartition("|")[2], _within(answer, start, end))
                for column, answer in found
                if column in piece.columns
            ]
            bound.settle(derived, own, piece.block)
        start = end


def _is_of(rule_id: str, column: str) -> bool:
    return column.rpartition("|")[0] == rule_id


def _within(answer: Answer, start: int, end: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    first, last = np.searchsorted(answer.failing, [start, end])
    return answer.failing[first:last] - start
