"""Who judges: Great Expectations, or, where it is not loaded, the same expectations evaluated here.

It is imported with the first judgement, not before: that takes ten seconds and 280 MB. What it is asked is small: for
all rules of many topics how many rows failed, against what the contract allows; and the rows themselves only where a
contract has expectations of its own. Its pandas engine works on NumPy columns; Arrow ones make it five times slower.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lakehouse.catalog.errors import shorten
from lakehouse.contracts.model import Tolerance
from lakehouse.contracts.rules.rule import Expectation, between
from lakehouse.contracts.screening import failing_rows

# For each expectation the engine copies the rows with a value, in all columns of the batch: from so many rows on, a
# batch per column is quicker than one for all.
LARGE_ROWS = 20_000

_RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "exclude_unexpected_values": True,
    "return_unexpected_index_query": False,
}


@dataclass(frozen=True)
class Question:
    """One expectation about one column of a batch."""

    column: str
    type: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        failing: Numbers of the rows that do not meet the expectation, rising.
        complaint: Why it could not be judged; None if it could.
    """

    failing: npt.NDArray[np.int64]
    complaint: str | None = None


@dataclass(frozen=True)
class Measure:
    """A number that a verdict rests on, and between which limits it must lie."""

    value: float
    expectation: Expectation


def measures_of(failed: int, checked: int, tolerance: Tolerance) -> list[Measure]:
    """What the verdict about a rule rests on: how many rows failed, and which share of those checked."""
    measures = []
    if tolerance.rows is not None or tolerance.percent is None:
        measures.append(Measure(failed, between("rows failed", 0, tolerance.rows or 0)))
    if tolerance.percent is not None:
        # A quotient of whole numbers is the double nearest to it, as the limit is the one nearest to what was written.
        percent = 100 * failed / max(checked, 1)
        measures.append(Measure(percent, between("percent failed", 0, tolerance.percent)))
    return measures


class PlainJudge:
    """Judges without Great Expectations: at once, and with the same answers where it knows the expectation.

    Attributes:
        defers: Whether rules that are expectations of Great Expectations are brought here, with their rows.
    """

    defers = False

    def judge(self, columns: Mapping[str, npt.NDArray[Any]], questions: Sequence[Question]) -> list[Answer]:
        """Judge one batch.

        Args:
            columns: All of one length.
            questions: About these columns.

        Returns:
            One answer per question, in their order.
        """
        return [Answer(failing_rows(each.type, each.arguments, columns[each.column])) for each in questions]

    def broken(self, outcomes: Sequence[Sequence[Measure]]) -> list[bool]:
        """Which of the outcomes do not lie in all their limits, in one batch: a row each, a column per limit."""
        places: dict[str, list[tuple[int, Measure]]] = {}
        for row, measures in enumerate(outcomes):
            for each in measures:
                places.setdefault(_limit_name(each.expectation), []).append((row, each))
        columns = {}
        for name, found in places.items():
            columns[name] = np.full(len(outcomes), np.nan)
            columns[name][[row for row, _ in found]] = [each.value for _, each in found]
        limits = {name: found[0][1].expectation for name, found in places.items()}
        answers = self.judge(columns, [Question(name, each.type, each.arguments) for name, each in limits.items()])
        broken = np.zeros(len(outcomes), dtype=bool)
        for name, answer in zip(limits, answers, strict=True):
            broken[answer.failing] = True
            if answer.complaint is not None:
                # What cannot be judged has not passed.
                broken[~np.isnan(columns[name])] = True
        return [bool(each) for each in broken]


class Judge(PlainJudge):
    """Great Expectations, loaded with its first judgement."""

    defers = True

    def __init__(self) -> None:
        self._batches: Any = None
        self._expectations: Any = None
        self._suite: Any = None

    def judge(self, columns: Mapping[str, npt.NDArray[Any]], questions: Sequence[Question]) -> list[Answer]:
        """See `PlainJudge.judge`; one validation per batch."""
        if not questions:
            return []
        self._load()
        by_column: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            by_column.setdefault(question.column, []).append(number)
        is_large = len(columns[questions[0].column]) >= LARGE_ROWS
        groups = [[*numbers] for numbers in by_column.values()] if is_large else [list(range(len(questions)))]
        answers: dict[int, Answer] = {}
        for numbers in groups:
            names = {questions[number].column for number in numbers}
            found = self._validate({name: columns[name] for name in names}, [questions[number] for number in numbers])
            answers.update(zip(numbers, found, strict=True))
        return [answers[number] for number in range(len(questions))]

    def _validate(self, columns: Mapping[str, npt.NDArray[Any]], questions: Sequence[Question]) -> list[Answer]:
        import pandas as pd

        frame = pd.DataFrame(dict(columns), copy=False)
        # The validator reports in an order of its own; the identity is carried along.
        expectations = [
            self._expectations[question.type](column=question.column, meta={"number": number}, **question.arguments)
            for number, question in enumerate(questions)
        ]
        suite = self._suite(name="contract", expectations=expectations)
        batch = self._batches.get_batch({"dataframe": frame})
        found = batch.validate(suite, result_format=_RESULT_FORMAT)
        answers: dict[int, Answer] = {}
        for result in found.results:
            answers[result.expectation_config.meta["number"]] = _answer(result)
        return [answers[number] for number in range(len(questions))]

    def _load(self) -> None:
        if self._batches is not None:
            return
        import great_expectations as gx
        from great_expectations.expectations import core

        # What it calculates is of no interest to an operator who reads the log of a run.
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        asset = context.data_sources.add_pandas("derived").add_dataframe_asset("rows")
        self._batches = asset.add_batch_definition_whole_dataframe("batch")
        self._suite = gx.ExpectationSuite
        self._expectations = {kind.expectation_type: kind for kind in _expectation_classes(core)}


def _limit_name(expectation: Expectation) -> str:
    return f"{expectation.column} {expectation.type} {sorted(expectation.arguments.items())}"


def _expectation_classes(module: Any) -> list[Any]:
    return [kind for kind in vars(module).values() if isinstance(kind, type) and hasattr(kind, "expectation_type")]


def _answer(result: Any) -> Answer:
    failing = np.array(result.result.get("unexpected_index_list") or [], dtype=np.int64)
    exception = (result.exception_info or {}).get("exception_message")
    if exception is None and not result.success and not len(failing):
        inner = [each for each in (result.exception_info or {}).values() if isinstance(each, Mapping)]
        exception = next((each.get("exception_message") for each in inner), "no result")
    return Answer(np.sort(failing), None if exception is None else shorten(str(exception), 200))
