"""Where things are: satellite fixes, and bodies that do not jump."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from lakehouse.contracts.model import FieldPath, Kind
from lakehouse.contracts.rules.rule import (
    NANOSECONDS,
    VALUE,
    Derived,
    Numbers,
    Parameters,
    Rows,
    Rule,
    Times,
    between,
    field_complaint,
    find_field,
)

# IUGG mean radius (R1) of the Earth, metres.
EARTH_RADIUS_M = 6_371_008.8
_STATUS = ("status", "status")
_NO_FIX = -1


class GpsBoundsParameters(Parameters):
    min_latitude: float = Field(-90, ge=-90, le=90)
    max_latitude: float = Field(90, ge=-90, le=90)
    min_longitude: float = Field(-180, ge=-180, le=180)
    max_longitude: float = Field(180, ge=-180, le=180)
    allow_null_island: bool = False


class _Fixes(Rule):
    """A rule about positions whose x is latitude and y longitude, in degrees. Rows without a fix are not judged."""

    def __init__(self, path: FieldPath, parameters: Any, schema: pa.Schema) -> None:
        self._path = path
        self._has_status = find_field(schema, _STATUS) is not None

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return (*path, "x"), (*path, "y")

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "struct")

    def _positions(self, rows: Rows) -> tuple[Numbers, Numbers, Any]:
        """Latitudes, longitudes, and which rows claim a fix (ROS sensor_msgs/NavSatStatus: -1 is none)."""
        is_fix = ~rows.is_null(self._path)
        if self._has_status:
            is_fix &= rows.column(_STATUS).ne(_NO_FIX).fill_null(True).to_numpy()
        return rows.numbers((*self._path, "x")), rows.numbers((*self._path, "y")), is_fix


class GpsBounds(_Fixes):
    """A fix lies on the Earth, inside an area if one is given, and not at 0°, 0°, where receivers lose themselves."""

    name = "gps_bounds"
    kind = Kind.PHYSICS
    dimension = "accuracy"
    parameters = GpsBoundsParameters
    MEANINGS = ("", "not a number", "latitude outside", "longitude outside", "exactly 0°, 0°")

    def __init__(self, path: FieldPath, parameters: GpsBoundsParameters, schema: pa.Schema) -> None:
        super().__init__(path, parameters, schema)
        self._limits = parameters
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = (
            f"latitude {parameters.min_latitude:g}° to {parameters.max_latitude:g}°, "
            f"longitude {parameters.min_longitude:g}° to {parameters.max_longitude:g}°"
        )

    def derive(self, rows: Rows) -> Derived:
        latitude, longitude, is_fix = self._positions(rows)
        limits = self._limits
        is_null_island = (latitude == 0) & (longitude == 0) & (not limits.allow_null_island)
        found = np.select(
            [
                np.isnan(latitude) | np.isnan(longitude),
                (latitude < limits.min_latitude) | (latitude > limits.max_latitude),
                (longitude < limits.min_longitude) | (longitude > limits.max_longitude),
                is_null_island,
            ],
            [1.0, 2.0, 3.0, 4.0],
            0.0,
        )
        return {VALUE: np.where(is_fix, found, math.nan)}

    def describe(self, column: str, value: Any) -> str:
        return self.MEANINGS[int(value)]


class SpeedParameters(Parameters):
    max_speed: float = Field(gt=0)


class GpsJump(_Fixes):
    """From one fix to the next, the receiver does not move faster than its carrier can, in m/s over ground."""

    name = "gps_jump"
    kind = Kind.PHYSICS
    dimension = "accuracy"
    parameters = SpeedParameters
    spans_previous = True

    def __init__(self, path: FieldPath, parameters: SpeedParameters, schema: pa.Schema) -> None:
        super().__init__(path, parameters, schema)
        self._last: tuple[float, float, int] | None = None
        self.expectations = (between(VALUE, 0, parameters.max_speed),)
        self.expected = f"at most {parameters.max_speed:g} m/s from fix to fix"

    def derive(self, rows: Rows) -> Derived:
        latitude, longitude, is_fix = self._positions(rows)
        chosen = np.flatnonzero(is_fix & np.isfinite(latitude) & np.isfinite(longitude))
        speeds = np.full(len(rows), math.nan)
        if len(chosen):
            latitudes, longitudes, times = latitude[chosen], longitude[chosen], rows.times[chosen]
            before = self._last or (latitudes[0], longitudes[0], int(times[0]))
            distances = ground_distance_m(
                np.concatenate([[before[0]], latitudes[:-1]]),
                np.concatenate([[before[1]], longitudes[:-1]]),
                latitudes,
                longitudes,
            )
            speeds[chosen] = _speeds(distances, times, before[2])
            if self._last is None:
                speeds[chosen[0]] = math.nan
            self._last = (float(latitudes[-1]), float(longitudes[-1]), int(times[-1]))
        return {VALUE: speeds}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.6g} m/s"


class PositionJump(Rule):
    """From one row to the next, a position in metres does not move faster than a limit, in m/s."""

    name = "position_jump"
    kind = Kind.PHYSICS
    dimension = "accuracy"
    parameters = SpeedParameters
    spans_previous = True

    def __init__(self, path: FieldPath, parameters: SpeedParameters, schema: pa.Schema) -> None:
        self._axes = self.fields(path, parameters)
        self._last: tuple[Numbers, int] | None = None
        self.expectations = (between(VALUE, 0, parameters.max_speed),)
        self.expected = f"at most {parameters.max_speed:g} m/s from row to row"

    @classmethod
    def fields(cls, path: FieldPath, parameters: Any) -> tuple[FieldPath, ...]:
        return tuple((*path, axis) for axis in "xyz")

    @classmethod
    def complaint(cls, path: FieldPath, parameters: Any, schema: pa.Schema | None) -> str | None:
        return field_complaint(schema, path, "struct")

    def derive(self, rows: Rows) -> Derived:
        places = np.stack([rows.numbers(axis) for axis in self._axes], axis=1)
        # A body of which only two coordinates are known moves in a plane.
        places[:, 2] = np.nan_to_num(places[:, 2])
        chosen = np.flatnonzero(np.all(np.isfinite(places), axis=1))
        speeds = np.full(len(rows), math.nan)
        if len(chosen):
            known, times = places[chosen], rows.times[chosen]
            before, before_ns = self._last or (known[0], int(times[0]))
            distances = np.linalg.norm(known - np.concatenate([[before], known[:-1]]), axis=1)
            speeds[chosen] = _speeds(distances, times, before_ns)
            if self._last is None:
                speeds[chosen[0]] = math.nan
            self._last = (known[-1], int(times[-1]))
        return {VALUE: speeds}

    def describe(self, column: str, value: Any) -> str:
        return f"{value:.6g} m/s"


def ground_distance_m(latitude_a: Numbers, longitude_a: Numbers, latitude_b: Numbers, longitude_b: Numbers) -> Numbers:
    """Great-circle distances on a sphere (haversine), metres from degrees; within 0.6 % of the ellipsoid."""
    phi_a, phi_b = np.radians(latitude_a), np.radians(latitude_b)
    half_phi, half_lambda = (phi_b - phi_a) / 2, np.radians(longitude_b - longitude_a) / 2
    chord = np.sin(half_phi) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))


def _speeds(distances: Numbers, times: Times, before_ns: int) -> Numbers:
    """Metres per second; two places at one time are infinitely fast, one place at one time is not judged."""
    seconds = (times - np.concatenate([[before_ns], times[:-1]])) / NANOSECONDS
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((seconds == 0) & (distances == 0), math.nan, distances / seconds)
