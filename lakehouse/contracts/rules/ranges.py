"""Numbers within limits: single ones, lengths of vectors, elements of lists, counts of rows.

A range says nothing about NaN, which any judge of ranges lets pass. So these rules derive a second column that is 1
where a value is present and not a number, and expect zeros there.
"""

import math
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    MISSING,
    VALUE,
    Derived,
    Numbers,
    Parameters,
    Rows,
    Rule,
    between,
    count_per_list,
    field_complaint,
    flat_elements,
    limits_text,
    list_lengths,
)


class Limits(Parameters):
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> "Limits":
        if self.min is None and self.max is None:
            raise ValueError("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not exceed max")
        return self


class RangeLimits(Limits):
    allow_nan: bool = Field(False, alias="allowNaN")
    allow_infinity: bool = False


class _InLimits(Rule):
    """A rule about something in a field that lies between limits, in words `what`."""

    kind = Kind.VALUE
    dimension = "conformity"
    parameters = RangeLimits
    field_kind: ClassVar[str]
    what: ClassVar[str] = ""

    def __init__(self, path: FieldPath, parameters: RangeLimits, schema: pa.Schema) -> None:
        self._path = path
        self._limits = parameters
        self._fields = self.fields(path, parameters)
        self.expectations = (between(VALUE, parameters.min, parameters.max), between(MISSING, 0, 0))
        self.expected = f"{self.what}{limits_text(parameters.min, parameters.max)}"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, cls.field_kind)

    def _number_per_row(self, values: Numbers, rows: Rows) -> Derived:
        """The columns of a rule that looks at one number in each row."""
        is_missing = np.isnan(values)
        if is_missing.any():
            is_missing &= ~rows.is_null(self._path)
        if self._limits.allow_infinity:
            values = np.where(np.isinf(values), math.nan, values)
        return {VALUE: values, MISSING: np.zeros(len(values)) if self._limits.allow_nan else is_missing.astype(float)}


class Range(_InLimits):
    """The number lies between limits."""

    name = "range"
    field_kind = "number"

    def derive(self, rows: Rows) -> Derived:
        return self._number_per_row(rows.numbers(self._path), rows)


class Magnitude(_InLimits):
    """The length of the vector of the struct's x, y and z lies between limits."""

    name = "magnitude"
    field_kind = "struct"
    what = "length of the vector "

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((*path, axis) for axis in "xyz")

    def derive(self, rows: Rows) -> Derived:
        return self._number_per_row(rows.norm(self._fields), rows)


class ElementsRange(_InLimits):
    """All elements of the list lie between limits; derives the number of those that do not."""

    name = "elements_range"
    field_kind = "list"
    what = "every element "

    def __init__(self, path: FieldPath, parameters: RangeLimits, schema: pa.Schema) -> None:
        super().__init__(path, parameters, schema)
        self.expectations = (between(VALUE, 0, 0),)

    def derive(self, rows: Rows) -> Derived:
        column = rows.column(self._path)
        values = flat_elements(column)
        limits = self._limits
        bad = np.zeros(len(values), dtype=bool) if limits.allow_nan else np.isnan(values)
        outside = np.zeros(len(values), dtype=bool)
        if limits.min is not None:
            outside |= values < limits.min
        if limits.max is not None:
            outside |= values > limits.max
        if limits.allow_infinity:
            outside &= ~np.isinf(values)
        return {VALUE: count_per_list(bad | outside, list_lengths(column))}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.0f} elements outside"


class RowCount(Rule):
    """The topic has so many rows."""

    name = "row_count"
    kind = Kind.VALUE
    dimension = "completeness"
    parameters = Limits

    def __init__(self, path: FieldPath, parameters: Limits, schema: pa.Schema) -> None:
        self._count = 0
        self.expectations = (between(VALUE, parameters.min, parameters.max),)
        self.expected = f"{limits_text(parameters.min, parameters.max)} rows"

    def derive(self, rows: Rows) -> Derived:
        self._count += len(rows)
        return {}

    def finish(self) -> dict[str, float]:
        return {VALUE: float(self._count)}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.0f} rows"
