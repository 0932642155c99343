"""Time: order, gaps, jitter and rate."""

import math
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    NANOSECONDS,
    VALUE,
    Derived,
    Expectation,
    Numbers,
    Parameters,
    Rows,
    Rule,
    between,
    limits_text,
)

HEADER_CLOCK = (("header", "timestamp", "seconds"), ("header", "timestamp", "nanoseconds"))


class MonotonicTimeParameters(Parameters):
    clock: Literal["record", "header"] = "record"
    strict: bool = False


class MonotonicTime(Rule):
    """Time never goes back from one row to the next; strictly: it always goes on.

    Rows are stored in order of `timestamp_ns`, so of the record clock only the strict form can fail: repeated stamps.
    The header clock, the sensor's own, tells whether messages overtook one another.
    """

    name = "monotonic_time"
    kind = Kind.PHYSICS
    dimension = "consistency"
    parameters = MonotonicTimeParameters
    spans_previous = True

    def __init__(self, path: FieldPath, parameters: MonotonicTimeParameters, schema: pa.Schema) -> None:
        self._uses_header = parameters.clock == "header"
        self._last_ns: int | None = None
        arguments: dict[str, Any] = {"min_value": 0.0, "strict_min": parameters.strict}
        self.expectations = (Expectation(VALUE, "expect_column_values_to_be_between", arguments),)
        self.expected = f"{parameters.clock} time rises" + ("" if parameters.strict else " or stays")

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return HEADER_CLOCK if parameters.clock == "header" else ()

    def derive(self, rows: Rows) -> Derived:
        if not self._uses_header:
            return {VALUE: rows.intervals_s}
        seconds, nanoseconds = (rows.column(path) for path in HEADER_CLOCK)
        known = (~seconds.is_null()).to_numpy()
        steps = np.full(len(rows), math.nan)
        stamps = (
            seconds.fill_null(0).cast(int).to_numpy() * 1_000_000_000 + nanoseconds.fill_null(0).cast(int).to_numpy()
        )
        stamps = stamps[known]
        if len(stamps):
            before = stamps[0] if self._last_ns is None else self._last_ns
            found = (stamps - np.concatenate([[before], stamps[:-1]])) / NANOSECONDS
            if self._last_ns is None:
                found[0] = math.nan
            steps[known] = found
            self._last_ns = int(stamps[-1])
        return {VALUE: steps}

    def describe(self, column: str, value: Any) -> str:
        return "the same time again" if value == 0 else f"{value:.9g} s"


class _Periodic(Parameters):
    nominal_hz: float | None = Field(None, gt=0, alias="nominalHz")


class _Period:
    """The time that should lie between rows: given, or the median of the topic's first block of rows."""

    def __init__(self, nominal_hz: float | None) -> None:
        self._seconds = None if nominal_hz is None else 1 / nominal_hz

    def seconds(self, intervals_s: Numbers) -> float:
        if self._seconds is None:
            known = intervals_s[intervals_s > 0]
            if not len(known):
                return math.nan
            self._seconds = float(np.median(known))
        return self._seconds


class GapsParameters(_Periodic):
    max_seconds: float | None = Field(None, gt=0)
    max_periods: float | None = Field(None, gt=1)

    @model_validator(mode="after")
    def _one_limit(self) -> "GapsParameters":
        if (self.max_seconds is None) == (self.max_periods is None):
            raise ValueError("expected either maxSeconds or maxPeriods")
        return self


class Gaps(Rule):
    """The time between neighbouring rows does not exceed a limit, in seconds or in periods of the topic."""

    name = "gaps"
    kind = Kind.PHYSICS
    dimension = "completeness"
    parameters = GapsParameters
    spans_previous = True

    def __init__(self, path: FieldPath, parameters: GapsParameters, schema: pa.Schema) -> None:
        self._is_in_seconds = parameters.max_seconds is not None
        self._period = _Period(parameters.nominal_hz)
        limit = parameters.max_seconds if self._is_in_seconds else parameters.max_periods
        self.expectations = (between(VALUE, None, limit),)
        self.expected = f"gaps {limits_text(None, limit, 's' if self._is_in_seconds else 'periods')}"

    def derive(self, rows: Rows) -> Derived:
        intervals = rows.intervals_s
        return {VALUE: intervals if self._is_in_seconds else intervals / self._period.seconds(intervals)}

    def describe(self, column: str, value: Any) -> str:
        return f"a gap of {value:.6g} {'s' if self._is_in_seconds else 'periods'}"


class JitterParameters(_Periodic):
    max_relative: float = Field(gt=0)


class Jitter(Rule):
    """The time between neighbouring rows departs from the period by no more than a share of it.

    Longer pauses are the business of `gaps`: intervals above ten periods are not judged here.
    """

    name = "jitter"
    kind = Kind.PHYSICS
    dimension = "timeliness"
    parameters = JitterParameters
    spans_previous = True
    PAUSE_PERIODS = 10.0

    def __init__(self, path: FieldPath, parameters: JitterParameters, schema: pa.Schema) -> None:
        self._period = _Period(parameters.nominal_hz)
        self.expectations = (between(VALUE, 0, parameters.max_relative),)
        self.expected = f"intervals within {parameters.max_relative:.0%} of the period"

    def derive(self, rows: Rows) -> Derived:
        periods = rows.intervals_s / self._period.seconds(rows.intervals_s)
        return {VALUE: np.where(periods > self.PAUSE_PERIODS, math.nan, np.abs(periods - 1))}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.0%} off"


class RateParameters(Parameters):
    min_hz: float | None = Field(None, ge=0, alias="minHz")
    max_hz: float | None = Field(None, gt=0, alias="maxHz")

    @model_validator(mode="after")
    def _some_limit(self) -> "RateParameters":
        if self.min_hz is None and self.max_hz is None:
            raise ValueError("expected minHz, maxHz or both")
        if self.min_hz is not None and self.max_hz is not None and self.min_hz > self.max_hz:
            raise ValueError("minHz must not exceed maxHz")
        return self


class Rate(Rule):
    """Rows per second over the whole topic, from its first to its last row."""

    name = "rate"
    kind = Kind.PHYSICS
    dimension = "timeliness"
    parameters = RateParameters

    def __init__(self, path: FieldPath, parameters: RateParameters, schema: pa.Schema) -> None:
        self._count = 0
        self._first_ns = self._last_ns = 0
        self.expectations = (between(VALUE, parameters.min_hz, parameters.max_hz),)
        self.expected = f"a rate {limits_text(parameters.min_hz, parameters.max_hz, 'Hz')}"

    def derive(self, rows: Rows) -> Derived:
        if self._count == 0:
            self._first_ns = int(rows.times[0])
        self._count += len(rows)
        self._last_ns = int(rows.times[-1])
        return {}

    def finish(self) -> dict[str, float]:
        span_s = (self._last_ns - self._first_ns) / NANOSECONDS
        return {VALUE: (self._count - 1) / span_s if self._count > 1 and span_s > 0 else math.nan}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.6g} Hz"
