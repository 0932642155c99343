"""Values that are one of a list, match a pattern, or are there at all."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

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
    find_field,
    is_number,
    is_text,
    scalar_complaint,
)


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
        complaint = scalar_complaint(schema, path, numbers=True)
        found = find_field(schema, path) if schema is not None else None
        has_texts = any(isinstance(value, str) for value in parameters.values)
        if found is not None and is_number(found.type) and has_texts:
            return f"'{'.'.join(path)}' is {found.type}, but some of the values are texts"
        return complaint

    def derive(self, rows: Rows) -> Derived:
        return {VALUE: rows.numbers(self._path) if self._is_number else rows.texts(self._path)}


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
        return scalar_complaint(schema, path, numbers=False)

    def derive(self, rows: Rows) -> Derived:
        return {VALUE: rows.texts(self._path)}


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
        self._looks_for_empty = parameters.empty_is_missing and found is not None and is_text(found.type)
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "a value in every row"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return None if path else WHOLE_OBJECT

    def derive(self, rows: Rows) -> Derived:
        missing = rows.is_null(self._path)
        if self._looks_for_nan:
            missing = missing | np.isnan(rows.numbers(self._path))
        if self._looks_for_empty:
            missing = missing | (rows.column(self._path) == "").fill_null(False).to_numpy()
        return {VALUE: missing.astype(np.float64)}

    def describe(self, column: str, value: Any) -> str:
        return "no value"
