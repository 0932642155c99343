"""Sensors that stopped working and go on sending; buffers that do not have the size they announce."""

import math
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    NANOSECONDS,
    VALUE,
    Derived,
    Parameters,
    Rows,
    Rule,
    between,
    find_field,
    list_lengths,
)


class FrozenParameters(Parameters):
    max_seconds: float = Field(gt=0)
    columns: tuple[str, ...] = ()


class Frozen(Rule):
    """The values do not stay exactly the same for too long: noise moves the last bits of any sensor that lives.

    Compares the field, or the given columns below it, bit by bit; of a struct the numbers directly in it.
    """

    name = "frozen"
    kind = Kind.PHYSICS
    dimension = "accuracy"
    parameters = FrozenParameters

    def __init__(self, path: FieldPath, parameters: FrozenParameters, schema: pa.Schema) -> None:
        self._columns = self.fields(path, parameters) if parameters.columns else _numbers_in(path, schema)
        self._last: tuple[list[Any], int] | None = None
        self.expectations = (between(VALUE, None, parameters.max_seconds),)
        self.expected = f"no longer than {parameters.max_seconds:g} s without any change"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        if parameters.columns:
            return tuple((*path, *column.split(".")) for column in parameters.columns)
        return (path,) if path else ()

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        if not path and not parameters.columns:
            return "belongs to a property, or needs columns"
        return None

    def derive(self, rows: Rows) -> Derived:
        columns = [_comparable(rows, path) for path in self._columns]
        changes = np.zeros(len(rows), dtype=bool)
        for column in columns:
            changes[1:] |= column[1:] != column[:-1]
        first_ns = int(rows.times[0])
        if self._last is not None:
            values, since_ns = self._last
            if all(column[0] == value for column, value in zip(columns, values, strict=True)):
                first_ns = since_ns
        since = np.where(changes, rows.times, np.iinfo(np.int64).min)
        since[0] = first_ns
        since = np.maximum.accumulate(since)
        self._last = ([column[-1] for column in columns], int(since[-1]))
        seconds = (rows.times - since) / NANOSECONDS
        if all(rows.has_nulls(path) for path in self._columns):
            seconds[np.all([rows.is_null(path) for path in self._columns], axis=0)] = math.nan
        return {VALUE: seconds}

    def describe(self, column: str, value: Any) -> str:
        return f"unchanged for {value:.6g} s"


def _numbers_in(path: FieldPath, schema: pa.Schema) -> tuple[FieldPath, ...]:
    found = find_field(schema, path)
    if found is None or not pa.types.is_struct(found.type):
        return (path,)
    return tuple((*path, child.name) for child in found.type if pa.types.is_primitive(child.type))


def _comparable(rows: Rows, path: FieldPath) -> Any:
    """Values as integers that are equal if the values are, bit by bit; blobs and lists by a hash of 64 bits."""
    column = rows.column(path)
    if column.dtype in (pl.Float64, pl.Float32):
        return rows.numbers(path).view(np.int64)
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        return column.hash(1).to_numpy()
    return column.to_frame("value").hash_rows(1).to_numpy()


class NoParameters(Parameters):
    pass


class PointCloudLayout(Rule):
    """A packed point cloud has as many bytes as its width, height and steps say; derives the difference."""

    name = "point_cloud_layout"
    kind = Kind.PHYSICS
    dimension = "consistency"
    parameters = NoParameters

    def __init__(self, path: FieldPath, parameters: NoParameters, schema: pa.Schema) -> None:
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "data of row_step x height bytes, row_step of at least point_step x width"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((name,) for name in ("data", "width", "height", "point_step", "row_step"))

    def derive(self, rows: Rows) -> Derived:
        width, height, point, row = (rows.numbers((n,)) for n in ("width", "height", "point_step", "row_step"))
        size = rows.column(("data",)).bin.size().cast(pl.Float64).fill_null(math.nan).to_numpy()
        lacking = np.maximum(point * width - row, 0) * height
        return {VALUE: np.abs(size - row * height) + lacking}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.0f} bytes too many or too few"


class ScanGeometry(Rule):
    """A scan has one range per step of its angle; derives how many too many or too few. One beam more or less is
    what drivers differ in (whether the last angle is included)."""

    name = "scan_geometry"
    kind = Kind.PHYSICS
    dimension = "consistency"
    parameters = NoParameters

    def __init__(self, path: FieldPath, parameters: NoParameters, schema: pa.Schema) -> None:
        self.expectations = (between(VALUE, 0, 1.5),)
        self.expected = "as many ranges as there are steps between angle_min and angle_max"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((name,) for name in ("ranges", "angle_min", "angle_max", "angle_increment"))

    def derive(self, rows: Rows) -> Derived:
        start, end, step = (rows.numbers((n,)) for n in ("angle_min", "angle_max", "angle_increment"))
        lengths = list_lengths(rows.column(("ranges",)))
        with np.errstate(divide="ignore", invalid="ignore"):
            promised = np.abs((end - start) / step) + 1
        # The angles are single precision: over a thousand beams that is a fraction of one beam.
        return {VALUE: np.where(np.isfinite(promised), np.abs(lengths - promised), math.inf)}

    def describe(self, column: str, value: Any) -> str:
        return "an angle step of 0" if math.isinf(value) else f"{value:.1f} beams too many or too few"


class GridLayout(Rule):
    """An occupancy grid has width x height cells; derives the difference."""

    name = "grid_layout"
    kind = Kind.PHYSICS
    dimension = "consistency"
    parameters = NoParameters

    def __init__(self, path: FieldPath, parameters: NoParameters, schema: pa.Schema) -> None:
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "width x height cells"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return ("data",), ("info", "width"), ("info", "height")

    def derive(self, rows: Rows) -> Derived:
        cells = rows.numbers(("info", "width")) * rows.numbers(("info", "height"))
        return {VALUE: np.abs(list_lengths(rows.column(("data",))) - cells)}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.0f} cells too many or too few"
