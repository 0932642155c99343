"""Small sequences that several processes write, delete and check: their rows follow from their name."""

import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse

TAG, TOPICS = "Small", ("imu/front", "odometry")
ROWS = 300
MESSAGES_PER_RECORDING = 4
SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("x", pa.float64())])


def rows_of(sequence: str, topic: str) -> pa.Table:
    """All rows of a topic."""
    generator = np.random.default_rng(zlib.crc32(f"{sequence}/{topic}".encode()))
    stamps = 1_000_000_000 + np.arange(ROWS) * 5_000_000
    return pa.table([pa.array(stamps, pa.int64()), pa.array(generator.normal(size=ROWS))], schema=SCHEMA)


def rows_in_iceberg(home: Path, settings: dict[str, str]) -> dict[tuple[str, str], pa.Table]:
    """What a stock Iceberg reader sees, by sequence and topic."""
    loaded = Settings.load(home=home, **settings)
    properties = Warehouse.open(loaded).iceberg_properties()
    catalog = SqlCatalog("lake", uri=loaded.database_url, warehouse=loaded.warehouse_uri, **properties)
    found: dict[tuple[str, str], pa.Table] = {}
    try:
        for topic in TOPICS:
            try:
                table = catalog.load_table((TAG.lower(), topic.replace("/", "_")))
            except NoSuchTableError:
                continue
            rows = pl.from_arrow(table.scan().to_arrow())
            assert isinstance(rows, pl.DataFrame)
            for (sequence,), part in rows.partition_by("sequence", as_dict=True).items():
                ordered = part.sort("timestamp_ns").select("timestamp_ns", "x").to_arrow()
                found[str(sequence), topic] = ordered.cast(SCHEMA)
    finally:
        catalog.close()
    return found
