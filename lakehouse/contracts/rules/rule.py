"""What a rule is: it derives columns of numbers from blocks of rows, and says what to expect of them.

Rules never judge. They turn what is asked of a robot into columns for which an expectation of Great Expectations
exists; almost all of these are numbers that must lie between two limits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from lakehouse.contracts.model import FieldPath, Kind

Numbers = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]
# Numbers, or what is judged as it is: texts, in a column of objects.
Derived = Mapping[str, npt.NDArray[Any]]

NANOSECONDS = 1e9
VALUE, MISSING = "", "missing"
WHOLE_OBJECT = "belongs to a property, not to the whole object"


class Parameters(BaseModel):
    """Parameters of a rule, in camel case as everything in the standard."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Expectation:
    """One expectation about one derived column.

    Attributes:
        column: Which of the columns the rule derives; `VALUE` is the main one.
        type: Name in Great Expectations.
        arguments: Of the expectation, without the column.
    """

    column: str
    type: str
    arguments: Mapping[str, Any]


def between(column: str, low: float | None, high: float | None) -> Expectation:
    return Expectation(column, "expect_column_values_to_be_between", {"min_value": low, "max_value": high})


class Rows:
    """A block of rows of one topic, in time order.

    Attributes:
        frame: All columns.
        times: `timestamp_ns` of each row.
        previous_ns: Time of the row before each; of the very first row its own.
        first_row: Number of the block's first row within the topic.
    """

    def __init__(self, frame: pl.DataFrame, last_ns: int | None = None, first_row: int = 0) -> None:
        self.frame = frame
        self.first_row = first_row
        self.times: Times = frame["timestamp_ns"].to_numpy()
        before = self.times[0] if last_ns is None else last_ns
        self.previous_ns: Times = np.concatenate([[before], self.times[:-1]]).astype(np.int64)
        self._columns: dict[FieldPath, pl.Series] = {}
        self._numbers: dict[FieldPath, Numbers] = {}
        self._nulls: dict[FieldPath, npt.NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def intervals_s(self) -> Numbers:
        """Seconds since the row before; NaN for the very first row."""
        intervals = (self.times - self.previous_ns) / NANOSECONDS
        if self.first_row == 0:
            intervals[0] = math.nan
        return intervals

    def column(self, path: FieldPath) -> pl.Series:
        """A field, null where it or a struct around it is null."""
        if path not in self._columns:
            if len(path) == 1:
                self._columns[path] = self.frame.get_column(path[0])
            else:
                # All fields at once and without an expression, which costs more than it does on small topics.
                fields = self.column(path[:-1]).struct.unnest()
                self._columns |= {(*path[:-1], name): fields.get_column(name) for name in fields.columns}
        return self._columns[path]

    def numbers(self, path: FieldPath) -> Numbers:
        """A field as numbers, not to be changed; null becomes NaN."""
        if path not in self._numbers:
            self._numbers[path] = self.column(path).cast(pl.Float64).to_numpy()
        return self._numbers[path]

    def norm(self, paths: Sequence[FieldPath]) -> Numbers:
        """The square root of the sum of the squares of several fields; NaN where one of them is."""
        squares = np.zeros(len(self))
        for path in paths:
            values = self.numbers(path)
            squares += values * values
        return np.sqrt(squares, out=squares)

    def texts(self, path: FieldPath) -> npt.NDArray[Any]:
        """A field as Python texts; null is None."""
        return self.column(path).to_numpy().astype(object)

    def has_nulls(self, path: FieldPath) -> bool:
        return self.column(path).null_count() > 0

    def is_null(self, path: FieldPath) -> npt.NDArray[np.bool_]:
        """Which rows have no value there; not to be changed."""
        if path not in self._nulls:
            has_nulls = self.has_nulls(path)
            self._nulls[path] = self.column(path).is_null().to_numpy() if has_nulls else np.zeros(len(self), dtype=bool)
        return self._nulls[path]


class Rule(ABC):
    """One rule bound to one topic. It sees the blocks of rows in order and may remember.

    Attributes:
        name: As contracts call it.
        kind: Which check it belongs to.
        dimension: Of the standard, unless the contract says otherwise.
        spans_previous: Whether a failing row is about the time since the row before.
        is_native: Whether its expectations are those of Great Expectations as a contract has them, with any arguments.
        expectations: About what it derives.
        expected: The same in words.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    dimension: ClassVar[str]
    parameters: ClassVar[type[Parameters]]
    spans_previous: ClassVar[bool] = False
    is_native: ClassVar[bool] = False

    expectations: tuple[Expectation, ...]
    expected: str

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        """The fields a topic must have for this rule."""
        return (path,) if path else ()

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        """Why the rule cannot be about this field, with these parameters, apart from the field not being there."""
        return None

    @abstractmethod
    def __init__(self, path: FieldPath, parameters: Any, schema: pa.Schema) -> None: ...

    def derive(self, rows: Rows) -> Derived:
        """A value per row and derived column; NaN or None: nothing to judge."""
        return {}

    def finish(self) -> Mapping[str, float]:
        """After the last block: values that are about the topic as a whole."""
        return {}

    def describe(self, column: str, value: Any) -> str:
        """A failing value for people."""
        return "not a number" if column == MISSING else number_text(value)


def number_text(value: Any) -> str:
    """Seven digits tell apart what a float32 does, without its noise."""
    return f"{value:.7g}" if isinstance(value, int | float | np.number) else str(value)


def limits_text(low: float | None, high: float | None, unit: str = "") -> str:
    """`between 1 and 2 s`, `at most 2 s`."""
    tail = f" {unit}" if unit else ""
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}{tail}" if low != high else f"exactly {low:g}{tail}"
    return f"at least {low:g}{tail}" if low is not None else f"at most {high:g}{tail}"


def find_field(schema: pa.Schema, path: FieldPath) -> pa.Field | None:
    """The field at a path; the part `element` steps into a list."""
    found: pa.Field | None = None
    for depth, name in enumerate(path):
        kind = schema if depth == 0 else found.type  # type: ignore[union-attr]
        if depth and is_list(kind) and name == "element":
            found = kind.value_field
            continue
        if depth and not pa.types.is_struct(kind):
            return None
        position = kind.get_field_index(name)
        if position < 0:
            return None
        found = kind.field(position)
    return found


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def field_complaint(schema: pa.Schema | None, path: FieldPath, wanted: str) -> str | None:
    """Why a field is not a `number`, `list` of numbers, or `struct`; None if it is, or cannot be looked up."""
    if not path:
        return WHOLE_OBJECT
    found = find_field(schema, path) if schema is not None else None
    if found is None:
        return None
    fits = {
        "number": is_number(found.type),
        "list": is_list(found.type),
        "struct": pa.types.is_struct(found.type),
        "binary": pa.types.is_binary(found.type) or pa.types.is_large_binary(found.type),
    }[wanted]
    return None if fits else f"needs a {wanted}; '{'.'.join(path)}' is {type_name(found.type)}"


def scalar_complaint(schema: pa.Schema | None, path: FieldPath, *, numbers: bool) -> str | None:
    """Why a field is no text, or no number where `numbers` may stand too; None if it is, or cannot be looked up."""
    if not path:
        return WHOLE_OBJECT
    found = find_field(schema, path) if schema is not None else None
    if found is None or is_text(found.type) or (numbers and is_number(found.type)):
        return None
    return f"needs {'a number or ' if numbers else ''}text; '{'.'.join(path)}' is {found.type}"


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def type_name(kind: pa.DataType) -> str:
    """The type without what is inside it."""
    return str(kind).partition("<")[0]


def list_lengths(column: pl.Series) -> npt.NDArray[np.int64]:
    """Number of elements of each list; 0 for null."""
    if isinstance(column.dtype, pl.Array):
        return np.where(column.is_null().to_numpy(), 0, column.dtype.size).astype(np.int64)
    return column.list.len().fill_null(0).cast(pl.Int64).to_numpy()


def flat_elements(column: pl.Series) -> Numbers:
    """The elements of all lists one after another, as numbers; null becomes NaN."""
    lists = column.to_arrow()
    values = pl.Series(lists.flatten()) if len(lists) else pl.Series([], dtype=pl.Float64)
    return values.cast(pl.Float64).fill_null(math.nan).to_numpy()


def count_per_list(marks: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> Numbers:
    """How many elements of each list are marked."""
    sums = np.concatenate([[0], np.cumsum(marks)])
    ends = np.cumsum(lengths)
    return (sums[ends] - sums[ends - lengths]).astype(np.float64)
