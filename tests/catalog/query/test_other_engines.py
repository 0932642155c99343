"""Content searches over tables that other engines rewrote find the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.errors import ResourceExhaustedError
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.time_window import UNBOUNDED, TimeInterval, TimeWindow
from tests.catalog.test_skip_index import Recordings, delete_rows, open_recordings, rewrite


@pytest.fixture
def recordings(tmp_path: Path) -> Iterator[Recordings]:
    with open_recordings(tmp_path, f"sqlite:///{tmp_path / 'lakehouse.db'}", {"store_endpoint": ""}) as opened:
        yield opened


def found(
    recordings: Recordings, topics: list[TopicRecord], operator: str, time: int
) -> dict[int, TimeInterval | None]:
    path = parse_field_path(f"{topics[0].ontology_tag}.timestamp_ns")
    lake = recordings.lakehouse
    search = ContentSearch(lake.database, lake.warehouse, SkipIndex(lake.table_files))
    conditions = [FieldCondition(path, Condition(Operator(operator), time))]
    ranges = search.matching(topics, conditions, with_ranges=True)
    assert search.matching(topics, conditions).keys() == ranges.keys()
    for topic in topics:
        clusters = list(search.clusterize(topic, conditions, 0))
        assert clusters == ([ranges[topic.id]] if topic.id in ranges else [])
    return ranges


@pytest.mark.parametrize("bounds", [True, False])
def test_a_rewrite_in_another_order(recordings: Recordings, bounds: bool) -> None:
    topic = recordings.record("a", list(range(0, 3000, 3)))
    rewrite(recordings.table(topic), shuffle=True, bounds=bounds, row_group_size=64, write_statistics=bounds)
    assert found(recordings, [topic], "$gt", 2000) == {topic.id: TimeInterval(2001, 2997)}
    assert found(recordings, [topic], "$gt", 2997) == {}


def test_matches_of_a_file_in_another_order_that_do_not_fit_into_memory_are_refused(recordings: Recordings) -> None:
    """They have to be sorted before the first is an answer, so all of them are held: eight bytes each."""
    topic = recordings.record("a", list(range(1000)))
    rewrite(recordings.table(topic), shuffle=True, row_group_size=64)
    lake = recordings.lakehouse
    search = ContentSearch(lake.database, lake.warehouse, SkipIndex(lake.table_files), memory_bytes=4000)
    path = parse_field_path(f"{topic.ontology_tag}.timestamp_ns")

    def clusters(operator: str, time: int, window: TimeWindow = UNBOUNDED) -> list[TimeInterval]:
        conditions = [FieldCondition(path, Condition(Operator(operator), time))]
        return list(search.clusterize(topic, conditions, 1, window))

    with pytest.raises(ResourceExhaustedError, match=r"do not fit into the 4,000 bytes .* narrow it by time"):
        clusters("$geq", 499)
    assert clusters("$geq", 500) == [TimeInterval(500, 999)]
    assert clusters("$geq", 0, TimeWindow(100, 600)) == [TimeInterval(100, 599)]


def test_files_that_hold_several_sequences(recordings: Recordings) -> None:
    topics = [recordings.record(name, list(range(k, 40, 2))) for k, name in enumerate("ab")]
    topics += [recordings.record(name, [100 + k]) for k, name in enumerate("cdefg")]
    table = recordings.table(topics[0])
    with table.update_spec() as update:
        update.remove_field("sequence")
    rewrite(table, None, shuffle=True)
    assert found(recordings, topics[:2], "$geq", 39) == {topics[1].id: TimeInterval(39, 39)}
    assert found(recordings, topics, "$geq", 103).keys() == {topic.id for topic in topics[5:]}


def test_deleted_rows_never_match(recordings: Recordings) -> None:
    topic = recordings.record("a", list(range(100)))
    delete_rows(recordings.table(topic), "a", positions=[99])
    assert found(recordings, [topic], "$geq", 98) == {topic.id: TimeInterval(98, 98)}
    assert found(recordings, [topic], "$eq", 99) == {}
