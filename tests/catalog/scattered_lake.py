"""A lake whose uploads leave many small data files, as disorder and small chunks do, and what a reader sees of it."""

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyiceberg.table import Table

from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.compaction import CompactionReport, run_compaction
from lakehouse.catalog.records import SessionRecord, TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.time_window import UNBOUNDED, TimeWindow

TAG = "Scattered"
DAY_NS = 86_400 * 10**9
START_NS = 20_000 * DAY_NS
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("number", pa.int64()),
        pa.field("state", pa.struct([("x", pa.float64())])),
        pa.field("readings", pa.list_(pa.float32())),
    ]
)
# A few rows fill a chunk.
TINY_CHUNK = 2048


class ScatteredLake:
    """Opens the lake in `home`; any number may, in any number of processes."""

    def __init__(
        self,
        home: Path,
        database_url: str = "",
        store: Mapping[str, str] | None = None,
        *,
        may_be_lost: bool = False,
        **changes: Any,
    ) -> None:
        options: dict[str, Any] = {"max_chunk_size": TINY_CHUNK, "compaction_target_size": 1 << 20, **changes}
        settings = Settings.load(home=home, db_url=database_url, **({"store_endpoint": ""} if store is None else store))
        self.lakehouse = Lakehouse.open(settings.model_copy(update=options), may_be_lost=may_be_lost)

    def begin(self, sequence: str) -> SessionRecord:
        self.lakehouse.sequences.create(sequence)
        return self.lakehouse.sessions.create(sequence)

    def upload(
        self, session: SessionRecord, batches: Sequence[pa.RecordBatch], path: str = "front", tag: str = TAG
    ) -> TopicLocator:
        locator = TopicLocator(session.locator.sequence, path)
        uuid = self.lakehouse.topics.create(session.uuid, locator, "default", tag)
        with self.lakehouse.topics.begin_upload(locator, uuid, batches[0].schema) as upload:
            for batch in batches:
                upload.write(batch)
            upload.finish()
        return locator

    def store(
        self, sequence: str, batches: Sequence[pa.RecordBatch], path: str = "front", tag: str = TAG
    ) -> TopicRecord:
        """A finalized sequence of one topic."""
        session = self.begin(sequence)
        locator = self.upload(session, batches, path, tag)
        self.lakehouse.sessions.finalize(session.uuid)
        return self.lakehouse.topics.get(locator)

    def compact(self, dry_run: bool = False, **changes: Any) -> CompactionReport:
        lake = self.lakehouse
        settings = lake.settings.model_copy(update=changes)
        report = run_compaction(lake.database, lake.table_files, lake.committer, settings, dry_run)
        assert report is not None
        return report

    def rows(self, topic: TopicRecord, window: TimeWindow = UNBOUNDED) -> list[str]:
        return as_texts(self.lakehouse.reader.read(topic, window))

    def stock_table(self, identifier: str) -> Table:
        """The table as a program of somebody else opens it."""
        catalog = open_sql_catalog(self.lakehouse.database, self.lakehouse.warehouse)
        try:
            return catalog.load_table(identifier)
        finally:
            catalog.close()

    def files_of(self, topic: TopicRecord) -> list[str]:
        """URIs of the data files that stock PyIceberg plans to read for a sequence."""
        assert topic.table_identifier is not None
        table = self.stock_table(topic.table_identifier)
        scan = table.scan(row_filter=f"sequence = '{topic.locator.sequence}'")
        return sorted(task.file.file_path for task in scan.plan_files())

    def stored_files(self) -> set[str]:
        """URIs of all data files in the warehouse."""
        found = self.lakehouse.warehouse.list_files(self.lakehouse.warehouse.uri)
        return {file.uri for file in found if file.uri.endswith(".parquet")}

    def find(self, ontology: Mapping[str, Any]) -> set[str]:
        """Names of the sequences that a query finds."""
        return {each.name for each in self.lakehouse.query({"ontology": ontology})}

    def close(self) -> None:
        self.lakehouse.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_texts(batches: Iterable[pa.RecordBatch]) -> list[str]:
    """Each row as text, in which NaN equals NaN."""
    return [repr(row) for batch in batches for row in batch.to_pylist()]


_seeds = itertools.count()


def disordered(count: int = 40, rows: int = 20, start_ns: int = START_NS, ties: int = 5) -> list[pa.RecordBatch]:
    """Batches that jump back and forth in time, many rows of one time; `number` tells every row from every other."""
    generator = random.Random(next(_seeds))
    batches = []
    for number in range(count):
        base = start_ns + generator.randrange(count) * ties
        times = [base + generator.randrange(ties) for _ in range(rows)]
        numbers = list(range(number * rows, (number + 1) * rows))
        values = [float("nan") if each % 97 == 5 else float(each) for each in numbers]
        batches.append(
            pa.RecordBatch.from_pylist(
                [
                    {"timestamp_ns": t, "number": n, "state": {"x": x}, "readings": [x, -x][: n % 3]}
                    for t, n, x in zip(times, numbers, values, strict=True)
                ],
                schema=SCHEMA,
            )
        )
    return batches


def in_order(count: int = 40, rows: int = 50, start_ns: int = START_NS) -> list[pa.RecordBatch]:
    """Batches one after another in time."""
    numbers = np.arange(count * rows)
    values = pa.array(numbers.astype(np.float64))
    table = pa.table(
        [
            pa.array(start_ns + numbers * 1000),
            pa.array(numbers),
            pa.StructArray.from_arrays([values], ["x"]),
            pa.array([[float(n)] for n in numbers.tolist()], pa.list_(pa.float32())),
        ],
        schema=SCHEMA,
    )
    return table.to_batches(max_chunksize=rows)
