"""Searching by content: what is found equals a look at every row, and what bounds exclude is never opened."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.skip_index import SkipIndex
from lakehouse.catalog.time_window import TimeInterval
from tests.catalog.query.odd_rows import TAG, make_condition, make_rows, row_holds, to_batch

_numbers = itertools.count()


class SearchedLake:
    """A lake with a search that believes bounds and one that does not."""

    def __init__(self, home: Path) -> None:
        self.lakehouse = Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint=""))
        self.pruned, self.unpruned = self.search(), self.search(is_pruning=False)

    def search(self, *, is_pruning: bool = True) -> ContentSearch:
        """A search with nothing cached."""
        lake = self.lakehouse
        index = SkipIndex(lake.table_files)
        return ContentSearch(lake.database, lake.warehouse, index, concurrency=2, is_pruning=is_pruning)

    def store(
        self, batches: dict[str, pa.RecordBatch], *, tag: str = TAG, is_finalized: bool = True
    ) -> dict[str, TopicRecord]:
        """One sequence with a topic per batch."""
        sequence = f"drive-{next(_numbers)}"
        self.lakehouse.sequences.create(sequence)
        session = self.lakehouse.sessions.create(sequence)
        for path, batch in batches.items():
            locator = TopicLocator(sequence, path)
            uuid = self.lakehouse.topics.create(session.uuid, locator, "default", tag)
            with self.lakehouse.topics.begin_upload(locator, uuid, batch.schema) as upload:
                upload.write(batch)
                upload.finish()
        if is_finalized:
            self.lakehouse.sessions.finalize(session.uuid)
        return {path: self.lakehouse.topics.get(TopicLocator(sequence, path)) for path in batches}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchedLake]:
    searched = SearchedLake(tmp_path_factory.mktemp("searched"))
    yield searched
    searched.lakehouse.close()


def expected(rows: list[dict], conditions: list[FieldCondition]) -> list[int]:
    """Timestamps of matching rows, ascending."""
    return sorted(row["timestamp_ns"] for row in rows if all(row_holds(row, each) for each in conditions))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**64))
def test_three_engines_agree(lake: SearchedLake, seed: int) -> None:
    generator = random.Random(seed)
    rows: dict[int, list[dict]] = {}
    topics: list[TopicRecord] = []
    for _ in range(generator.choice([1, 3, 6])):
        parts = {f"part/{number}": make_rows(generator, generator.choice([1, 2, 6])) for number in range(2)}
        batches = {path: to_batch(made) for path, made in parts.items()}
        stored = lake.store(batches, is_finalized=generator.random() < 0.7)
        rows |= {stored[path].id: made for path, made in parts.items()}
        topics += stored.values()
    for _ in range(25):
        conditions = [make_condition(generator) for _ in range(generator.choice([1, 1, 2]))]
        wanted = {topic_id: expected(made, conditions) for topic_id, made in rows.items()}
        matching = {topic_id for topic_id, times in wanted.items() if times}
        ranges = {topic_id: TimeInterval(times[0], times[-1]) for topic_id, times in wanted.items() if times}
        assert lake.unpruned.matching(topics, conditions).keys() == matching, conditions
        assert lake.pruned.matching(topics, conditions).keys() == matching, conditions
        assert lake.pruned.matching(topics, conditions, with_ranges=True) == ranges, conditions
        topic = generator.choice(topics)
        found = [time for times in lake.pruned.timestamps(topic, conditions) for time in times.tolist()]
        assert found == wanted[topic.id], conditions
        assert lake.pruned.audit(topics, conditions, sample=3, seed=seed) == []
