"""Topics for contract tests, written through the catalog like any upload."""

from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionRecord
from lakehouse.ontology.registry import model_arrow_schema

START = 1_700_000_000_000_000_000
NS = 1_000_000_000


def imu_rows(count: int = 1000, hz: float = 100.0, seed: int = 1) -> dict[str, Any]:
    """Columns of a living IMU at rest: `times` and the six axes."""
    random = np.random.default_rng(seed)
    rows: dict[str, Any] = {"times": START + (np.arange(count) * (NS / hz)).astype(np.int64)}
    for axis in ("ax", "ay", "az", "gx", "gy", "gz"):
        rows[axis] = random.normal(0, 0.1, count)
    rows["az"] += 9.81
    rows["w"] = np.ones(count)
    return rows


def imu_table(rows: dict[str, Any]) -> pa.Table:
    """The rows under the shipped schema."""
    schema = model_arrow_schema("IMU")
    count = len(rows["times"])

    def vector(kind: pa.DataType, parts: dict[str, Any]) -> pa.Array:
        columns = [
            pa.array(parts[field.name]) if field.name in parts else pa.nulls(count, field.type) for field in kind
        ]
        return pa.StructArray.from_arrays(columns, fields=list(kind))

    acceleration = {"x": rows["ax"], "y": rows["ay"], "z": rows["az"]}
    turning = {"x": rows["gx"], "y": rows["gy"], "z": rows["gz"]}
    zero = np.zeros(count)
    orientation = {"x": zero, "y": zero, "z": zero, "w": rows["w"]}
    columns = {
        "timestamp_ns": pa.array(rows["times"]),
        "header": pa.nulls(count, schema.field("header").type),
        "acceleration": vector(schema.field("acceleration").type, acceleration),
        "angular_velocity": vector(schema.field("angular_velocity").type, turning),
        "orientation": vector(schema.field("orientation").type, orientation),
    }
    return pa.table([columns[field.name] for field in schema], schema=schema)


def upload(
    lake: Lakehouse,
    session: SessionRecord,
    path: str,
    tag: str,
    table: pa.Table,
    user_metadata: dict[str, Any] | None = None,
) -> None:
    locator = TopicLocator(session.locator.sequence, path)
    topic = lake.topics.create(session.uuid, locator, "default", tag, user_metadata)
    with lake.topics.begin_upload(locator, topic, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=8192):
            writer.write(batch)
        writer.finish()


def record_sequence(
    lake: Lakehouse, sequence: str, topics: dict[str, tuple[str, pa.Table]], finalize: bool = True
) -> SessionRecord:
    """A sequence with one session.

    Args:
        lake: Where.
        sequence: Its name.
        topics: Ontology tag and rows by path.
        finalize: Whether the session is finalized.
    """
    lake.sequences.create(sequence, {})
    session = lake.sessions.create(sequence)
    for path, (tag, table) in topics.items():
        upload(lake, session, path, tag, table)
    if finalize:
        lake.sessions.finalize(session.uuid)
    return session
