"""Made-up sensor rows in the shipped ontology's own schemas.

Rows are made once and repeated with later timestamps, so that a topic of any size costs the client next to nothing. The
repeated part is larger than a row group, which is all that an encoder can exploit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ontology.registry import load_models, model_arrow_schema

MIB = 1 << 20
START_NS = 1_700_035_200_000_000_000  # 2023-11-15 08:00 UTC: hours of rows before the day ends
IMU_PERIOD_NS = 1_000_000
IMAGE_PERIOD_NS = 33_000_000
# Values of a 16-bit sensor: +-4 g and +-2000 deg/s over 65536 steps.
_ACCELERATION_STEP = 8 * 9.80665 / 65536
_ANGULAR_VELOCITY_STEP = np.deg2rad(4000) / 65536


@dataclass(frozen=True, slots=True)
class RowSource:
    """Batches of one topic.

    Attributes:
        tag: Ontology tag.
        batches: What is repeated, in time order.
        period_ns: Time from a row to the next.
    """

    tag: str
    batches: tuple[pa.RecordBatch, ...]
    period_ns: int

    @property
    def schema(self) -> pa.Schema:
        return self.batches[0].schema

    @property
    def serialization_format(self) -> str:
        return load_models()[self.tag].serialization_format

    def take(self, size: int) -> Iterator[pa.RecordBatch]:
        """Whole batches until they hold at least `size` bytes of Arrow data, with ever rising timestamps."""
        rows_per_cycle = sum(batch.num_rows for batch in self.batches)
        taken = cycle = 0
        while True:
            for batch in self.batches:
                if taken >= size:
                    return
                taken += batch.nbytes
                yield _later(batch, cycle * rows_per_cycle * self.period_ns)
            cycle += 1

    @classmethod
    def imu(cls, seed: int = 0, *, batch_bytes: int = 8 * MIB, pool_bytes: int = 64 * MIB) -> Self:
        """Readings of an inertial measurement unit at 1 kHz, as drivers fill them.

        Accelerations and angular velocities are quantised as by a 16-bit sensor, orientations come from a filter and
        use every bit of their mantissas; covariances are constant, headers nested below the first are absent.
        """
        generator = np.random.default_rng(seed)
        probe = _imu_batch(0, 1000, generator)
        rows = max(1, int(batch_bytes / (probe.nbytes / probe.num_rows)))
        count = max(1, round(pool_bytes / batch_bytes))
        return cls("IMU", tuple(_imu_batch(number * rows, rows, generator) for number in range(count)), IMU_PERIOD_NS)

    @classmethod
    def images(cls, seed: int = 0, *, image_bytes: int = MIB, images_per_batch: int = 44, batches: int = 3) -> Self:
        """Compressed images: random bytes, as good compressors leave them.

        The official client sends 44 of them in a batch.
        """
        generator = np.random.default_rng(seed)
        made = tuple(
            _image_batch(number * images_per_batch, images_per_batch, image_bytes, generator)
            for number in range(batches)
        )
        return cls("CompressedImage", made, IMAGE_PERIOD_NS)


def _later(batch: pa.RecordBatch, by_ns: int) -> pa.RecordBatch:
    if by_ns == 0:
        return batch
    return batch.set_column(0, batch.schema.field(0), pc.add(batch.column(0), pa.scalar(by_ns, pa.int64())))


def _imu_batch(first: int, rows: int, generator: np.random.Generator) -> pa.RecordBatch:
    schema = model_arrow_schema("IMU")
    times = START_NS + IMU_PERIOD_NS * np.arange(first, first + rows)
    seconds = times / 1e9
    acceleration = {axis: _quantised(seconds, phase, _ACCELERATION_STEP, generator) for phase, axis in enumerate("xyz")}
    angular_velocity = {
        axis: _quantised(seconds, phase + 3, _ANGULAR_VELOCITY_STEP, generator) for phase, axis in enumerate("xyz")
    }
    quaternion = np.stack([np.sin(seconds / (7 + k)) + generator.normal(0, 1e-4, rows) for k in range(4)])
    quaternion /= np.linalg.norm(quaternion, axis=0)
    columns = {
        "header": _header(schema.field("header").type, times, "imu_link"),
        "acceleration": _estimate(schema.field("acceleration").type, acceleration, 0.02),
        "angular_velocity": _estimate(schema.field("angular_velocity").type, angular_velocity, 0.001),
        "orientation": _estimate(schema.field("orientation").type, dict(zip("xyzw", quaternion, strict=True)), 0.0005),
    }
    arrays = [pa.array(times), *(columns[field.name] for field in list(schema)[1:])]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _image_batch(first: int, rows: int, size: int, generator: np.random.Generator) -> pa.RecordBatch:
    schema = model_arrow_schema("CompressedImage")
    times = START_NS + IMAGE_PERIOD_NS * np.arange(first, first + rows)
    offsets = np.arange(rows + 1, dtype=np.int32) * size
    data = pa.Array.from_buffers(
        pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(generator.bytes(rows * size))]
    )
    columns = {
        "header": _header(schema.field("header").type, times, "camera_front"),
        "data": data,
        "format": pa.array(["jpeg"] * rows),
    }
    arrays = [pa.array(times), *(columns[field.name] for field in list(schema)[1:])]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _quantised(seconds: np.ndarray, phase: int, step: float, generator: np.random.Generator) -> np.ndarray:
    motion = 200 * np.sin(seconds / (3 + phase)) + 50 * np.sin(seconds * (5 + phase))
    return np.round(motion + generator.normal(0, 20, len(seconds))) * step


def _header(kind: pa.StructType, times: np.ndarray, frame: str) -> pa.StructArray:
    stamp_type = kind.field("timestamp").type
    stamp = pa.StructArray.from_arrays(
        [pa.array((times // 10**9).astype(np.int32)), pa.array((times % 10**9).astype(np.uint32))],
        fields=list(stamp_type),
    )
    counter = pa.nulls(len(times), kind.field("sample_counter").type)
    return pa.StructArray.from_arrays([stamp, pa.array([frame] * len(times)), counter], fields=list(kind))


def _estimate(kind: pa.StructType, values: dict[str, np.ndarray], variance: float) -> pa.StructArray:
    """A vector or quaternion with a constant diagonal covariance."""
    rows = len(next(iter(values.values())))
    covariance = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * 9), pa.array(np.tile(np.diag([variance] * 3).ravel(), rows))
    ).cast(kind.field("covariance").type)
    known = {"covariance": covariance} | {axis: pa.array(value) for axis, value in values.items()}
    children = [known.get(field.name, pa.nulls(rows, field.type)) for field in kind]
    return pa.StructArray.from_arrays(children, fields=list(kind))
