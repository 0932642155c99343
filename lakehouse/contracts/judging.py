"""Great Expectations as the judge: derived columns in, failing rows out.

It is imported with the first judgement, not before: that takes ten seconds and 280 MB. Its pandas engine works on NumPy
columns; Arrow ones make it five times slower.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lakehouse.catalog.errors import shorten

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


class Judge:
    """Judges batches of columns, one validation per batch."""

    def __init__(self) -> None:
        self._batches: Any = None
        self._expectations: Any = None
        self._suite: Any = None

    def judge(self, columns: Mapping[str, npt.NDArray[Any]], questions: Sequence[Question]) -> list[Answer]:
        """Judge one batch.

        Args:
            columns: All of one length.
            questions: About these columns.

        Returns:
            One answer per question, in their order.
        """
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


def _expectation_classes(module: Any) -> list[Any]:
    return [kind for kind in vars(module).values() if isinstance(kind, type) and hasattr(kind, "expectation_type")]


def _answer(result: Any) -> Answer:
    failing = np.array(result.result.get("unexpected_index_list") or [], dtype=np.int64)
    exception = (result.exception_info or {}).get("exception_message")
    if exception is None and not result.success and not len(failing):
        inner = [each for each in (result.exception_info or {}).values() if isinstance(each, Mapping)]
        exception = next((each.get("exception_message") for each in inner), "no result")
    return Answer(np.sort(failing), None if exception is None else shorten(str(exception), 200))
