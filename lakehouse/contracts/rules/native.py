"""Expectations of Great Expectations, as they are."""

from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    VALUE,
    Derived,
    Expectation,
    Parameters,
    Rows,
    Rule,
    find_field,
    is_number,
    scalar_complaint,
)


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
    is_native = True
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
        return scalar_complaint(schema, path, numbers=True)

    def derive(self, rows: Rows) -> Derived:
        return {VALUE: rows.numbers(self._path) if self._is_number else rows.texts(self._path)}
