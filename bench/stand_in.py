"""A Flight server that runs the product's own service code over memory instead of a lake.

Uploads below `kept/` stay in memory and can be read; all others are dropped batch by batch. What it does per second is
what gRPC, Python and the IPC codec allow, with nothing stored.
"""

import argparse
import signal
import threading
import time
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from types import TracebackType
from typing import Self, cast

import pyarrow as pa

from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator, TopicLocator, new_ulid
from lakehouse.catalog.reading.topic_reader import WindowInfo
from lakehouse.catalog.records import SerializationFormat, TopicRecord, TopicState
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.time_window import TimeInterval, TimeWindow
from lakehouse.flight_gateway.server import Gateway
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

KEPT = "kept/"


class _DroppingUpload:
    """Takes batches and forgets them."""

    def write(self, batch: pa.RecordBatch) -> None:
        pass

    def finish(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _KeepingUpload(_DroppingUpload):
    def __init__(self, shelf: dict[str, TopicRecord], rows: list[pa.RecordBatch], topic: TopicRecord) -> None:
        self._shelf = shelf
        self._rows = rows
        self._topic = topic

    def write(self, batch: pa.RecordBatch) -> None:
        self._rows.append(batch)

    def finish(self) -> None:
        self._shelf[str(self._topic.locator)] = self._topic


class _MemoryTopics:
    """Stands where the lake has `topics` and `reader`."""

    def __init__(self) -> None:
        self._shelf: dict[str, TopicRecord] = {}
        self._rows: dict[str, list[pa.RecordBatch]] = {}

    def begin_upload(self, locator: TopicLocator, topic_uuid: str, schema: pa.Schema) -> _DroppingUpload:
        if not locator.path.startswith(KEPT):
            return _DroppingUpload()
        rows = self._rows[str(locator)] = []
        return _KeepingUpload(self._shelf, rows, _topic(locator, topic_uuid, schema))

    def get(self, locator: TopicLocator) -> TopicRecord:
        try:
            return self._shelf[str(locator)]
        except KeyError:
            raise NotFoundError("topic", locator) from None

    def window_info(self, topic: TopicRecord, window: TimeWindow) -> WindowInfo:
        found = list(self.read(topic, window))
        if not found:
            return WindowInfo(None, 0)
        times = [batch.column(TIMESTAMP_COLUMN) for batch in (found[0], found[-1])]
        interval = TimeInterval(times[0][0].as_py(), times[1][-1].as_py())
        return WindowInfo(interval, sum(batch.num_rows for batch in found))

    def read(self, topic: TopicRecord, window: TimeWindow) -> Iterator[pa.RecordBatch]:
        batches = self._rows[str(topic.locator)]
        if window.is_unbounded:
            yield from batches
            return
        first = 0 if window.start_ns is None else max(0, bisect_right(batches, window.start_ns, key=_first_ns) - 1)
        last = len(batches) if window.end_ns is None else bisect_left(batches, window.end_ns, key=_first_ns)
        for batch in batches[first:last]:
            times = batch.column(TIMESTAMP_COLUMN).to_numpy()
            start = 0 if window.start_ns is None else int(times.searchsorted(window.start_ns))
            end = len(times) if window.end_ns is None else int(times.searchsorted(window.end_ns))
            if start < end:
                yield batch.slice(start, end - start)


class _MemoryLakehouse:
    """The parts of a lakehouse that the RPCs for rows use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = self.reader = _MemoryTopics()


def _first_ns(batch: pa.RecordBatch) -> int:
    first: int = batch.column(TIMESTAMP_COLUMN)[0].as_py()
    return first


def _topic(locator: TopicLocator, topic_uuid: str, schema: pa.Schema) -> TopicRecord:
    now_ns = time.time_ns()
    return TopicRecord(
        id=1,
        sequence_id=1,
        session_id=1,
        locator=locator,
        session_locator=SessionLocator(locator.sequence, new_ulid(now_ns)),
        session_is_finalized=True,
        uuid=topic_uuid or str(uuid.uuid4()),
        ontology_tag="IMU",
        serialization_format=SerializationFormat.DEFAULT,
        user_metadata={},
        state=TopicState.FINALIZED,
        created_at_ns=now_ns,
        completed_at_ns=now_ns,
        arrow_schema=schema.serialize().to_pybytes(),
        table_identifier=None,
        row_count=1,
        total_bytes=1,
        chunk_count=1,
        interval=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Gateway(cast(Lakehouse, _MemoryLakehouse(Settings.load())), port=port):
        stopped.wait()


if __name__ == "__main__":
    main()
