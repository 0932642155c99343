"""Topics whose data files are written by hand, so that a test decides about files, row groups, ties and overlaps."""

import io
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem
from sqlalchemy import insert

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.rows import find_topic
from lakehouse.catalog.control_plane.schema import data_files, metadata, sequences, sessions, topics
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.reading.topic_reader import TopicReader
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.storage import Warehouse
from lakehouse.ontology.arrow_iceberg import parquet_schema, plan_storage, topic_table_schema
from lakehouse.ontology.envelope import Envelope

SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("number", pa.int16(), metadata={"unit": "1"}),
        pa.field("nested", pa.struct([pa.field("values", pa.list_(pa.field("item", pa.float32())), nullable=False)])),
        pa.field("label", pa.dictionary(pa.int8(), pa.string())),
    ],
    metadata={"made": "by hand"},
)

_ulids = (f"01ARZ3NDEKTSV4RRFFQ{number:07d}" for number in itertools.count())


@dataclass(repr=False)
class RecordingWarehouse(Warehouse):
    """Remembers what was opened and which bytes were read."""

    opened: list[str] = field(default_factory=list)
    streams: list[pa.NativeFile] = field(default_factory=list)
    ranges: list[tuple[str, int, int]] = field(default_factory=list)

    def __init__(self, storage: Path | Warehouse) -> None:
        """A directory, or what another warehouse is in."""
        warehouse = Warehouse(LocalFileSystem(), storage.as_uri()) if isinstance(storage, Path) else storage
        super().__init__(warehouse._file_system, warehouse.uri, warehouse._object_store)
        self.forget()

    def forget(self) -> None:
        self.opened, self.streams, self.ranges = [], [], []

    def open_input(self, uri: str) -> pa.NativeFile:
        with super().open_input(uri) as stream:
            content = stream.read()
        self.opened.append(uri)
        self.streams.append(pa.PythonFile(_RecordingStream(content, uri, self.ranges), mode="r"))
        return self.streams[-1]

    def read(self, uri: str) -> bytes:
        content = super().read(uri)
        self.opened.append(uri)
        return content

    def read_range(self, uri: str, start: int, stop: int) -> bytes:
        self.opened.append(uri)
        self.ranges.append((uri, start, stop))
        return super().read_range(uri, start, stop)

    def read_tail(self, uri: str, length: int) -> tuple[bytes, int]:
        self.opened.append(uri)
        return super().read_tail(uri, length)

    @property
    def open_streams(self) -> int:
        return sum(not stream.closed for stream in self.streams)


class _RecordingStream(io.BytesIO):
    def __init__(self, content: bytes, uri: str, ranges: list[tuple[str, int, int]]) -> None:
        super().__init__(content)
        self._uri = uri
        self._ranges = ranges

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        found = super().read(size)
        self._ranges.append((self._uri, start, start + len(found)))
        return found


@dataclass(frozen=True, repr=False)
class HandWrittenLake:
    """A control plane and a warehouse; every topic gets a sequence of its own and stays in an open session."""

    database: Database
    warehouse: RecordingWarehouse

    @classmethod
    def create(cls, directory: Path) -> "HandWrittenLake":
        database = Database(f"sqlite:///{directory / 'control_plane.db'}")
        metadata.create_all(database.engine)
        return cls(database, RecordingWarehouse(directory / "warehouse"))

    def reader(self, **options: Any) -> TopicReader:
        """A reader with nothing cached."""
        return TopicReader(self.database, self.warehouse, SkipIndex(TableFiles(self.warehouse)), **options)

    def write_topic(
        self,
        files: Sequence[pa.RecordBatch],
        row_group_size: int = 1 << 20,
        schema: pa.Schema = SCHEMA,
        **parquet_options: Any,
    ) -> TopicRecord:
        """Write one data file per batch (each in time order) and record them in order of arrival."""
        plan, topic_uuid, sequence = plan_storage(schema), str(uuid.uuid4()), str(uuid.uuid4())
        ulid = next(_ulids)
        envelope = Envelope(parquet_schema(topic_table_schema(plan), plan), sequence, f"{sequence}:{ulid}")
        entries = []
        for ordinal, rows in enumerate(files):
            uri = f"{self.warehouse.uri}/{topic_uuid}-{ordinal:05d}.parquet"
            stored = envelope.add(pa.Table.from_batches([plan.to_storage(rows)]))
            with self.warehouse.open_output(uri) as sink:
                pq.write_table(stored, sink, row_group_size=row_group_size, store_schema=False, **parquet_options)
            timestamps = rows.column("timestamp_ns")
            start_ns, end_ns = timestamps[0].as_py(), timestamps[-1].as_py()
            entries.append(DataFileEntry(uri, sequence, 0, rows.num_rows, 1, start_ns, end_ns, ordinal))
        with self.database.transaction() as connection:
            (sequence_id,) = connection.execute(
                insert(sequences).values(name=sequence, user_metadata="{}", created_at_ns=1)
            ).inserted_primary_key
            (session_id,) = connection.execute(
                insert(sessions).values(
                    sequence_id=sequence_id,
                    uuid=str(uuid.uuid4()),
                    public_uuid=str(uuid.uuid4()),
                    ulid=ulid,
                    state="open",
                    created_at_ns=1,
                )
            ).inserted_primary_key
            (topic_id,) = connection.execute(
                insert(topics).values(
                    sequence_id=sequence_id,
                    session_id=session_id,
                    uuid=topic_uuid,
                    path="front",
                    ontology_tag="test",
                    serialization_format="default",
                    user_metadata="{}",
                    state="finalized",
                    created_at_ns=1,
                    arrow_schema=schema.serialize().to_pybytes(),
                )
            ).inserted_primary_key
            for entry in entries:
                connection.execute(
                    insert(data_files).values(topic_id=topic_id, ordinal=entry.ordinal, entry=entry.to_bytes())
                )
        with self.database.snapshot() as connection:
            topic = find_topic(connection, TopicLocator(sequence, "front"))
        assert topic is not None
        return replace(topic)


def rows_at(timestamps: Sequence[int], first_number: int = 0) -> pa.RecordBatch:
    """Rows of `SCHEMA` at these times; `number` counts up, so that every row can be told from every other."""
    numbers = np.arange(first_number, first_number + len(timestamps), dtype=np.int16)
    nested = [None if number % 7 == 3 else {"values": [float(number)] * (number % 3)} for number in numbers.tolist()]
    labels = pa.array([None if number % 5 == 2 else f"label {number % 4}" for number in numbers.tolist()])
    return pa.record_batch(
        [
            pa.array(timestamps, pa.int64()),
            pa.array(numbers),
            pa.array(nested, SCHEMA.field("nested").type),
            labels.dictionary_encode().cast(SCHEMA.field("label").type),
        ],
        schema=SCHEMA,
    )
