"""Rotations and uncertainties."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

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
    field_complaint,
    find_field,
    flat_elements,
    list_lengths,
)


class QuaternionNormParameters(Parameters):
    tolerance: float = Field(0.01, gt=0)


class QuaternionNorm(Rule):
    """A rotation is a unit quaternion.

    Not judged: no quaternion at all, and the all-zero one beside a covariance that begins with -1
    (ROS sensor_msgs/Imu: "if you have no estimate for one of the data elements, set element 0 of the associated
    covariance matrix to -1").
    """

    name = "quaternion_norm"
    kind = Kind.PHYSICS
    dimension = "conformity"
    parameters = QuaternionNormParameters

    def __init__(self, path: FieldPath, parameters: QuaternionNormParameters, schema: pa.Schema) -> None:
        self._path = path
        self._parts = self.fields(path, parameters)
        has_covariance = find_field(schema, (*path, "covariance")) is not None
        self._covariance = (*path, "covariance") if has_covariance else None
        tolerance = parameters.tolerance
        self.expectations = (between(VALUE, 1 - tolerance, 1 + tolerance), between(MISSING, 0, 0))
        self.expected = f"norm within {tolerance:g} of 1"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((*path, part) for part in "xyzw")

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "struct")

    def derive(self, rows: Rows) -> Derived:
        norm = rows.norm(self._parts)
        is_missing = np.isnan(norm)
        if is_missing.any():
            is_missing &= ~rows.is_null(self._path)
        is_zero = norm == 0
        if self._covariance is not None and is_zero.any():
            is_unknown = rows.column(self._covariance).list.first().eq(-1).fill_null(False).to_numpy()
            norm = np.where(is_unknown & is_zero, math.nan, norm)
        return {VALUE: norm, MISSING: is_missing.astype(np.float64)}

    def describe(self, column: str, value: Any) -> str:
        return "a component is not a number" if column == MISSING else f"norm {value:.7g}"


class CovarianceParameters(Parameters):
    tolerance: float = Field(1e-6, ge=0)


class Covariance(Rule):
    """A covariance is a square matrix, symmetric, and positive semi-definite.

    Derives how far it is from that, relative to its largest element: the larger of its asymmetry and of the amount by
    which its smallest eigenvalue lies below zero; infinite for NaN and for what is no square matrix. Not judged: null,
    empty, all zeros and a first element of -1, which mean that it is unknown (ROS sensor_msgs/Imu).
    """

    name = "covariance"
    kind = Kind.PHYSICS
    dimension = "conformity"
    parameters = CovarianceParameters

    def __init__(self, path: FieldPath, parameters: CovarianceParameters, schema: pa.Schema) -> None:
        self._path = path
        self.expectations = (between(VALUE, 0, parameters.tolerance),)
        self.expected = "a symmetric, positive semi-definite matrix"

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "list")

    def derive(self, rows: Rows) -> Derived:
        column = rows.column(self._path)
        if column.null_count() == len(column):
            return {VALUE: np.full(len(rows), math.nan)}
        lengths = list_lengths(column)
        elements = flat_elements(column)
        starts = np.cumsum(lengths) - lengths
        defects = np.full(len(rows), math.nan)
        for length in np.unique(lengths[lengths > 0]):
            chosen = np.flatnonzero(lengths == length)
            matrices = elements[starts[chosen][:, None] + np.arange(length)]
            defects[chosen] = covariance_defects(matrices)
        return {VALUE: defects}

    def describe(self, column: str, value: Any) -> str:
        return "not a square matrix of numbers" if math.isinf(value) else f"off by {value:.3g} of its largest element"


def covariance_defects(matrices: npt.NDArray[np.float64]) -> Numbers:
    """How far each of many flat matrices of one size is from being a covariance; NaN where it is unknown."""
    # Drivers send the same covariance for hours: only those that differ from the one before are looked at.
    same = (matrices[1:] == matrices[:-1]) | (np.isnan(matrices[1:]) & np.isnan(matrices[:-1]))
    is_new = np.concatenate([[True], ~np.all(same, axis=1)])
    defects = _defects(matrices[is_new])
    return defects[np.cumsum(is_new) - 1]


def _defects(flat: npt.NDArray[np.float64]) -> Numbers:
    count, length = flat.shape
    size = math.isqrt(length)
    defects = np.full(count, math.inf)
    if size * size == length:
        is_finite = np.all(np.isfinite(flat), axis=1)
        matrices = flat[is_finite].reshape(-1, size, size)
        scale = np.max(np.abs(matrices), axis=(1, 2), initial=0)
        scale[scale == 0] = 1
        transposed = np.swapaxes(matrices, 1, 2)
        asymmetry = np.max(np.abs(matrices - transposed), axis=(1, 2), initial=0)
        smallest = np.linalg.eigvalsh((matrices + transposed) / 2)[:, 0] if len(matrices) else np.empty(0)
        defects[is_finite] = np.maximum(asymmetry, np.maximum(-smallest, 0)) / scale
    is_unknown = (flat[:, 0] == -1) | np.all(flat == 0, axis=1)
    return np.where(is_unknown, math.nan, defects)
