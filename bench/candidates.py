"""Queries over very many sequences by name, metadata and tag, against reading every sequence's metadata."""

import json
import random
import uuid
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy import Connection, insert, select

from bench.measuring import interleave, ratio_of_times
from bench.report import Line, Section
from bench.runs import Run
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.metadata_index import index_sequence_metadata
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.rows import to_json
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.query.candidates import find_candidates
from lakehouse.catalog.query.grammar import parse_query

SEQUENCES = (10_000, 100_000)
TOPICS = {"/imu/front": "IMU", "/imu/rear": "IMU", "/gps": "GPS"}
PER_TRANSACTION = 1000
GOAL_MS = 50.0

Metadata = dict[str, Any]


def measure(run: Run) -> Section:
    section = Section(
        "Queries by name and metadata",
        "Sequences of three topics and some twenty metadata values, on SQLite. *Reading all*: every sequence's "
        "metadata is read and its JSON parsed, as a server without an index has to.",
    )
    for count in (1000,) if run.quick else SEQUENCES:
        database = Database(f"sqlite:///{run.directory / f'{count}.db'}")
        migrate(database)
        _fill(database, count, run.step(f"candidates, making {count:,} sequences", count // PER_TRANSACTION))
        section.lines += _lines(run, database, count)
        database.close()
    return section


def _questions(count: int) -> dict[str, dict[str, Any]]:
    """Each finds a few sequences, whatever their number."""
    some = count // 2
    of_vehicle = {"user_metadata": {"vehicle.id": {"$eq": f"v{some // 100}"}}}
    rainy: Metadata = {"weather.kind": {"$eq": "rain"}, "weather.visibility": {"$lt": 4}}
    return {
        "name equal": {"sequence": {"name": {"$eq": f"drive_{some:06d}"}}},
        "name `drive_0005##`": {"sequence": {"name": {"$match": "drive_0005##"}}},
        "name `*_0??77?`": {"sequence": {"name": {"$match": "*_0??77?"}}},
        "metadata equal": {"sequence": of_vehicle},
        "metadata equal, and tag": {"sequence": of_vehicle, "topic": {"ontology_tag": {"$eq": "GPS"}}},
        "metadata by wildcard `**.serial`": {"sequence": {"user_metadata": {"**.serial": {"$eq": f"SN-{some:08d}"}}}},
        "two metadata values, and topic name": {
            "sequence": {"user_metadata": rainy},
            "topic": {"name": {"$eq": "/gps"}},
        },
        "metadata pattern `*number 77?7`": {"sequence": {"user_metadata": {"notes": {"$match": "*number 77?7"}}}},
        "created between": {"sequence": {"created_at_ns": {"$between": [some, some + 9]}}},
    }


def _lines(run: Run, database: Database, count: int) -> list[Line]:
    lines = []
    for name, request in _questions(count).items():
        found = interleave(
            {"ours": partial(_ask, database, request), "reading all": partial(_read_all, database)},
            run.rounds(3),
            run.step(f"candidates, {name}, {count:,}", run.rounds(3) + 1, 2),
        )
        ratio = ratio_of_times(found["ours"], found["reading all"])
        lines.append(
            Line(
                f"{name}, {count:,} sequences",
                found["ours"].text(1, "ms"),
                f"reading all: {found['reading all'].text()} ms",
                ratio.text(1),
                f"≤ {GOAL_MS:.0f} ms",
                found["ours"].median <= GOAL_MS,
            )
        )
    return lines


def _ask(database: Database, request: dict[str, Any]) -> float:
    started = monotonic()
    with database.snapshot() as connection:
        find_candidates(connection, parse_query(request))
    return 1e3 * (monotonic() - started)


def _read_all(database: Database) -> float:
    started = monotonic()
    with database.snapshot() as connection:
        for text in connection.scalars(select(sequences.c.user_metadata)):
            json.loads(text)
    return 1e3 * (monotonic() - started)


def _fill(database: Database, count: int, advance: Any) -> None:
    generator = random.Random(0)
    for start in range(0, count, PER_TRANSACTION):
        with database.transaction() as connection:
            for number in range(start, start + PER_TRANSACTION):
                _add(connection, number, _metadata(number, generator))
        advance()


def _add(connection: Connection, number: int, user_metadata: Metadata) -> None:
    row_id = number + 1
    common: Metadata = {"sequence_id": row_id, "created_at_ns": number}
    sequence = {"id": row_id, "name": f"drive_{number:06d}", "user_metadata": to_json(user_metadata)}
    connection.execute(insert(sequences).values(created_at_ns=number, **sequence))
    index_sequence_metadata(connection, row_id, user_metadata)
    identity = {"id": row_id, "uuid": str(uuid.uuid4()), "public_uuid": str(uuid.uuid4()), "ulid": f"{number:026d}"}
    connection.execute(insert(sessions).values(state="finalized", **identity, **common))
    common |= {"session_id": row_id, "user_metadata": "{}", "state": "finalized", "serialization_format": "default"}
    connection.execute(
        insert(topics),
        [
            {"uuid": str(uuid.uuid4()), "path": path.removeprefix("/"), "ontology_tag": tag, **common}
            for path, tag in TOPICS.items()
        ],
    )


def _metadata(number: int, generator: random.Random) -> Metadata:
    return {
        "project": generator.choice(["Apollo", "Gemini", "Mercury"]),
        "weather": {
            "kind": generator.choice(["rain", "sun", "snow", "fog"]),
            "visibility": generator.randrange(10_000),
        },
        "vehicle": {"id": f"v{number // 100}", "serial": f"SN-{number:08d}", "tires": [2.1, 2.2, 2.1, 2.3]},
        "tags": generator.sample(["night", "wet", "city", "highway", "tunnel", "dust"], 2),
        "driver": f"driver {number % 50}",
        "odometer": number * 1.5,
        "released": number % 7 == 0,
        "notes": f"what was noted on drive number {number}",
    }
