"""Values one by one: ranges, magnitudes, list elements, enumerations, patterns, presence, counts.

A range says nothing about NaN, which any judge of ranges lets pass. So each of these rules derives a second column that
is 1 where a value is present and not a number, and expects zeros there.
"""

import math
import re
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    MISSING,
    VALUE,
    Derived,
    Expectation,
    Numbers,
    Parameters,
    Rows,
    Rule,
    between,
    count_per_list,
    field_complaint,
    find_field,
    flat_elements,
    is_number,
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


class Range(Rule):
    """The number lies between limits."""

    name = "range"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = RangeLimits

    def __init__(self, path: FieldPath, parameters: RangeLimits, schema: pa.Schema) -> None:
        self._path = path
        self._parameters = parameters
        self.expectations = (between(VALUE, parameters.min, parameters.max), between(MISSING, 0, 0))
        self.expected = limits_text(parameters.min, parameters.max)

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "number")

    def derive(self, rows: Rows) -> Derived:
        values = rows.numbers(self._path)
        is_missing = np.isnan(values) & ~rows.is_null(self._path)
        if self._parameters.allow_infinity:
            values = np.where(np.isinf(values), math.nan, values)
        return {VALUE: values, MISSING: _flags(is_missing, self._parameters.allow_nan)}


class Magnitude(Rule):
    """The length of the vector of the struct's x, y and z lies between limits."""

    name = "magnitude"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = RangeLimits

    def __init__(self, path: FieldPath, parameters: RangeLimits, schema: pa.Schema) -> None:
        self._path = path
        self._parameters = parameters
        self._axes = self.fields(path, parameters)
        self.expectations = (between(VALUE, parameters.min, parameters.max), between(MISSING, 0, 0))
        self.expected = f"length of the vector {limits_text(parameters.min, parameters.max)}"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((*path, axis) for axis in "xyz")

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "struct")

    def derive(self, rows: Rows) -> Derived:
        x, y, z = (rows.numbers(axis) for axis in self._axes)
        length = np.sqrt(x * x + y * y + z * z)
        is_missing = np.isnan(length) & ~rows.is_null(self._path)
        if self._parameters.allow_infinity:
            length = np.where(np.isinf(length), math.nan, length)
        return {VALUE: length, MISSING: _flags(is_missing, self._parameters.allow_nan)}


class ElementsRange(Rule):
    """All elements of the list lie between limits; derives the number of those that do not."""

    name = "elements_range"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = RangeLimits

    def __init__(self, path: FieldPath, parameters: RangeLimits, schema: pa.Schema) -> None:
        self._path = path
        self._parameters = parameters
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = f"every element {limits_text(parameters.min, parameters.max)}"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "list")

    def derive(self, rows: Rows) -> Derived:
        column = rows.column(self._path)
        values = flat_elements(column)
        limits = self._parameters
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


class EnumerationParameters(Parameters):
    values: tuple[bool | int | float | str, ...] = Field(min_length=1)


class Enumeration(Rule):
    """The value is one of a list."""

    name = "enumeration"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = EnumerationParameters

    def __init__(self, path: FieldPath, parameters: EnumerationParameters, schema: pa.Schema) -> None:
        self._path = path
        found = find_field(schema, path)
        self._is_number = found is not None and is_number(found.type)
        values = [float(value) for value in parameters.values] if self._is_number else list(parameters.values)
        self.expectations = (Expectation(VALUE, "expect_column_values_to_be_in_set", {"value_set": values}),)
        self.expected = f"one of {', '.join(map(str, parameters.values))}"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        found = find_field(schema, path) if schema is not None and path else None
        if not path:
            return "belongs to a property, not to the whole object"
        if found is None:
            return None
        if not (is_number(found.type) or _is_text(found.type)):
            return f"needs a number or text; '{'.'.join(path)}' is {found.type}"
        if is_number(found.type) and any(isinstance(value, str) for value in parameters.values):
            return f"'{'.'.join(path)}' is {found.type}, but some of the values are texts"
        return None

    def derive(self, rows: Rows) -> Derived:
        if self._is_number:
            return {VALUE: rows.numbers(self._path)}
        return {VALUE: rows.column(self._path).to_numpy().astype(object)}


class PatternParameters(Parameters):
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return value


class Pattern(Rule):
    """The text matches a regular expression."""

    name = "pattern"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = PatternParameters

    def __init__(self, path: FieldPath, parameters: PatternParameters, schema: pa.Schema) -> None:
        self._path = path
        arguments = {"regex": parameters.pattern}
        self.expectations = (Expectation(VALUE, "expect_column_values_to_match_regex", arguments),)
        self.expected = f"matches {parameters.pattern}"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        if not path:
            return "belongs to a property, not to the whole object"
        found = find_field(schema, path) if schema is not None else None
        return None if found is None or _is_text(found.type) else f"needs text; '{'.'.join(path)}' is {found.type}"

    def derive(self, rows: Rows) -> Derived:
        return {VALUE: rows.column(self._path).to_numpy().astype(object)}


class PresentParameters(Parameters):
    nan_is_missing: bool = True
    empty_is_missing: bool = False


class Present(Rule):
    """There is a value: neither null nor, of numbers, NaN."""

    name = "present"
    kind = Kind.VALUE
    dimension = "completeness"
    parameters = PresentParameters

    def __init__(self, path: FieldPath, parameters: PresentParameters, schema: pa.Schema) -> None:
        self._path = path
        found = find_field(schema, path)
        self._looks_for_nan = parameters.nan_is_missing and found is not None and pa.types.is_floating(found.type)
        self._looks_for_empty = parameters.empty_is_missing and found is not None and _is_text(found.type)
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "a value in every row"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return None if path else "belongs to a property, not to the whole object"

    def derive(self, rows: Rows) -> Derived:
        missing = rows.is_null(self._path)
        if self._looks_for_nan:
            missing = missing | np.isnan(rows.numbers(self._path))
        if self._looks_for_empty:
            missing = missing | (rows.column(self._path) == "").fill_null(False).to_numpy()
        return {VALUE: missing.astype(np.float64)}

    def describe(self, column: str, value: Any) -> str:
        return "no value"


class CompareParameters(Parameters):
    operator: str
    other: str

    @field_validator("operator")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("<", "<=", ">", ">="):
            raise ValueError("expected one of <, <=, >, >=")
        return value


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
            return "belongs to a property, not to the whole object"
        complaints = (field_complaint(schema, each, "number") for each in cls.fields(path, parameters))
        return next(filter(None, complaints), None)

    def derive(self, rows: Rows) -> Derived:
        left, right = rows.numbers(self._left), rows.numbers(self._right)
        with np.errstate(invalid="ignore"):
            # Infinity minus infinity says nothing; a range sensor sends infinities for "too close" and "nothing there".
            return {VALUE: np.where(np.isfinite(left), left - right, math.nan)}

    def describe(self, column: str, value: Any) -> str:
        return f"differs by {value:.7g}"


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


class ExpectationParameters(Parameters):
    type: str
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in GreatExpectation.ALLOWED:
            raise ValueError(f"expected an expectation about single values: {', '.join(GreatExpectation.ALLOWED)}")
        return value


class GreatExpectation(Rule):
    """An expectation of Great Expectations, as it is, about the values of one property."""

    name = "expectation"
    kind = Kind.VALUE
    dimension = "conformity"
    parameters = ExpectationParameters
    # Those that judge value by value without knowing the others: a topic is judged in pieces.
    ALLOWED: ClassVar[tuple[str, ...]] = (
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_not_match_regex",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_not_be_null",
    )

    def __init__(self, path: FieldPath, parameters: ExpectationParameters, schema: pa.Schema) -> None:
        self._path = path
        found = find_field(schema, path)
        self._is_number = found is not None and is_number(found.type)
        self.expectations = (Expectation(VALUE, parameters.type, dict(parameters.kwargs)),)
        arguments = ", ".join(f"{name}={value!r}" for name, value in parameters.kwargs.items())
        self.expected = f"{parameters.type}({arguments})"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        if not path:
            return "belongs to a property, not to the whole object"
        found = find_field(schema, path) if schema is not None else None
        fits = found is None or is_number(found.type) or _is_text(found.type)
        return None if fits else f"needs a number or text; '{'.'.join(path)}' is {found.type}"  # type: ignore[union-attr]

    def derive(self, rows: Rows) -> Derived:
        if self._is_number:
            return {VALUE: rows.numbers(self._path)}
        return {VALUE: rows.column(self._path).to_numpy().astype(object)}


def _flags(marks: Any, allowed: bool) -> Numbers:
    return np.zeros(len(marks)) if allowed else marks.astype(np.float64)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
