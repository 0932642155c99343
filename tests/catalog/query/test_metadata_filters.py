"""Conditions on user metadata: one table of cases and random ones, on both databases, against a plain evaluation."""

import json
import random
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, insert, select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.metadata_index import (
    KEY_LENGTH,
    MAX_NODES,
    index_sequence_metadata,
    index_topic_metadata,
    nodes,
    parse_path,
    path_text,
)
from lakehouse.catalog.control_plane.migrate import migrate
from lakehouse.catalog.control_plane.rows import to_json
from lakehouse.catalog.control_plane.schema import sequence_metadata, sequences, sessions, topic_metadata, topics
from lakehouse.catalog.control_plane.value_keys import text_of, value_key
from lakehouse.catalog.locators import new_ulid
from lakehouse.catalog.query.candidates import find_candidates
from lakehouse.catalog.query.grammar import parse_query
from tests.catalog.query.metadata_reference import satisfies
from tests.postgres_server import fresh_database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        yield from opened(f"sqlite:///{tmp_path_factory.mktemp('metadata') / 'lakehouse.db'}")
    else:
        with fresh_database(request.getfixturevalue("postgres_host"), "metadata_filters") as url:
            yield from opened(url)


def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    migrate(database)
    yield database
    database.close()


@contextmanager
def rolled_back(database: Database) -> Iterator[Connection]:
    """A transaction that leaves nothing behind."""
    with database.engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


def matching(database: Database, documents: list[dict[str, Any]], path: str, operators: Any) -> list[bool]:
    """Which documents the condition finds, once as metadata of sequences and once of topics."""
    return matching_all(database, documents, [(path, operators)])[0]


def matching_all(
    database: Database, documents: list[dict[str, Any]], conditions: list[tuple[str, Any]]
) -> list[list[bool]]:
    found = []
    with rolled_back(database) as connection:
        for document in documents:
            add(connection, document)
        for path, operators in conditions:
            outcomes = [
                {
                    int(candidate.sequence)
                    for candidate in find_candidates(connection, parse_query({s: {"user_metadata": {path: operators}}}))
                }
                for s in ("sequence", "topic")
            ]
            assert outcomes[0] == outcomes[1]
            found.append([number in outcomes[0] for number in range(len(documents))])
    return found


def add(connection: Connection, document: dict[str, Any]) -> None:
    """A sequence with one topic, both with this metadata; sequences are numbered."""
    number = connection.scalar(select(func.count()).select_from(sequences))
    encoded = to_json(document)
    sequence = connection.execute(
        insert(sequences).values(name=str(number), user_metadata=encoded, created_at_ns=0).returning(sequences.c.id)
    ).scalar_one()
    index_sequence_metadata(connection, sequence, document)
    names = {"uuid": str(uuid.uuid4()), "public_uuid": str(uuid.uuid4()), "ulid": new_ulid(time.time_ns())}
    session = connection.execute(
        insert(sessions).values(sequence_id=sequence, state="open", created_at_ns=0, **names).returning(sessions.c.id)
    ).scalar_one()
    topic = connection.execute(
        insert(topics)
        .values(
            sequence_id=sequence,
            session_id=session,
            uuid=str(uuid.uuid4()),
            path="a",
            ontology_tag="A",
            serialization_format="default",
            user_metadata=encoded,
            state="empty",
            created_at_ns=0,
        )
        .returning(topics.c.id)
    ).scalar_one()
    index_topic_metadata(connection, topic, document)


LONG = "x" * (KEY_LENGTH + 40)
BIG = 2**53
# Metadata, path, operators, whether it matches.
CASES: list[tuple[dict[str, Any], str, Any, bool]] = [
    # Types are never mixed.
    ({"a": 1}, "a", {"$eq": 1}, True),
    ({"a": 1}, "a", {"$eq": 1.0}, True),
    ({"a": 1.0}, "a", {"$eq": 1}, True),
    ({"a": 0.0}, "a", {"$eq": -0.0}, True),
    ({"a": "1"}, "a", {"$eq": 1}, False),
    ({"a": 1}, "a", {"$eq": "1"}, False),
    ({"a": True}, "a", {"$eq": 1}, False),
    ({"a": True}, "a", {"$eq": True}, True),
    ({"a": 1}, "a", {"$eq": True}, False),
    ({"a": False}, "a", {"$eq": True}, False),
    ({"a": False}, "a", {"$neq": True}, True),
    ({"a": 5}, "a", {"$neq": "x"}, False),
    ({"a": True}, "a", {"$gt": 0}, False),
    ({"a": "5"}, "a", {"$geq": 1}, False),
    ({"a": True}, "a", {"$in": [True]}, True),
    ({"a": True}, "a", {"$in": [1, 0]}, False),
    # Numbers are exact.
    ({"a": BIG + 1}, "a", {"$eq": BIG + 1}, True),
    ({"a": BIG + 1}, "a", {"$eq": BIG}, False),
    ({"a": BIG + 1}, "a", {"$eq": float(BIG)}, False),
    ({"a": BIG + 1}, "a", {"$gt": float(BIG)}, True),
    ({"a": float(BIG)}, "a", {"$lt": BIG + 1}, True),
    ({"a": -BIG - 1}, "a", {"$lt": -BIG}, True),
    ({"a": 2**64 + 1}, "a", {"$eq": 2**64}, False),
    ({"a": 2**64 + 1}, "a", {"$gt": 2**64}, True),
    ({"a": 10**400}, "a", {"$gt": 1.5e308}, True),
    ({"a": 10**3000}, "a", {"$eq": 10**3000}, True),
    ({"a": 10**3000 + 1}, "a", {"$eq": 10**3000}, False),
    ({"a": -(3**1800)}, "a", {"$lt": -(3**1800) + 1}, True),
    ({"a": -(3**1800)}, "a", {"$geq": -(3**1800) + 1}, False),
    ({"a": 1761000000000000001}, "a", {"$between": [1761000000000000001, 1761000000000000002]}, True),
    ({"a": 1761000000000000001}, "a", {"$between": [1761000000000000002, 1761000000000000003]}, False),
    ({"a": 0.1}, "a", {"$eq": 0.1}, True),
    ({"a": 5e-324}, "a", {"$gt": 0}, True),
    ({"a": -0.5}, "a", {"$between": [-1, 0]}, True),
    ({"a": -1.5}, "a", {"$lt": -1}, True),
    ({"a": -3}, "a", {"$gt": -4.5}, True),
    # Ordering, ranges, alternatives.
    ({"a": 2}, "a", {"$lt": 2}, False),
    ({"a": 2}, "a", {"$leq": 2}, True),
    ({"a": 2}, "a", {"$gt": 2}, False),
    ({"a": 2}, "a", {"$geq": 2}, True),
    ({"a": 2}, "a", {"$gt": 1, "$lt": 3}, True),
    ({"a": 3}, "a", {"$gt": 1, "$lt": 3}, False),
    ({"a": 1}, "a", {"$between": [1, 3]}, True),
    ({"a": 3}, "a", {"$between": [1, 3]}, True),
    ({"a": 4}, "a", {"$between": [1, 3]}, False),
    ({"a": 1}, "a", {"$outside": [1, 3]}, False),
    ({"a": 0.5}, "a", {"$outside": [1, 3]}, True),
    ({"a": "b"}, "a", {"$outside": [1, 3]}, False),
    ({"a": 3}, "a", {"$in": [1, 3.0]}, True),
    ({"a": 2}, "a", {"$in": [1, 3]}, False),
    ({"a": 200}, "a", {"$in": list(range(0, 1000, 2))}, True),
    ({"a": 201}, "a", {"$in": list(range(0, 1000, 2))}, False),
    # Texts are ordered by code point.
    ({"a": "B"}, "a", {"$lt": "a"}, True),
    ({"a": "a"}, "a", {"$lt": "B"}, False),
    ({"a": "é"}, "a", {"$gt": "z"}, True),
    ({"a": "\ufffd"}, "a", {"$lt": "\U0001f697"}, True),
    ({"a": "a"}, "a", {"$lt": "a\x00"}, True),
    ({"a": ""}, "a", {"$lt": "a"}, True),
    ({"a": ""}, "a", {"$eq": ""}, True),
    ({"a": "10"}, "a", {"$lt": "9"}, True),
    ({"a": "m"}, "a", {"$between": ["a", "z"]}, True),
    ({"a": "m"}, "a", {"$outside": ["n", "z"]}, True),
    ({"a": "x\x00y"}, "a", {"$eq": "x\x00y"}, True),
    ({"a": "x\x00y"}, "a", {"$eq": "x"}, False),
    ({"a": "\ud800"}, "a", {"$eq": "\ud800"}, True),
    ({"a": "\ud800"}, "a", {"$lt": "\ue000"}, True),
    ({"a": "x"}, "a", {"$in": ["\ud800", "x"]}, True),
    # Texts longer than an entry of the index.
    ({"a": LONG}, "a", {"$eq": LONG}, True),
    ({"a": LONG + "a"}, "a", {"$eq": LONG + "b"}, False),
    ({"a": LONG + "a"}, "a", {"$neq": LONG + "b"}, True),
    ({"a": LONG}, "a", {"$neq": LONG}, False),
    ({"a": LONG + "a"}, "a", {"$lt": LONG + "b"}, True),
    ({"a": LONG + "b"}, "a", {"$lt": LONG + "a"}, False),
    ({"a": LONG + "b"}, "a", {"$between": [LONG + "a", LONG + "c"]}, True),
    ({"a": LONG + "d"}, "a", {"$outside": [LONG + "a", LONG + "c"]}, True),
    ({"a": LONG}, "a", {"$in": ["x", LONG]}, True),
    ({"a": LONG}, "a", {"$gt": "x" * (KEY_LENGTH - 1)}, True),
    ({"a": LONG}, "a", {"$leq": "x" * (KEY_LENGTH - 1)}, False),
    ({"a": "x" * (KEY_LENGTH - 1)}, "a", {"$lt": LONG}, True),
    ({"a": LONG}, "a", {"$lt": "x" * 300 + "y"}, True),
    ({"a": LONG + "needle"}, "a", {"$match": "*needle"}, True),
    ({"a": LONG + "needle."}, "a", {"$match": "*needle"}, False),
    ({"a": LONG}, "a", {"$match": "xxx*"}, True),
    # Globs.
    ({"a": "some rain\ntoday"}, "a", {"$match": "*rain*"}, True),
    ({"a": "train"}, "a", {"$match": "rain"}, False),
    ({"a": "rain"}, "a", {"$match": "rain"}, True),
    ({"a": "v7"}, "a", {"$match": "[uv]#"}, True),
    ({"a": "v77"}, "a", {"$match": "[uv]#"}, False),
    ({"a": "100%"}, "a", {"$match": "100%"}, True),
    ({"a": "1000"}, "a", {"$match": "100%"}, False),
    ({"a": "a_b"}, "a", {"$match": "a_*"}, True),
    ({"a": "axb"}, "a", {"$match": "a_*"}, False),
    ({"a": "x\x00é\ud800"}, "a", {"$match": "x\x00?\ud800"}, True),
    ({"a": "éa"}, "a", {"$match": "??"}, True),
    ({"a": "A"}, "a", {"$match": "a"}, False),
    ({"a": 5}, "a", {"$match": "*"}, False),
    ({"a": ""}, "a", {"$match": "*"}, True),
    # Null, arrays and objects exist, but compare with nothing.
    ({"a": None}, "a", {"$ex": None}, True),
    ({"a": None}, "a", {"$nex": None}, False),
    ({"a": None}, "a", {"$neq": 1}, False),
    ({"a": {}}, "a", {"$ex": None}, True),
    ({"a": []}, "a", {"$ex": None}, True),
    ({"a": {"b": 1}}, "a", {"$ex": None}, True),
    ({"a": {"b": 1}}, "a", {"$eq": 1}, False),
    ({"a": {"b": 1}}, "a", {"$neq": 2}, False),
    # Missing paths.
    ({}, "a", {"$nex": None}, True),
    ({}, "a", {"$ex": None}, False),
    ({}, "a", {"$neq": 1}, False),
    ({"a": 1}, "a.b", {"$nex": None}, True),
    ({"b": 1}, "a", {"$neq": 1}, False),
    ({"a": {"b": 1}}, "b", {"$ex": None}, False),
    ({"a": 1}, "A", {"$ex": None}, False),
    ({"a": 1}, "a\x00", {"$nex": None}, True),
    ({"a": 1}, "é", {"$nex": None}, True),
    # Nesting, keys with spaces and dashes.
    ({"vehicle": {"id": "v7"}}, "vehicle.id", {"$eq": "v7"}, True),
    ({"vehicle": {"the id-1": {"x": 1}}}, "vehicle.the id-1.x", {"$eq": 1}, True),
    # Arrays are transparent.
    ({"tags": ["rain", "night"]}, "tags", {"$eq": "night"}, True),
    ({"tags": ["rain", "night"]}, "tags", {"$neq": "night"}, True),
    ({"tags": ["night"]}, "tags", {"$neq": "night"}, False),
    ({"tags": ["rain", "night"]}, "tags[*]", {"$eq": "night"}, True),
    ({"tags": "night"}, "tags[*]", {"$eq": "night"}, False),
    ({"tags": []}, "tags[*]", {"$ex": None}, False),
    ({"tags": [None]}, "tags[*]", {"$ex": None}, True),
    ({"tags": ["rain", "night"]}, "tags[0]", {"$eq": "rain"}, True),
    ({"tags": ["rain", "night"]}, "tags[1]", {"$eq": "rain"}, False),
    ({"tags": ["rain", "night"]}, "tags[2]", {"$ex": None}, False),
    ({"tags": ["rain", "night"]}, "tags[2]", {"$nex": None}, True),
    ({"logs": [{"id": 1}, {"id": 2}]}, "logs.id", {"$eq": 2}, True),
    ({"logs": [{"id": 1}, {"id": 2}]}, "logs[*].id", {"$eq": 2}, True),
    ({"logs": [{"id": 1}, {"id": 2}]}, "logs[0].id", {"$eq": 2}, False),
    ({"logs": [{"id": [5, 6]}]}, "logs[0].id[1]", {"$eq": 6}, True),
    ({"a": [[1, 2], [3]]}, "a", {"$eq": 3}, True),
    ({"a": [[1, 2], [3]]}, "a[0]", {"$eq": 3}, False),
    ({"a": [[1, 2], [3]]}, "a[0][1]", {"$eq": 2}, True),
    ({"a": [[1, 2], [3]]}, "a[*][0]", {"$eq": 3}, True),
    ({"a": [[{"b": 1}]]}, "a.b", {"$eq": 1}, True),
    ({"a": [1, "x", None, True]}, "a", {"$gt": 0}, True),
    ({"a": list(range(20))}, "a[11]", {"$eq": 11}, True),
    ({"a": list(range(20))}, "a[1]", {"$eq": 11}, False),
    # Wildcards.
    ({"a": {"x": 1}, "b": {"x": 2}}, "*.x", {"$eq": 2}, True),
    ({"x": 2}, "*.x", {"$eq": 2}, False),
    ({"a": {"b": {"x": 2}}}, "*.x", {"$eq": 2}, False),
    ({"a": {"b": {"x": 2}}}, "*.*.x", {"$eq": 2}, True),
    ({"a": {"b": {"x": 2}}}, "**.x", {"$eq": 2}, True),
    ({"x": 2}, "**.x", {"$eq": 2}, True),
    ({"interface": {"baudrate": 9}}, "interface.**.baudrate", {"$eq": 9}, True),
    ({"interface": {"a": {"b": {"baudrate": 9}}}}, "interface.**.baudrate", {"$eq": 9}, True),
    ({"interfaces": {"baudrate": 9}}, "interface.**.baudrate", {"$eq": 9}, False),
    ({"interface": [{"baudrate": 9}]}, "interface.*", {"$eq": 9}, True),
    ({"a": {"b": "x", "c": 7}}, "a.*", {"$gt": 5}, True),
    ({"a": {"b": 1}}, "a.**", {"$eq": 1}, True),
    ({"a": 1}, "a.**", {"$eq": 1}, True),
    ({"a": {"b": [{"c": 1}]}}, "**.b[*].c", {"$eq": 1}, True),
    ({"a": {"b": [{"c": 1}]}}, "**[0].c", {"$eq": 1}, True),
    ({"a": {"b": [{"c": 1}]}}, "*[0].c", {"$eq": 1}, False),
    ({"a": [{"c": 1}]}, "*[0].c", {"$eq": 1}, True),
    ({"a": {"b": 1}}, "**.**.b", {"$ex": None}, True),
    ({"a": {"b": 1}}, "a.*.c", {"$nex": None}, True),
    ({"ab": {"c": 1}}, "a.**", {"$ex": None}, False),
]


@pytest.mark.parametrize(("document", "path", "operators", "expected"), CASES)
def test_a_condition_means_the_same_on_every_database(
    database: Database, document: dict[str, Any], path: str, operators: Any, expected: bool
) -> None:
    assert matching(database, [{"other": 1}, document], path, operators)[1] is expected
    assert satisfies(document, path, operators) is expected


keys = st.sampled_from("abc")
numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(BIG - 2, BIG + 2),
    st.sampled_from([-BIG - 1, 2**63 - 1, 2**63, 2**64 + 1, 10**300, 10**700, 10**700 + 1]),
    st.sampled_from([0.0, -0.0, 0.5, -1.5, 1.0, float(BIG), 1e300, -1e300, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
texts = st.one_of(
    st.text("ab\x00\x7f\ud800\ue000é\U0001f697", max_size=4),
    st.sampled_from([LONG, LONG + "a", LONG + "b", LONG[:KEY_LENGTH], LONG[: KEY_LENGTH - 1], "1", "true"]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
documents = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(keys, values, max_size=3)),
        max_leaves=8,
    ),
    max_size=3,
)
positions = st.sampled_from(["", "", "", "[*]", "[0]", "[1]", "[0][0]"])
components = st.builds(str.__add__, st.sampled_from(["a", "b", "c", "a", "*", "**"]), positions)
paths = st.lists(components, min_size=1, max_size=4).map(".".join)


def ranges(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(values, values).map(sorted)  # type: ignore[type-var]


def operators_on(values: st.SearchStrategy[Any]) -> list[st.SearchStrategy[dict[str, Any]]]:
    return (
        [st.fixed_dictionaries({operator: values}) for operator in ("$eq", "$neq", "$lt", "$leq", "$gt", "$geq")]
        + [st.fixed_dictionaries({operator: ranges(values)}) for operator in ("$between", "$outside")]
        + [st.fixed_dictionaries({"$in": st.lists(values, min_size=1, max_size=80)})]
    )


conditions = st.one_of(
    *operators_on(numbers),
    *operators_on(texts),
    st.fixed_dictionaries({"$eq": st.booleans()}),
    st.fixed_dictionaries({"$match": st.text("ab*?#x\x00é\ud800", min_size=1, max_size=5)}),
    st.just({"$ex": None}),
    st.just({"$nex": None}),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(documents, min_size=1, max_size=5), st.lists(st.tuples(paths, conditions), min_size=1, max_size=8))
def test_random_conditions_equal_a_plain_evaluation(
    database: Database, found_in: list[dict[str, Any]], asked: list[tuple[str, Any]]
) -> None:
    expected = [[satisfies(document, path, operators) for document in found_in] for path, operators in asked]
    assert matching_all(database, found_in, asked) == expected


def test_metadata_too_large_for_the_index_is_found_all_the_same(database: Database) -> None:
    deep: Any = {"b": "rain"}
    for _ in range(600):
        deep = {"key": deep}
    large = {"a": [{"b": number} for number in range(MAX_NODES)], "c": "rain"}
    small: dict[str, Any] = {"a": [{"b": 5}], "c": "sun"}
    found_in = [large, small, {"d": deep}, {}]
    asked: list[tuple[str, Any]] = [
        ("a.b", {"$eq": MAX_NODES - 1}),
        ("a.b", {"$eq": 5}),
        ("a[7].b", {"$eq": 7}),
        ("c", {"$match": "r*n"}),
        ("c", {"$nex": None}),
        ("c", {"$ex": None}),
        ("c", {"$neq": "sun"}),
        ("**.b", {"$eq": "rain"}),
    ]
    expected = [[satisfies(document, path, operators) for document in found_in] for path, operators in asked]
    assert matching_all(database, found_in, asked) == expected


def test_several_conditions_have_to_hold_together(database: Database) -> None:
    with rolled_back(database) as connection:
        for document in ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}):
            add(connection, document)
        asked = {"sequence": {"user_metadata": {"a": {"$eq": 1}}}, "topic": {"user_metadata": {"b": {"$match": "?"}}}}
        assert {each.sequence for each in find_candidates(connection, parse_query(asked))} == {"0", "1"}
        asked["topic"]["user_metadata"]["b"] = {"$eq": "y"}
        assert [each.sequence for each in find_candidates(connection, parse_query(asked))] == ["1"]


def test_as_many_conditions_as_allowed_are_answered(database: Database) -> None:
    wanted = {f"k{number}": {"$match": f"*{number}?"} for number in range(128)}
    asked = {
        "sequence": {"user_metadata": wanted},
        "topic": {"user_metadata": {key: {"$in": ["x", "y"] * 32} for key in wanted}},
    }
    with database.snapshot() as connection:
        assert find_candidates(connection, parse_query(asked)) == []


def test_the_index_vanishes_with_its_owner(database: Database) -> None:
    with rolled_back(database) as connection:
        add(connection, {"a": [1, 2], "b": {"c": None}})
        for values in (sequence_metadata, topic_metadata):
            assert connection.scalar(select(func.count()).select_from(values)) == 5
        connection.execute(sequences.delete())
        for values in (sequence_metadata, topic_metadata):
            assert connection.scalar(select(func.count()).select_from(values)) == 0


@given(st.lists(numbers, min_size=2, max_size=2))
def test_keys_of_numbers_sort_like_the_numbers(pair: list[Any]) -> None:
    left, right = pair
    left_key, right_key = value_key(left), value_key(right)
    assert left_key is not None
    assert right_key is not None
    assert (left_key < right_key, left_key == right_key) == (left < right, left == right)


@given(texts, texts)
def test_keys_of_texts_sort_by_code_point_and_can_be_read_back(left: str, right: str) -> None:
    left_key, right_key = value_key(left), value_key(right)
    assert left_key is not None
    assert right_key is not None
    assert (left_key < right_key, left_key == right_key) == (left < right, left == right)
    assert text_of(left_key) == left


@given(documents)
def test_paths_can_be_read_back(document: dict[str, Any]) -> None:
    for steps, _ in nodes(document):
        assert parse_path(path_text(steps)) == steps


def test_writers_of_the_same_new_paths_do_not_wait_for_each_other_crosswise(database: Database) -> None:
    def write(number: int) -> None:
        generator = random.Random(number)
        for _ in range(6):
            keys = [f"shared {key}" for key in range(12)]
            generator.shuffle(keys)
            with database.transaction() as connection:
                document = {key: {"x": [number, "text"]} for key in keys[:8]}
                values = {"name": str(uuid.uuid4()), "user_metadata": to_json(document), "created_at_ns": 0}
                owner = connection.execute(insert(sequences).values(values).returning(sequences.c.id)).scalar_one()
                index_sequence_metadata(connection, owner, document)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with database.transaction() as connection:
        stored = connection.execute(
            select(sequences.c.id, sequences.c.user_metadata, func.count(sequence_metadata.c.path_id))
            .join_from(sequences, sequence_metadata)
            .group_by(sequences.c.id, sequences.c.user_metadata)
        ).all()
        connection.execute(sequences.delete())
    assert len(stored) == 36
    assert all(count == len(list(nodes(json.loads(text)))) for _, text, count in stored)
