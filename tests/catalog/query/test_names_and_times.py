"""Conditions on names, tags, formats and creation times, on both databases."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.locators import new_ulid
from lakehouse.catalog.query.candidates import find_candidates
from lakehouse.catalog.query.grammar import parse_query
from tests.postgres_server import fresh_database

# Sequences with their topics; both are created at 10, 20, 30 ... ns in this order.
LAKE = {
    "drive_01": ["imu/front", "imu/rear", "gps"],
    "drive_02": ["imu/front"],
    "driveX02": ["imu/front"],
    "Test-7": ["camera/front/rgb"],
    "empty": [],
}
TAGS = {"gps": "GPS", "camera/front/rgb": "Image"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        yield from filled(f"sqlite:///{tmp_path_factory.mktemp('names') / 'lakehouse.db'}")
    else:
        with fresh_database(request.getfixturevalue("postgres_host"), "names_and_times") as url:
            yield from filled(url)


def filled(url: str) -> Iterator[Database]:
    database = Database(url)
    migrate(database)
    with database.transaction() as connection:
        for number, (name, paths) in enumerate(LAKE.items(), 1):
            fill(connection, name, paths, number * 10)
    yield database
    database.close()


def fill(connection: Connection, name: str, paths: list[str], created_at_ns: int) -> None:
    common: dict[str, Any] = {"created_at_ns": created_at_ns}
    row = connection.execute(
        insert(sequences).values(name=name, user_metadata="{}", **common).returning(sequences.c.id)
    )
    common["sequence_id"] = row.scalar_one()
    names = {"uuid": str(uuid.uuid4()), "public_uuid": str(uuid.uuid4()), "ulid": new_ulid(time.time_ns())}
    row = connection.execute(insert(sessions).values(state="open", **names, **common).returning(sessions.c.id))
    common |= {"session_id": row.scalar_one(), "user_metadata": "{}", "state": "empty"}
    for path in paths:
        kind = {"ontology_tag": TAGS.get(path, "IMU"), "serialization_format": "image" if path in TAGS else "default"}
        connection.execute(insert(topics).values(uuid=str(uuid.uuid4()), path=path, **kind, **common))


def found(database: Database, **request: Any) -> set[str]:
    with database.snapshot() as connection:
        return {f"{each.sequence}/{each.path}" for each in find_candidates(connection, parse_query(request))}


ALL = {f"{name}/{path}" for name, paths in LAKE.items() for path in paths}


def starting(*prefixes: str) -> set[str]:
    return {locator for locator in ALL if locator.startswith(prefixes)}


def on_paths(*paths: str) -> set[str]:
    return {locator for locator in ALL if locator.partition("/")[2] in paths}


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"$eq": "drive_01"}, starting("drive_01")),
        ({"$eq": "drive"}, set()),
        ({"$eq": "/drive_01"}, set()),
        ({"$eq": "empty"}, set()),
        ({"$neq": "drive_01"}, ALL - starting("drive_01")),
        ({"$neq": "\ud800"}, ALL),
        ({"$eq": "x\x00"}, set()),
        ({"$in": ["drive_01", "Test-7", "nothing", "\x00", "\ud800", "é"]}, starting("drive_01", "Test-7")),
        ({"$in": ["drive_02"] + [f"other_{number}" for number in range(50_000)]}, starting("drive_02")),
        ({"$match": "*"}, ALL),
        ({"$match": "drive_*"}, starting("drive_")),
        ({"$match": "drive?02"}, starting("drive_02", "driveX02")),
        ({"$match": "drive_##"}, starting("drive_")),
        ({"$match": "*02"}, starting("drive_02", "driveX02")),
        ({"$match": "[A-Z]*-#"}, starting("Test-7")),
        ({"$match": "*ive*0*"}, starting("drive")),
        ({"$match": "DRIVE*"}, set()),
        ({"$match": "*é*"}, set()),
        ({"$match": "*\x00*"}, set()),
        ({"$match": "\ud800*"}, set()),
        ({"$match": "\ud7ff*"}, set()),
        ({"$match": "drive_*", "$neq": "drive_02"}, starting("drive_01")),
        ({"$ex": None}, ALL),
        ({"$nex": None}, set()),
    ],
)
def test_sequence_names(database: Database, operators: dict[str, Any], expected: set[str]) -> None:
    assert found(database, sequence={"name": operators}) == expected


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"$eq": "/imu/front"}, on_paths("imu/front")),
        ({"$eq": "imu/front"}, on_paths("imu/front")),
        ({"$eq": "//imu/front"}, on_paths("imu/front")),
        ({"$eq": "drive_01/imu/front"}, set()),
        ({"$neq": "/imu/front"}, ALL - on_paths("imu/front")),
        ({"$in": ["/gps", "imu/rear"]}, on_paths("gps", "imu/rear")),
        ({"$match": "/imu/*"}, on_paths("imu/front", "imu/rear")),
        ({"$match": "imu/*"}, on_paths("imu/front", "imu/rear")),
        ({"$match": "/*"}, ALL),
        ({"$match": "*"}, ALL),
        ({"$match": "/gps"}, on_paths("gps")),
        ({"$match": "gps"}, on_paths("gps")),
        ({"$match": "?gps"}, on_paths("gps")),
        ({"$match": "[/]gps"}, on_paths("gps")),
        ({"$match": "*/front"}, on_paths("imu/front")),
        ({"$match": "*front*"}, on_paths("imu/front", "camera/front/rgb")),
        ({"$match": "*/imu/*"}, on_paths("imu/front", "imu/rear")),
        ({"$match": "/camera?front?rgb"}, on_paths("camera/front/rgb")),
        ({"$match": "//imu*"}, set()),
    ],
)
def test_topic_names_count_with_and_without_their_leading_slash(
    database: Database, operators: dict[str, Any], expected: set[str]
) -> None:
    assert found(database, topic={"name": operators}) == expected


@pytest.mark.parametrize(
    ("section", "operators", "expected"),
    [
        ("sequence", {"$match": "ive_0"}, starting("drive_")),
        ("sequence", {"$match": "dr%02"}, starting("drive_02", "driveX02")),
        ("sequence", {"$eq": "drive_02"}, starting("drive_02")),
        ("topic", {"$match": "imu"}, on_paths("imu/front", "imu/rear")),
        ("topic", {"$match": "drive_01/imu"}, starting("drive_01/imu")),
        ("topic", {"$match": "%"}, ALL),
        ("topic", {"$eq": "drive_01/gps"}, {"drive_01/gps"}),
        ("topic", {"$eq": "/imu/rear"}, on_paths("imu/rear")),
        ("topic", {"$in": ["/imu/rear", "drive_02/imu/front"]}, on_paths("imu/rear") | {"drive_02/imu/front"}),
        ("topic", {"$neq": "drive_01/gps"}, ALL - {"drive_01/gps"}),
    ],
)
def test_locators_of_older_clients_are_matched_as_substrings(
    database: Database, section: str, operators: dict[str, Any], expected: set[str]
) -> None:
    assert found(database, **{section: {"locator": operators}}) == expected


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"$eq": "GPS"}, on_paths("gps")),
        ({"$eq": "gps"}, set()),
        ({"$neq": "IMU"}, on_paths("gps", "camera/front/rgb")),
        ({"$in": ["GPS", "Image"]}, on_paths("gps", "camera/front/rgb")),
        ({"$match": "I*"}, ALL - on_paths("gps")),
        ({"$match": "?M?"}, on_paths("imu/front", "imu/rear")),
    ],
)
def test_ontology_tags(database: Database, operators: dict[str, Any], expected: set[str]) -> None:
    assert found(database, topic={"ontology_tag": operators}) == expected


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"$eq": "image"}, on_paths("gps", "camera/front/rgb")),
        ({"$neq": "image"}, on_paths("imu/front", "imu/rear")),
        ({"$in": ["ragged", "default"]}, on_paths("imu/front", "imu/rear")),
        ({"$match": "d*"}, on_paths("imu/front", "imu/rear")),
        ({"$ex": None}, ALL),
        ({"$nex": None}, set()),
    ],
)
def test_serialization_formats(database: Database, operators: dict[str, Any], expected: set[str]) -> None:
    assert found(database, topic={"serialization_format": operators}) == expected


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        ({"$eq": 20}, starting("drive_02")),
        ({"$eq": 20.0}, starting("drive_02")),
        ({"$eq": 20.5}, set()),
        ({"$neq": 20}, ALL - starting("drive_02")),
        ({"$neq": 20.5}, ALL),
        ({"$lt": 20}, starting("drive_01")),
        ({"$lt": 20.5}, starting("drive_01", "drive_02")),
        ({"$leq": 20}, starting("drive_01", "drive_02")),
        ({"$leq": 19.5}, starting("drive_01")),
        ({"$gt": 30}, starting("Test")),
        ({"$geq": 29.5}, starting("driveX", "Test")),
        ({"$between": [20, 30]}, starting("drive_02", "driveX")),
        ({"$outside": [20, 30]}, starting("drive_01", "Test")),
        ({"$in": [10, 40.0, 10.5, 2**80]}, starting("drive_01", "Test")),
        ({"$gt": 2**63}, set()),
        ({"$lt": 2**63}, ALL),
        ({"$geq": -(2**80)}, ALL),
        ({"$eq": 2**64 + 20}, set()),
        ({"$outside": [-(2**70), 2**70]}, set()),
        ({"$match": "*"}, set()),
        ({"$ex": None}, ALL),
        ({"$nex": None}, set()),
    ],
)
@pytest.mark.parametrize("section", ["sequence", "topic"])
def test_creation_times(database: Database, section: str, operators: dict[str, Any], expected: set[str]) -> None:
    assert found(database, **{section: {"created_at_ns": operators}}) == expected


def test_conditions_on_sequences_and_topics_have_to_hold_together(database: Database) -> None:
    request: dict[str, Any] = {"sequence": {"name": {"$match": "drive*"}}, "topic": {"ontology_tag": {"$eq": "GPS"}}}
    assert found(database, **request) == {"drive_01/gps"}


def test_the_longest_pattern_is_answered(database: Database) -> None:
    assert found(database, topic={"name": {"$match": "*" + "f?o" * 84 + "*"}}) == set()
