"""Queries through the catalog: what is combined how, and that short cuts change no answer."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.catalog.errors import BadRequestError, NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.engine import ClusterRequest, MatchingSequence, QueryEngine
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.time_window import TimeInterval

NUMBERS = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("x", pa.float64()),
        pa.field("axes", pa.list_(pa.float64())),
    ]
)
# The same field of another type, in a table of its own.
TEXTS = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("x", pa.string())])
# A column more, in the same table.
MORE = NUMBERS.append(pa.field("y", pa.int32()))


@pytest.fixture
def lake(tmp_path: Path, database_url: str) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path / "lake", db_url=database_url, store_endpoint="")) as opened:
        yield opened


def record(
    lake: Lakehouse,
    sequence: str,
    topics: dict[str, list[dict[str, Any]]],
    *,
    tag: str = "State",
    schema: pa.Schema = NUMBERS,
    finalize: bool = True,
) -> None:
    if sequence not in lake.sequences.names():
        lake.sequences.create(sequence, {"name": sequence})
    session = lake.sessions.create(sequence)
    for path, rows in topics.items():
        locator = TopicLocator(sequence, path)
        uuid = lake.topics.create(session.uuid, locator, "default", tag, {})
        with lake.topics.begin_upload(locator, uuid, schema) as upload:
            if rows:
                upload.write(pa.RecordBatch.from_pylist(rows, schema))
            upload.finish()
    if finalize:
        lake.sessions.finalize(session.uuid)


def at(moment: int, **values: Any) -> dict[str, Any]:
    return {"timestamp_ns": moment, **values}


def locators(found: list[MatchingSequence]) -> list[str]:
    return [str(topic.locator) for sequence in found for topic in sequence.topics]


def engines(lake: Lakehouse) -> dict[str, QueryEngine]:
    """The engine as it is, with every short cut, and without any."""
    skip_index = SkipIndex(lake.table_files)
    unpruned = ContentSearch(lake.database, lake.warehouse, skip_index, is_pruning=False)
    return {
        "as it is": lake.queries,
        "bounds first": QueryEngine(
            lake.database, ContentSearch(lake.database, lake.warehouse, skip_index), few_candidates=-1
        ),
        "full scan": QueryEngine(lake.database, unpruned, few_candidates=-1),
    }


def answers(lake: Lakehouse, **request: Any) -> list[str]:
    """The one answer of all engines."""
    found = {name: locators(engine.query(request)) for name, engine in engines(lake).items()}
    assert len({tuple(each) for each in found.values()}) == 1, found
    return found["as it is"]


def test_sequences_and_topics_are_sorted_by_code_point(lake: Lakehouse) -> None:
    for name in ("b", "B", "a-1", "a_1", "a1"):
        record(lake, name, {"z": [at(1)], "Z": [at(1)], "a/b": [at(1)], "a-b": [at(1)]})
    found = lake.query({"sequence": {"name": {"$match": "*"}}})
    assert [each.name for each in found] == ["B", "a-1", "a1", "a_1", "b"]
    assert [topic.locator.path for topic in found[0].topics] == ["Z", "a-b", "a/b", "z"]
    assert {topic.ontology_tag for topic in found[0].topics} == {"State"}


def test_open_deleted_and_empty_topics(lake: Lakehouse) -> None:
    record(lake, "closed", {"a": [at(1, x=5.0)], "low": [at(1, x=1.0)], "none": []})
    record(lake, "open", {"a": [at(1, x=5.0)], "low": [at(1, x=1.0)], "none": []}, finalize=False)
    record(lake, "gone", {"a": [at(1, x=5.0)]})
    asked = {"State.x": {"$gt": 4}}
    assert answers(lake, ontology=asked) == ["closed/a", "gone/a", "open/a"]
    lake.sequences.delete("gone")
    assert answers(lake, ontology=asked) == ["closed/a", "open/a"]
    assert answers(lake, ontology=asked, sequence={"name": {"$match": "o*"}}) == ["open/a"]
    record(lake, "gone", {"b": [at(1, x=7.0)]})
    assert answers(lake, ontology=asked) == ["closed/a", "gone/b", "open/a"]


def test_topics_of_one_tag_with_several_schemas_and_tables(lake: Lakehouse) -> None:
    record(lake, "s1", {"a": [at(1, x=5.0)], "b": [at(1, x=0.0)]})
    record(lake, "s2", {"a": [at(1, x="text")]}, schema=TEXTS)
    record(lake, "s3", {"a": [at(1, x=9.0, y=7)]}, schema=MORE)
    record(lake, "s4", {"c": [at(1, x=6.0)]}, tag="Other")
    assert answers(lake, ontology={"State.x": {"$gt": 4}}) == ["s1/a", "s3/a"]
    assert answers(lake, ontology={"State.x": {"$match": "te*"}}) == ["s2/a"]
    assert answers(lake, ontology={"State.y": {"$eq": 7}}) == ["s3/a"]
    assert answers(lake, ontology={"State.y": {"$eq": 8}}) == []
    assert answers(lake, ontology={"State.axes[?]": {"$gt": 1}}) == []
    assert answers(lake, ontology={"State.z": {"$eq": 1}}) == []
    assert answers(lake, ontology={"None.x": {"$eq": 1}}) == []


def test_a_condition_that_does_not_fit_only_counts_where_topics_are_asked(lake: Lakehouse) -> None:
    record(lake, "s1", {"a": [at(1, x=5.0, axes=[1.0])]})
    for engine in engines(lake).values():
        with pytest.raises(BadRequestError, match="list"):
            engine.query({"ontology": {"State.axes": {"$gt": 0}}})
        assert engine.query({"ontology": {"State.axes": {"$gt": 0}}, "sequence": {"name": {"$eq": "s2"}}}) == []


def test_several_tags_narrow_each_other_down(lake: Lakehouse) -> None:
    for number in range(6):
        record(lake, f"s{number}", {"a": [at(1, x=float(number))]})
        record(lake, f"s{number}", {"b": [at(1, x=float(number % 3))]}, tag="Other", finalize=number < 5)
    asked = {"State.x": {"$geq": 2}, "Other.x": {"$eq": 2}}
    assert answers(lake, ontology=asked) == ["s2/a", "s2/b", "s5/a", "s5/b"]
    assert answers(lake, ontology=asked, topic={"name": {"$eq": "/a"}}) == []
    assert answers(lake, ontology=asked, sequence={"user_metadata": {"name": {"$match": "?5"}}}) == ["s5/a", "s5/b"]
    assert answers(lake, ontology={**asked, "Other.timestamp_ns": {"$gt": 1}}) == []


def test_random_queries_get_one_answer_from_every_engine(lake: Lakehouse) -> None:
    generator = random.Random(7)
    for number in range(12):
        topics = {
            f"t{each}": [at(moment, x=generator.choice([None, float(generator.randrange(50))])) for moment in range(3)]
            for each in range(3)
        }
        record(lake, f"s{number}", topics, tag=generator.choice(["State", "Other"]), finalize=generator.random() < 0.8)
    for _ in range(25):
        low = generator.randrange(50)
        condition = generator.choice([{"$gt": low}, {"$between": [low, low + 3]}, {"$eq": low}, {"$neq": low}])
        fields = {"State.x": condition} if generator.random() < 0.7 else {"State.x": condition, "Other.x": {"$gt": 40}}
        topic = generator.choice([{}, {"name": {"$match": "t[01]"}}])
        answers(lake, ontology=fields, topic=topic)


def test_intervals_of_matching_rows_are_told_when_asked(lake: Lakehouse) -> None:
    record(lake, "s", {"a": [at(10, x=1.0), at(30, x=5.0), at(20, x=5.0), at(40, x=1.0)]})
    for engine in engines(lake).values():
        (found,) = engine.query({"ontology": {"State.x": {"$gt": 4}, "include_timestamp_range": True}})
        assert found.topics[0].interval == TimeInterval(20, 30)
        (found,) = engine.query({"ontology": {"State.x": {"$gt": 4}}})
        assert found.topics[0].interval is None


def test_an_explanation_accounts_for_every_file(lake: Lakehouse) -> None:
    for number in range(5):
        record(lake, f"s{number}", {"a": [at(1, x=float(number))]}, finalize=number > 0)
    request = {"ontology": {"State.x": {"$gt": 3}}}
    explained: dict[str, dict[str, Any]] = {}
    for name, engine in engines(lake).items():
        explanation = Explanation()
        assert locators(engine.query(request, explanation)) == ["s4/a"]
        explained[name] = dict(explanation.to_json())
    by_condition = {"State.x $gt 3": 4}
    one_opened = {"topics_matched": 1, "files_considered": 5, "files_excluded": by_condition, "files_opened": 1}
    assert one_opened.items() <= explained["as it is"].items()
    assert "files_compared_first" not in explained["as it is"]
    assert explained["full scan"]["files_opened"] == 5


def test_an_explanation_tells_what_spared_even_the_look_at_topics(lake: Lakehouse) -> None:
    for number in range(5):
        record(lake, f"s{number}", {"a": [at(1, x=float(number))]}, finalize=number > 0)
    explanation = Explanation()
    engine = engines(lake)["bounds first"]
    assert locators(engine.query({"ontology": {"State.x": {"$gt": 3}}}, explanation)) == ["s4/a"]
    told = explanation.to_json()
    # The open session's file is in no manifest yet, its topic has to be looked at.
    first = {"files_compared_first": 4, "files_excluded_first": {"State.x $gt 3": 3}, "sequences_left_over": 2}
    assert first.items() <= told.items()
    assert (told["topics_considered"], told["files_considered"], told["files_opened"]) == (2, 2, 1)
    nothing = Explanation()
    assert engine.query({"ontology": {"State.x": {"$gt": 9}}, "sequence": {"name": {"$neq": "s0"}}}, nothing) == []
    assert (nothing.sequences_left_over, nothing.topics_considered, nothing.files_opened) == (1, 0, 0)


def test_clusters_and_intersections_of_topics(lake: Lakehouse) -> None:
    record(lake, "s", {"a": [at(moment, x=1.0) for moment in (0, 10, 20, 50)]})
    record(lake, "t", {"b": [at(moment, x=1.0) for moment in (15, 55)]}, finalize=False)
    first = ClusterRequest.parse(TopicLocator("s", "a"), {"State.x": {"$eq": 1}}, 10)
    second = ClusterRequest.parse(TopicLocator("t", "b"), {"State.x": {"$eq": 1}}, 10)
    assert list(lake.queries.clusterize(first)) == [TimeInterval(0, 20), TimeInterval(50, 50)]
    assert list(lake.queries.intersect([first, second], 5)) == [TimeInterval(15, 15), TimeInterval(53, 53)]
    assert list(lake.queries.intersect([second, first, second], 5)) == [TimeInterval(15, 15), TimeInterval(53, 53)]
    with pytest.raises(NotFoundError):
        lake.queries.clusterize(ClusterRequest.parse(TopicLocator("s", "c"), {"State.x": {"$eq": 1}}))
    with pytest.raises(BadRequestError, match="no condition"):
        ClusterRequest.parse(TopicLocator("s", "a"), {})
