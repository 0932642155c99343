"""sensor_msgs: what sensors measure.

Source: common_interfaces, sensor_msgs/msg.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.orchestration.recordings.ontology_mapping.conditions import (
    any_is_positive,
    first_is_not,
    is_not_empty,
    is_not_nan,
    is_positive,
)
from lakehouse.orchestration.recordings.ontology_mapping.expressions import (
    Computed,
    Each,
    Field,
    MessageTable,
    OnlyIf,
    Record,
    Required,
    record,
)
from lakehouse.orchestration.recordings.ontology_mapping.geometry_msgs import known_covariance, quaternion, vector
from lakehouse.orchestration.recordings.ontology_mapping.images import container_format, packed_pixels, pixel_container
from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows
from lakehouse.orchestration.recordings.ontology_mapping.std_msgs import HEADER

KELVIN_AT_ZERO_CELSIUS = 273.15


def _measured(path: str) -> OnlyIf:
    """A number that drivers set to NaN when they do not measure it (BatteryState.msg)."""
    return OnlyIf(is_not_nan(path), Field(path))


def _filled(path: str) -> OnlyIf:
    """An array that drivers leave empty when they do not know its elements."""
    return OnlyIf(is_not_empty(path), Field(path))


def _kelvin(rows: Rows) -> pa.Array:
    return pc.add(pa.array(rows.numbers("temperature"), pa.float64()), KELVIN_AT_ZERO_CELSIUS)


# Temperature.msg, FluidPressure.msg: "0 is interpreted as variance unknown".
_VARIANCE = OnlyIf(is_positive("variance"), Field("variance"))

# Imu.msg: "if you have no estimate for one of the data elements, please set element 0 of the associated covariance
# matrix to -1". The ontology can only leave out the orientation; acceleration and angular velocity are always there.
_IMU = record(
    header=HEADER,
    acceleration=vector("linear_acceleration") | record(covariance=known_covariance("linear_acceleration_covariance")),
    angular_velocity=vector("angular_velocity") | record(covariance=known_covariance("angular_velocity_covariance")),
    orientation=OnlyIf(
        first_is_not("orientation_covariance", -1),
        quaternion("orientation") | record(covariance=known_covariance("orientation_covariance")),
    ),
)


def _has_fix_status(rows: Rows) -> BooleanMask:
    """NavSatStatus.msg: -1 is no fix; what lies below has no meaning (ROS 2 has -2 for unknown)."""
    return rows.numbers("status.status") >= -1


_NAV_SAT_FIX = record(
    header=HEADER,
    position=record(
        x="latitude",
        y="longitude",
        z="altitude",
        covariance=known_covariance("position_covariance"),
        covariance_type=OnlyIf(
            any_is_positive("position_covariance"), Field("position_covariance_type", optional=True)
        ),
    ),
    status=OnlyIf(_has_fix_status, record(status="status.status", service="status.service")),
)


def _binning_is_used(rows: Rows) -> BooleanMask:
    """CameraInfo.msg: 0 and 1 both mean no subsampling."""
    return (rows.numbers("binning_x") > 1) & (rows.numbers("binning_y") > 1)


def _region_is_used(rows: Rows) -> BooleanMask:
    """CameraInfo.msg: all zeros is the full image."""
    parts = [rows.numbers(f"roi.{name}") for name in ("x_offset", "y_offset", "height", "width", "do_rectify")]
    return np.any([part != 0 for part in parts], axis=0)


def _region(at: str = "") -> Record:
    return record(
        offset=record(x=f"{at}x_offset", y=f"{at}y_offset"),
        height=f"{at}height",
        width=f"{at}width",
        do_rectify=Field(f"{at}do_rectify", optional=True),
    )


# ROS 1 writes the matrices in capitals.
_CAMERA_INFO = record(
    header=HEADER,
    height="height",
    width="width",
    distortion_model="distortion_model",
    distortion_parameters=Field("d", former_path="D"),
    intrinsic_parameters=Field("k", former_path="K"),
    rectification_parameters=Field("r", former_path="R"),
    projection_parameters=Field("p", former_path="P"),
    binning=OnlyIf(_binning_is_used, record(x="binning_x", y="binning_y")),
    roi=OnlyIf(_region_is_used, _region("roi.")),
)

_BATTERY_STATE = record(
    header=HEADER,
    voltage="voltage",
    temperature=_measured("temperature"),
    current=_measured("current"),
    charge=_measured("charge"),
    capacity=_measured("capacity"),
    design_capacity=_measured("design_capacity"),
    percentage="percentage",
    power_supply_status="power_supply_status",
    power_supply_health="power_supply_health",
    power_supply_technology="power_supply_technology",
    present="present",
    location="location",
    serial_number="serial_number",
    cell_voltage=_filled("cell_voltage"),
    cell_temperature=_filled("cell_temperature"),
)


def _datatype_exists(rows: Rows) -> BooleanMask:
    """PointField.msg: INT8 = 1 ... FLOAT64 = 8."""
    datatypes = rows.numbers("datatype")
    return (datatypes >= 1) & (datatypes <= 8)


_POINT_FIELD = Required(
    _datatype_exists,
    "a point field has a datatype that sensor_msgs/PointField does not define",
    record(name="name", offset="offset", datatype="datatype", count="count"),
)

_POINT_CLOUD = record(
    header=HEADER,
    height="height",
    width="width",
    fields=Each("fields", _POINT_FIELD),
    is_bigendian="is_bigendian",
    point_step="point_step",
    row_step="row_step",
    data="data",
    is_dense="is_dense",
)

_SCAN_GEOMETRY = record(
    header=HEADER,
    angle_min="angle_min",
    angle_max="angle_max",
    angle_increment="angle_increment",
    time_increment="time_increment",
    scan_time="scan_time",
    range_min="range_min",
    range_max="range_max",
)

MESSAGES: MessageTable = {
    "sensor_msgs/msg/Imu": ("IMU", _IMU),
    "sensor_msgs/msg/NavSatFix": ("GPS", _NAV_SAT_FIX),
    "sensor_msgs/msg/CameraInfo": ("CameraInfo", _CAMERA_INFO),
    "sensor_msgs/msg/RegionOfInterest": ("ROI", _region()),
    "sensor_msgs/msg/BatteryState": ("BatteryState", _BATTERY_STATE),
    "sensor_msgs/msg/PointCloud2": ("PointCloud2", _POINT_CLOUD),
    "sensor_msgs/msg/Image": (
        "Image",
        record(
            header=HEADER,
            data=Computed(packed_pixels),
            format=Computed(pixel_container),
            width="width",
            height="height",
            stride="step",
            encoding="encoding",
            is_bigendian=Field("is_bigendian", optional=True),
        ),
    ),
    "sensor_msgs/msg/CompressedImage": (
        "CompressedImage",
        record(header=HEADER, data="data", format=Computed(container_format)),
    ),
    "sensor_msgs/msg/JointState": (
        "RobotJoint",
        record(header=HEADER, names="name", positions="position", velocities="velocity", efforts="effort"),
    ),
    "sensor_msgs/msg/Joy": ("Joy", record(header=HEADER, axes="axes", buttons="buttons")),
    "sensor_msgs/msg/LaserScan": (
        "LaserScan",
        _SCAN_GEOMETRY | record(ranges="ranges", intensities=_filled("intensities")),
    ),
    "sensor_msgs/msg/MultiEchoLaserScan": (
        "MultiEchoLaserScan",
        _SCAN_GEOMETRY
        | record(
            ranges=Each("ranges", Field("echoes")),
            intensities=OnlyIf(is_not_empty("intensities"), Each("intensities", Field("echoes"))),
        ),
    ),
    "sensor_msgs/msg/MagneticField": (
        "Magnetometer",
        record(
            header=HEADER,
            magnetic_field=vector("magnetic_field") | record(covariance=known_covariance("magnetic_field_covariance")),
        ),
    ),
    "sensor_msgs/msg/Temperature": ("Temperature", record(header=HEADER, value=Computed(_kelvin), variance=_VARIANCE)),
    "sensor_msgs/msg/FluidPressure": ("Pressure", record(header=HEADER, value="fluid_pressure", variance=_VARIANCE)),
}
