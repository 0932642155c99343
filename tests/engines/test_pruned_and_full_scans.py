"""The gate against wrong bounds, which would lose rows without a word: what conditions find is the same by a full scan
of an engine, by its scan of the files that our bounds leave over, and by pruned and unpruned queries of ours.
"""

import random
from dataclasses import dataclass

import pytest

from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.reading.skip_index import SkipIndex
from tests.catalog.query.odd_rows import make_rows, to_batch
from tests.engines.conftest import READERS
from tests.engines.engines_under_test import Engine
from tests.engines.random_predicates import DIALECTS, Predicate, some_predicates
from tests.engines.recordings import DAY_NS, NOON_NS
from tests.engines.shared_lake import SharedLake, fresh_name

# The catalog has no part in it; so each engine has one place, and DuckDB the one where its many statements are cheap.
ONCE = [("spark", "production"), ("trino", "production"), ("duckdb", "files")]
PLACES = [place for place in READERS if place.values[0] in ONCE]
pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("place", PLACES, indirect=True, scope="session")]

SEQUENCES = 2
FILES = 6
ROWS_PER_FILE = 20
Found = set[tuple[str, int]]


@dataclass(frozen=True)
class Gate:
    """Conditions on the rows of a table, and the rows that our own queries find, by sequence and timestamp.

    Attributes:
        files_excluded: Number of times that our bounds spared a file.
    """

    table: str
    predicates: list[Predicate]
    pruned: list[Found]
    unpruned: list[Found]
    files_excluded: int


@pytest.fixture(scope="session")
def gate(lake: SharedLake) -> Gate:
    generator = random.Random(2026)
    tag, path = fresh_name("Gate"), fresh_name("topic")
    names = [fresh_name("drive") for _ in range(SEQUENCES)]
    files = []
    for name in names:
        of_days = [  # each day has a file of its own
            [
                {**row, "timestamp_ns": NOON_NS + day * DAY_NS + number * 1001}
                for number, row in enumerate(make_rows(generator, ROWS_PER_FILE))
            ]
            for day in range(FILES)
        ]
        lake.write(name, {path: (tag, to_batch([row for rows in of_days for row in rows]))})
        files += of_days
    own = lake.lakehouse
    topics = [own.topics.get(TopicLocator(name, path)) for name in names]
    predicates = some_predicates(generator, files)
    explanation = Explanation()

    def find(is_pruning: bool) -> list[Found]:
        search = ContentSearch(own.database, own.warehouse, SkipIndex(own.table_files), is_pruning=is_pruning)
        return [
            {
                (topic.locator.sequence, time)
                for topic in topics
                for times in search.timestamps(topic, [predicate.condition(tag)], explanation=explanation)
                for time in times.tolist()
            }
            for predicate in predicates
        ]

    pruned = find(True)
    excluded = sum(explanation.files_excluded.values())
    for predicate, found in zip(predicates, pruned, strict=True):
        answer = own.query({"ontology": predicate.ontology(tag)})
        assert {match.name for match in answer} == {sequence for sequence, _ in found}, predicate
    return Gate(str(topics[0].table_identifier), predicates, pruned, find(False), excluded)


def test_conditions_find_the_same_rows_with_and_without_bounds(engine: Engine, gate: Gate) -> None:
    conditions = [predicate.sql(DIALECTS[engine.name]) for predicate in gate.predicates]
    flags = ", ".join(f"coalesce({condition}, false) AS p{number}" for number, condition in enumerate(conditions))
    everything = engine.rows(f"SELECT sequence, timestamp_ns, {flags} FROM {gate.table}")
    assert len(everything) == SEQUENCES * FILES * ROWS_PER_FILE
    by_full_scan: list[Found] = [
        {(sequence, time) for sequence, time, *holds in everything if holds[number]}
        for number in range(len(conditions))
    ]
    by_pruned_scan: list[Found] = [set() for _ in conditions]
    selects = [
        f"SELECT {number} AS number, sequence, timestamp_ns FROM {gate.table} WHERE {condition}"
        for number, condition in enumerate(conditions)
    ]
    # DuckDB chooses files once per table of a statement.
    at_once = 1 if engine.name == "duckdb" else len(selects)
    rows_read = 0
    for start in range(0, len(selects), at_once):
        rows, read = engine.rows_and_reads(" UNION ALL ".join(selects[start : start + at_once]))
        rows_read += read
        for number, sequence, time in rows:
            by_pruned_scan[number].add((sequence, time))
    for number, predicate in enumerate(gate.predicates):
        found = by_full_scan[number]
        assert gate.unpruned[number] == found, predicate
        assert gate.pruned[number] == found, predicate
        assert by_pruned_scan[number] == found, predicate
    # They would prove nothing if they found all or nothing, or if no file were skipped.
    telling = [found for found in by_full_scan if 0 < len(found) < len(everything)]
    assert len(telling) > len(conditions) / 2
    assert gate.files_excluded > 0
    assert rows_read < len(conditions) * len(everything)
