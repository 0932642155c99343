"""One sqlite3 storage file of a rosbag2 (https://github.com/ros2/rosbag2, rosbag2_storage_sqlite3).

Messages are read in the order they were written. The database is opened immutable and with its limits tightened: a
recording may come from anywhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lakehouse.orchestration.recordings.errors import UnreadableRecordingError
from lakehouse.orchestration.recordings.recording import (
    DEFAULT_BLOCK_BYTES,
    UNKNOWN,
    BlockBuffer,
    Channel,
    RawMessages,
    Recording,
)

MAGIC = b"SQLite format 3\x00"

_ROWS_AT_ONCE = 256


class Sqlite3Recording(Recording):
    """A `.db3` file.

    Raises:
        UnreadableRecordingError: If it is not a rosbag2 database, or damaged where it describes itself.
    """

    format = "rosbag2-sqlite3"

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, [path])
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise UnreadableRecordingError(self.name, "it cannot be opened as a database") from error
        try:
            self._database.text_factory = lambda data: data.decode("utf-8", errors="replace")
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(path.stat().st_size, 1 << 20))
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._describe()
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._database.close()
            raise UnreadableRecordingError(self.name, "it is not an intact rosbag2 database") from error

    def close(self) -> None:
        self._database.close()

    def read_messages(
        self, channels: Collection[Channel] | None = None, block_bytes: int = DEFAULT_BLOCK_BYTES
    ) -> Iterator[RawMessages]:
        buffer = BlockBuffer(self, channels, block_bytes)
        orphans = 0
        try:
            cursor = self._database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY rowid")
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                for topic_id, time_ns, payload in rows:
                    if not isinstance(topic_id, int) or self.channel_of(topic_id) is None:
                        orphans += 1
                    elif not buffer.wants(topic_id):
                        continue
                    elif isinstance(time_ns, int) and isinstance(payload, bytes):
                        buffer.add(topic_id, time_ns, UNKNOWN, UNKNOWN, payload)
                    else:
                        buffer.reject(topic_id, "its row in the database holds no message")
                yield from buffer.full_blocks()
        except sqlite3.Error as error:
            self.note_damage(f"the database is damaged: {error}")
        if orphans:
            self.note_damage(f"{orphans:,} messages belong to topics that are not described")
        yield from buffer.remaining_blocks()

    def _describe(self) -> None:
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"topics", "messages"} <= tables:
            raise UnreadableRecordingError(self.name, "it is a database, but not one of rosbag2")
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            for row in self._rows("message_definitions"):
                definitions[row["topic_type"]] = (row["encoding"], row["encoded_message_definition"])
        if "schema" in tables:
            for row in self._rows("schema"):
                self.details |= {key: value for key, value in row.items() if isinstance(value, (str, int))}
        counts: dict[int, int] | None = None
        with suppress(sqlite3.DatabaseError):  # a page among the messages may be damaged; the others can be read
            counts = dict(self._database.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
        streams = []
        for row in self._rows("topics"):
            # Events of a service are described by the definition of the service.
            found = definitions.get(row["type"]) or definitions.get(str(row["type"]).removesuffix("_Event"))
            schema_encoding, schema = found or ("", "")
            known = ("id", "name", "type", "serialization_format")
            channel = Channel(
                id=int(row["id"]),
                topic=str(row["name"]),
                message_type=str(row["type"]),
                encoding=str(row["serialization_format"]),
                schema_encoding=schema_encoding if schema else "",
                schema=schema.encode(),
                message_count=counts.get(row["id"], 0) if counts is not None else None,
                metadata={key: value for key, value in row.items() if key not in known and value not in (None, "")},
            )
            streams.append((channel.id, (channel.message_type, channel.encoding), channel))
        self._set_channels(streams)

    def _rows(self, table: str) -> list[dict[str, Any]]:
        cursor = self._database.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]
