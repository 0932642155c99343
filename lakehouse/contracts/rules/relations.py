"""Values of one row that have to fit one another."""

import math
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    VALUE,
    WHOLE_OBJECT,
    Derived,
    Expectation,
    Parameters,
    Rows,
    Rule,
    between,
    field_complaint,
    list_lengths,
)


class SameLengthParameters(Parameters):
    columns: tuple[str, ...] = Field(min_length=2)
    allow_empty: bool = False


class SameLength(Rule):
    """Lists that belong together have one length; null ones do not count, empty ones if so allowed."""

    name = "same_length"
    kind = Kind.VALUE
    dimension = "consistency"
    parameters = SameLengthParameters

    def __init__(self, path: FieldPath, parameters: SameLengthParameters, schema: pa.Schema) -> None:
        self._columns = self.fields(path, parameters)
        self._allows_empty = parameters.allow_empty
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = f"{', '.join(parameters.columns)} of one length"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((*path, *column.split(".")) for column in parameters.columns)

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        complaints = (field_complaint(schema, column, "list") for column in cls.fields(path, parameters))
        return next(filter(None, complaints), None)

    def derive(self, rows: Rows) -> Derived:
        lengths = []
        for path in self._columns:
            column = rows.column(path)
            length = list_lengths(column).astype(np.float64)
            length[column.is_null().to_numpy()] = math.nan
            if self._allows_empty:
                length[length == 0] = math.nan
            lengths.append(length)
        longest, shortest = np.fmax.reduce(lengths), np.fmin.reduce(lengths)
        return {VALUE: longest - shortest}

    def describe(self, column: str, value: Any) -> str:
        return f"lengths differ by {value:.0f}"


class CompareParameters(Parameters):
    operator: Literal["<", "<=", ">", ">="]
    other: str


class Compare(Rule):
    """The number compares with another field of the same row; rows without either are not judged."""

    name = "compare"
    kind = Kind.VALUE
    dimension = "consistency"
    parameters = CompareParameters

    def __init__(self, path: FieldPath, parameters: CompareParameters, schema: pa.Schema) -> None:
        self._left, self._right = self.fields(path, parameters)
        strict = {"strict_min": ">", "strict_max": "<"}
        flags = {flag: True for flag, operator in strict.items() if operator == parameters.operator}
        limits = {"max_value": 0.0} if parameters.operator.startswith("<") else {"min_value": 0.0}
        self.expectations = (Expectation(VALUE, "expect_column_values_to_be_between", {**limits, **flags}),)
        self.expected = f"{parameters.operator} {parameters.other}"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return path, tuple(parameters.other.split("."))

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        if not path:
            return WHOLE_OBJECT
        complaints = (field_complaint(schema, each, "number") for each in cls.fields(path, parameters))
        return next(filter(None, complaints), None)

    def derive(self, rows: Rows) -> Derived:
        left, right = rows.numbers(self._left), rows.numbers(self._right)
        with np.errstate(invalid="ignore"):
            # Infinity minus infinity says nothing; a range sensor sends infinities for "too close" and "nothing there".
            return {VALUE: np.where(np.isfinite(left), left - right, math.nan)}

    def describe(self, column: str, value: Any) -> str:
        return f"differs by {value:.7g}"
