"""A lake that has seen many sequences, made in a fraction of the time that recording them would take.

One sequence is uploaded for real. The others are copies of its control-plane rows under other names, finalized like
any session: with real commits, real manifests, real metadata tables and real maintenance. Only their data files do not
exist, and finalizing a session never looks at data files.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, insert, select

from bench.rows import RowSource
from lakehouse.catalog.control_plane.schema import data_files, sequences, sessions, topics
from lakehouse.catalog.iceberg.data_files import DataFileEntry, data_file_uri
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator, new_ulid
from lakehouse.catalog.records import SessionState
from lakehouse.catalog.settings import Settings

# Sessions finalized at once share commits; the last ones go one by one, so that what a table ends with (its newest
# snapshots and manifests) is what single sessions leave behind.
SESSIONS_AT_ONCE = 64
LAST_ONE_BY_ONE = 25
TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class SmallTopic:
    """A topic of a session whose size does not matter."""

    path: str
    rows: RowSource

    @property
    def batch(self) -> pa.RecordBatch:
        return self.rows.batches[0]


def small_topics(count: int) -> list[SmallTopic]:
    """Topics of wide and of narrow types, alternating."""
    imu = RowSource.imu(batch_bytes=40_000, pool_bytes=40_000)
    images = RowSource.images(image_bytes=2_000, images_per_batch=10, batches=1)
    return [SmallTopic(f"sensors/number_{number}", (imu, images)[number % 2]) for number in range(count)]


def make_history(home: Path, kinds: Sequence[SmallTopic], count: int, advance: Callable[[int], None]) -> None:
    """Fill a new lake with `count` finalized sequences of these topics.

    Args:
        home: Directory of the lake.
        kinds: Topics of every sequence.
        count: Sequences.
        advance: Told how many sequences were added.
    """
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as lake:
        lake.maintenance.start()
        template = _upload_template(lake, kinds)
        advance(1)
        names = [f"history-{number}" for number in range(1, count)]
        at_once = max(0, len(names) - LAST_ONE_BY_ONE)
        with ThreadPoolExecutor(SESSIONS_AT_ONCE) as pool:
            for first in range(0, at_once, SESSIONS_AT_ONCE):
                group = template.copy(lake, names[first : min(first + SESSIONS_AT_ONCE, at_once)])
                list(pool.map(lake.sessions.finalize, group))
                advance(len(group))
        lake.maintenance.run(_all_tables(lake))
        for session_uuid in template.copy(lake, names[at_once:]):
            lake.sessions.finalize(session_uuid)
            advance(1)


@dataclass(frozen=True, slots=True)
class _Template:
    """An uploaded session as it stood before it was finalized.

    Attributes:
        topics: Control-plane rows.
        files: For each topic, its data files.
    """

    topics: Sequence[dict[str, Any]]
    files: Sequence[Sequence[DataFileEntry]]

    def copy(self, lake: Lakehouse, names: Iterable[str]) -> list[str]:
        """Write sequences of these names with one open, fully uploaded session each; returns the sessions' UUIDs."""
        session_uuids = []
        with lake.database.transaction() as connection:
            for name in names:
                session_uuids.append(str(uuid.uuid4()))
                self._copy_one(connection, name, session_uuids[-1])
        return session_uuids

    def _copy_one(self, connection: Connection, name: str, session_uuid: str) -> None:
        now_ns = time.time_ns()
        sequence_id = connection.execute(
            insert(sequences).values(name=name, user_metadata="{}", created_at_ns=now_ns).returning(sequences.c.id)
        ).scalar_one()
        session_id = connection.execute(
            insert(sessions)
            .values(
                sequence_id=sequence_id,
                uuid=session_uuid,
                public_uuid=str(uuid.uuid4()),
                ulid=new_ulid(now_ns),
                state=SessionState.OPEN,
                created_at_ns=now_ns,
            )
            .returning(sessions.c.id)
        ).scalar_one()
        for topic, files in zip(self.topics, self.files, strict=True):
            topic_uuid = str(uuid.uuid4())
            own = {"sequence_id": sequence_id, "session_id": session_id, "uuid": topic_uuid}
            topic_id = connection.execute(insert(topics).values(topic | own).returning(topics.c.id)).scalar_one()
            for file in files:
                entry = _renamed(file, name, topic_uuid).to_bytes()
                connection.execute(insert(data_files).values(topic_id=topic_id, ordinal=file.ordinal, entry=entry))


def _renamed(file: DataFileEntry, sequence: str, topic_uuid: str) -> DataFileEntry:
    table_location = file.path.partition("/data/")[0]
    path = data_file_uri(table_location, sequence, file.day, topic_uuid, file.ordinal)
    return replace(file, path=path, sequence=sequence)


def _upload_template(lake: Lakehouse, kinds: Sequence[SmallTopic]) -> _Template:
    lake.sequences.create(TEMPLATE)
    session = lake.sessions.create(TEMPLATE)
    for kind in kinds:
        locator = TopicLocator(TEMPLATE, kind.path)
        topic_uuid = lake.topics.create(session.uuid, locator, kind.rows.serialization_format, kind.rows.tag)
        with lake.topics.begin_upload(locator, topic_uuid, kind.rows.schema) as upload:
            upload.write(kind.batch)
            upload.finish()
    with lake.database.snapshot() as connection:
        rows = [dict(row) for row in connection.execute(select(topics)).mappings()]
        files = [
            [
                DataFileEntry.from_bytes(entry)
                for entry in connection.scalars(select(data_files.c.entry).where(data_files.c.topic_id == row["id"]))
            ]
            for row in rows
        ]
    lake.sessions.finalize(session.uuid)
    for row in rows:
        del row["id"]
    return _Template(rows, files)


def _all_tables(lake: Lakehouse) -> list[str]:
    with lake.database.snapshot() as connection:
        return sorted(read_pointers(connection))
