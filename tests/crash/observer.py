"""What a SQL engine sees of the whole lake at one instant: all table pointers in one statement, then plain Iceberg."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pyiceberg.table import StaticTable

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.storage import Warehouse

METADATA = "mosaico."


@dataclass
class Instant:
    """One state of the lake.

    Attributes:
        rows: Number of rows by topic table and sequence.
        topics: The same according to `mosaico.topics`.
        sequences, sessions: Sequences in `mosaico.sequences`, and of the sessions in `mosaico.sessions`.
    """

    rows: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    topics: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    sequences: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Each session is there with all of its topics and rows, or not at all."""
        assert self.rows == {key: count for key, count in self.topics.items() if count}
        assert sorted(self.sequences) == sorted(self.sessions) == sorted({name for _, name in self.topics})


class Observer:
    """Looks again and again.

    Args:
        home: Of the lake.
        settings: By name.
        patience_s: How long metadata files outlive their snapshots: who takes longer to read them has to look again.
    """

    def __init__(self, home: Path, settings: dict[str, str], patience_s: float) -> None:
        loaded = Settings.load(home=home, **settings)
        self._url = loaded.database_url
        self._properties = Warehouse.open(loaded).iceberg_properties()
        self._patience_s = patience_s
        self.instants = 0
        self.most_sequences = 0

    def watch(self, stopped: threading.Event) -> None:
        database = Database(self._url, 1)
        try:
            while not stopped.wait(0.1):
                began = time.monotonic()
                try:
                    instant = self.look(database)
                except FileNotFoundError:
                    if time.monotonic() - began < self._patience_s:
                        raise
                    continue
                instant.check()
                self.instants += 1
                self.most_sequences = max(self.most_sequences, len(instant.sequences))
        finally:
            database.close()

    def look_once(self) -> Instant:
        database = Database(self._url, 1)
        try:
            return self.look(database)
        finally:
            database.close()

    def look(self, database: Database) -> Instant:
        with database.snapshot() as connection:
            pointers = read_pointers(connection)
        instant = Instant()
        for identifier, location in pointers.items():
            table = StaticTable.from_metadata(location, self._properties)
            if not identifier.startswith(METADATA):
                for task in table.scan().plan_files():
                    instant.rows[identifier, task.file.partition[0]] += task.file.record_count
                continue
            match identifier.removeprefix(METADATA):
                case "topics":
                    columns = ("table_identifier", "sequence", "row_count")
                    for row in table.scan(selected_fields=columns).to_arrow().to_pylist():
                        instant.topics[row["table_identifier"], row["sequence"]] += row["row_count"]
                case "sequences":
                    instant.sequences = _sequences(table)
                case "sessions":
                    instant.sessions = _sequences(table)
        return instant


def _sequences(table: StaticTable) -> list[str]:
    names: list[str] = table.scan(selected_fields=("sequence",)).to_arrow()["sequence"].to_pylist()
    return names
