"""What is recorded in the lakes that engines are tested on: something of everything."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from mosaicolabs import (
    GPS,
    IMU,
    ROI,
    CameraInfo,
    GPSStatus,
    Header,
    Message,
    MosaicoClient,
    Point3d,
    Quaternion,
    SessionLevelErrorPolicy,
    Time,
    Transform,
    Vector2d,
    Vector3d,
)
from mosaicolabs.bridges.ros.data_ontology import FrameTransform
from mosaicolabs.models.futures import MultiEchoLaserScan

NOON_NS = 1_773_489_600_000_000_000  # 2026-03-14T12:00:00Z
DAY_NS = 86_400 * 10**9
ROWS = 200
VECTOR = pa.struct([("x", pa.float64()), ("y", pa.float64()), ("z", pa.float64())])
IMU_ROWS = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("acceleration", VECTOR),
        pa.field("temperature", pa.float32()),
    ]
)
POINT = pa.struct([("name", pa.string()), ("weight", pa.uint8())])
ODD = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("tiny", pa.uint8()),
        pa.field("wide", pa.uint32()),
        pa.field("huge", pa.uint64()),
        pa.field("half", pa.float16()),
        pa.field("single", pa.float32()),
        pa.field("double", pa.float64()),
        pa.field("flag", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("label", pa.dictionary(pa.int8(), pa.string())),
        pa.field("blob", pa.binary()),
        pa.field("code", pa.binary(4)),
        pa.field("money", pa.decimal128(9, 2)),
        pa.field("exact", pa.decimal128(38, 10)),
        pa.field("birthday", pa.date32()),
        pa.field("birthday_ms", pa.date64()),
        pa.field("clock", pa.time64("ns")),
        pa.field("lasted", pa.duration("ms")),
        pa.field("local_us", pa.timestamp("us")),
        pa.field("instant_us", pa.timestamp("us", "UTC")),
        pa.field("instant_ms", pa.timestamp("ms", "Asia/Tokyo")),
        pa.field("local_ns", pa.timestamp("ns")),
        pa.field("instant_ns", pa.timestamp("ns", "UTC")),
        pa.field("numbers", pa.list_(pa.float32())),
        pa.field("triple", pa.list_(pa.float64(), 3)),
        pa.field("words", pa.large_list(pa.large_string())),
        pa.field("points", pa.list_(POINT)),
        pa.field("rows", pa.list_(pa.list_(pa.int16()))),
        pa.field("facts", pa.map_(pa.string(), pa.float64())),
        pa.field("state", pa.struct([("code", pa.int16()), ("inner", pa.struct([("level", pa.float64())]))])),
    ]
)
# A drive that the official SDK wrote: a class of messages by the path of its topic.
DRIVE = "sdk_drive"
MODELS = {
    "sdk/imu": IMU,
    "sdk/gps": GPS,
    "sdk/camera": CameraInfo,
    "sdk/scan": MultiEchoLaserScan,
    "sdk/frames": FrameTransform,
}
MESSAGES = 40
# One that broke off, as its notifications tell.
BROKEN_DRIVE = "sdk_broken"


def imu_rows(start_ns: int, y: float, rows: int = ROWS) -> pa.RecordBatch:
    """Acceleration whose y rises by one over the rows; temperature is missing every third time."""
    times = start_ns + np.arange(rows) * 5_000_000
    index = np.arange(rows)
    acceleration = pa.StructArray.from_arrays(
        [pa.array(index * 0.5), pa.array(y + index / rows), pa.array(np.full(rows, 9.81))], fields=list(VECTOR)
    )
    temperature = pa.array(index.astype(np.float32), mask=index % 3 == 0)
    return pa.record_batch([pa.array(times), acceleration, temperature], schema=IMU_ROWS)


def odd_rows(start_ns: int) -> pa.RecordBatch:
    """Rows with the limits of every type, with all that is empty, and with nulls only."""
    nan, infinity = float("nan"), float("inf")
    moment = datetime(2026, 3, 14, 12, 30, 15, 123_456)
    rows: list[dict[str, Any]] = [
        {
            "tiny": 255,
            "wide": 2**32 - 1,
            "huge": 2**64 - 1,
            "half": np.float16(0.5),
            "single": -infinity,
            "double": nan,
            "flag": True,
            "text": "größe \U0001f697",
            "label": "left",
            "blob": b"\x00\xff",
            "code": b"\x00\x01\xfe\xff",
            "money": Decimal("-9999999.99"),
            "exact": Decimal("1234567890123456789012345678.0123456789"),
            "birthday": date(1969, 7, 20),
            "birthday_ms": date(2026, 3, 14),
            "clock": 86_399_999_999_999,
            "lasted": -5,
            "local_us": moment,
            "instant_us": moment.replace(tzinfo=UTC),
            "instant_ms": moment.replace(microsecond=123_000, tzinfo=UTC),
            "local_ns": NOON_NS + 123_456_789,
            "instant_ns": -1,
            "numbers": [1.5, None, nan, infinity],
            "triple": [infinity, nan, -infinity],
            "words": ["", None, "é"],
            "points": [{"name": "a", "weight": 200}, {"name": None, "weight": None}],
            "rows": [[1, None], [], None, [-32768]],
            "facts": [("a", 1.5), ("b.c", None), ("nan", nan)],
            "state": {"code": -5, "inner": {"level": 1.25}},
        },
        {
            "half": np.float16("nan"),
            "single": nan,
            "double": infinity,
            "flag": False,
            "text": "",
            "label": "right",
            "blob": b"",
            "money": Decimal("0.10"),
            "birthday": date(2026, 12, 31),
            "local_us": datetime(1900, 1, 1, 0, 0, 0, 1),
            "instant_us": datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
            "numbers": [],
            "words": [],
            "points": [],
            "rows": [],
            "facts": [],
            "state": {"code": None, "inner": None},
        },
        {},
    ]
    columns = []
    for field in ODD:
        if field.name == "timestamp_ns":
            values: list[Any] = [start_ns + number * 1_000 for number in range(len(rows))]
        else:
            values = [row.get(field.name) for row in rows]
        columns.append(_column(values, field.type))
    return pa.record_batch(columns, schema=ODD)


def _column(values: list[Any], arrow_type: pa.DataType) -> pa.Array:
    if any(isinstance(value, int) for value in values) and pat.is_temporal(arrow_type):
        return pa.array(values, pa.int64()).view(arrow_type)
    if pat.is_dictionary(arrow_type):
        return pa.array(values, arrow_type.value_type).dictionary_encode().cast(arrow_type)
    return pa.array(values, arrow_type)


def as_stored(table: pa.Table) -> pa.Table:
    """Rows as clients get them, with those times as numbers that tables have as numbers (docs/sql.md)."""
    for number, field in enumerate(table.schema):
        kind = field.type
        if pat.is_date64(kind) or pat.is_time(kind) or pat.is_duration(kind) or str(kind).startswith("timestamp[ns"):
            table = table.set_column(number, field.name, table.column(number).cast(pa.int64()))
    return table


def write_with_sdk(client: MosaicoClient) -> None:
    """A drive of several models, and one that breaks off and is reported."""
    with client.sequence_create(DRIVE, {"vehicle": {"id": "größe 7", "limits": [1.5, None, True]}}) as writer:
        topics = {path: writer.topic_create(path, {"rate": 100}, model) for path, model in MODELS.items()}
        for path, topic in topics.items():
            for message in _messages(path):
                topic.push(message)
    report = SessionLevelErrorPolicy.Report
    with suppress(RuntimeError), client.sequence_create(BROKEN_DRIVE, {}, on_error=report) as writer:
        topic = writer.topic_create("sdk/imu", {}, IMU)
        topic.push(next(_messages("sdk/imu")))
        raise RuntimeError("the battery is empty")


def _messages(path: str) -> Iterator[Message]:
    make = {"sdk/imu": _imu, "sdk/gps": _gps, "sdk/camera": _camera, "sdk/scan": _scan, "sdk/frames": _frames}[path]
    for number in range(MESSAGES):
        # Its microseconds are not its nanoseconds divided.
        yield Message(timestamp_ns=NOON_NS + number * 7_000_999, data=make(number))


def _header(number: int) -> Header | None:
    """Every third is missing, every second lacks the time."""
    time = None if number % 2 else Time(seconds=-number, nanoseconds=999_999_999 - number)
    header = Header(timestamp=time, frame_id="größe \U0001f697", sample_counter=2**64 - 1 - number)
    return header if number % 3 else None


def _vector(number: int) -> Vector3d:
    covariance = [0.1 * each + number for each in range(9)] if number % 2 else None
    return Vector3d(x=number / 3, y=-0.0, z=1e300, covariance=covariance, covariance_type=-1, header=_header(number))


def _imu(number: int) -> IMU:
    orientation = Quaternion(x=0.5, y=-0.5, z=0.5, w=number / 7) if number % 4 else None
    return IMU(
        acceleration=_vector(number),
        angular_velocity=_vector(number + 1),
        orientation=orientation,
        header=_header(number),
    )


def _gps(number: int) -> GPS:
    status = GPSStatus(status=-128, service=65_535, satellites=number if number % 2 else None, hdop=number / 9)
    position = Point3d(x=45 + number * 1e-9, y=float("nan"), z=float("-inf"))
    velocity = _vector(number) if number % 3 else None
    return GPS(position=position, velocity=velocity, status=status if number % 4 else None)


def _camera(number: int) -> CameraInfo:
    offset = Vector2d(x=1.5, y=number / 3)
    return CameraInfo(
        height=2**32 - 1,
        width=number,
        distortion_model="" if number % 2 else "plumb_bob",
        distortion_parameters=[number / 3] * (number % 6),
        intrinsic_parameters=[each / 3 for each in range(9)],
        rectification_parameters=[0.0] * 9,
        projection_parameters=[float(number)] * 12,
        binning=Vector2d(x=2.0, y=1.0) if number % 3 else None,
        roi=ROI(offset=offset, height=1, width=2, do_rectify=None if number % 2 else True) if number % 5 else None,
        header=_header(number),
    )


def _scan(number: int) -> MultiEchoLaserScan:
    echoes = [[0.5] * length for length in range(number % 4)]
    limits = dict.fromkeys(("angle_min", "angle_max", "angle_increment", "time_increment", "scan_time"), 0.25)
    return MultiEchoLaserScan(
        **limits, range_min=-1.5, range_max=1024.0, ranges=echoes, intensities=[*echoes, []] if number % 2 else None
    )


def _frames(number: int) -> FrameTransform:
    rotation = Quaternion(x=0.0, y=0.0, z=0.0, w=1.0)
    return FrameTransform(
        transforms=[Transform(translation=_vector(each), rotation=rotation) for each in range(number % 3)]
    )
