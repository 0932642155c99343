"""Searching by content: what is found equals what DuckDB finds, and what bounds exclude is never opened."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lakehouse.catalog.errors import NotFoundError, StateError, StorageError
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.query.file_index import FileIndex
from lakehouse.catalog.query.leaf_bounds import LeafBounds
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.time_window import TimeInterval, TimeWindow
from tests.catalog.hand_written_topics import HandWrittenLake, rows_at
from tests.catalog.query.odd_rows import TAG, make_condition, make_rows, to_batch
from tests.catalog.query.rows_in_duckdb import RowsInDuckDB
from tests.warehouses import BOTH, store_settings

WAREHOUSES = BOTH
_numbers = itertools.count()


class SearchedLake:
    """A lake with a search that believes bounds and one that does not."""

    def __init__(self, home: Path, store: dict[str, str]) -> None:
        self.lakehouse = Lakehouse.open(Settings.load(home=home, db_url="", **store))
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

    def rearrange(self, topics: list[TopicRecord], generator: random.Random) -> list[TopicRecord]:
        """Merge manifests, and delete a sequence from them; the topics that are left."""
        tables = {topic.table_identifier for topic in topics if topic.table_identifier is not None}
        deleted = generator.choice(topics).locator.sequence
        steps = [
            lambda: self.lakehouse.maintenance.run(sorted(tables)),
            lambda: self.lakehouse.sequences.delete(deleted),
        ]
        generator.shuffle(steps)
        for step in steps:
            step()
        return [topic for topic in topics if topic.locator.sequence != deleted]


@pytest.fixture(scope="module")
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warehouse_kind: str
) -> Iterator[SearchedLake]:
    searched = SearchedLake(tmp_path_factory.mktemp("searched"), store_settings(request, warehouse_kind))
    yield searched
    searched.lakehouse.close()


@pytest.mark.slow
def test_three_engines_agree(lake: SearchedLake) -> None:
    # Over S3 fewer: what differs there is how bytes arrive.
    # A smaller seed is no simpler example: nothing is shrunk.
    examples = 12 if lake.lakehouse.warehouse.is_local else 6

    @settings(deadline=None, max_examples=examples, phases=[Phase.reuse, Phase.generate])
    @given(seed=st.integers(0, 2**64))
    def agree(seed: int) -> None:
        check_that_three_engines_agree(lake, seed)

    agree()


def check_that_three_engines_agree(lake: SearchedLake, seed: int) -> None:
    generator = random.Random(seed)
    rows: dict[int, list[dict]] = {}
    topics: list[TopicRecord] = []
    is_local = lake.lakehouse.warehouse.is_local
    for _ in range(generator.choice([1, 3, 6] if is_local else [1])):
        parts = {f"part/{number}": make_rows(generator, generator.choice([1, 2, 6])) for number in range(2)}
        batches = {path: to_batch(made) for path, made in parts.items()}
        stored = lake.store(batches, is_finalized=generator.random() < 0.7)
        rows |= {stored[path].id: made for path, made in parts.items()}
        topics += stored.values()
    if generator.random() < 0.5:
        topics = lake.rearrange(topics, generator)
        rows = {topic.id: rows[topic.id] for topic in topics}
    in_duckdb = RowsInDuckDB(rows)
    # Conditions on elements have to prune right at first sight, not after footers were seen.
    lake.pruned = lake.search()
    for _ in range(25 if is_local else 5):
        conditions = [make_condition(generator) for _ in range(generator.choice([1, 1, 2]))]
        wanted = in_duckdb.timestamps(conditions)
        ranges = {topic_id: TimeInterval(times[0], times[-1]) for topic_id, times in wanted.items()}
        assert lake.unpruned.matching(topics, conditions).keys() == wanted.keys(), conditions
        assert lake.pruned.matching(topics, conditions).keys() == wanted.keys(), conditions
        assert lake.pruned.matching(topics, conditions, with_ranges=True) == ranges, conditions
        if not topics:
            continue
        topic = generator.choice(topics)
        found = [time for times in lake.pruned.timestamps(topic, conditions) for time in times.tolist()]
        assert found == wanted.get(topic.id, []), conditions
        assert lake.pruned.audit(topics, conditions, sample=3, seed=seed) == []


READINGS = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("state", pa.struct([("x", pa.float64())])),
        pa.field("ranges", pa.list_(pa.float32())),
    ]
)


def readings(first: float, times: tuple[int, ...] = (10, 20, 30)) -> pa.RecordBatch:
    """Rows whose values count up from `first`."""
    values = [first + number for number in range(len(times))]
    rows = [{"timestamp_ns": t, "state": {"x": v}, "ranges": [v, -v]} for t, v in zip(times, values, strict=True)]
    return pa.RecordBatch.from_pylist(rows, schema=READINGS)


def asked(path: str, operator: str, operand: object = None) -> FieldCondition:
    return FieldCondition(parse_field_path(path), Condition(Operator(operator), operand))


def remove_files(lake: SearchedLake, topic: TopicRecord) -> None:
    uris = [file.uri for file in lake.lakehouse.warehouse.list_files(lake.lakehouse.warehouse.uri)]
    lake.lakehouse.warehouse.delete([uri for uri in uris if topic.uuid in uri])


class TestWhatIsOpened:
    def test_files_that_bounds_exclude_are_never_opened(self, lake: SearchedLake) -> None:
        topics = [lake.store({"front": readings(100.0 * number)}, tag="Reading")["front"] for number in range(6)]
        for topic in topics[:3] + topics[4:]:
            remove_files(lake, topic)
        conditions = [asked("Reading.state.x", "$between", (301.0, 301.5))]
        explanation = Explanation()
        search = lake.search()
        assert search.matching(topics, conditions, explanation=explanation) == {topics[3].id: None}
        assert explanation.to_json() == {
            "topics_considered": 6,
            "topics_matched": 1,
            "files_considered": 6,
            "files_excluded": {"Reading.state.x $between (301.0, 301.5)": 5},
            "files_opened": 1,
            "row_groups_considered": 1,
            "row_groups_excluded": {},
            "row_groups_read": 1,
            "rows_scanned": 3,
        }
        with pytest.raises(StorageError, match="missing"):
            lake.unpruned.matching(topics, conditions)

    def test_elements_of_lists_exclude_recorded_files(self, lake: SearchedLake) -> None:
        stored = [lake.store({"lidar": readings(100.0 * n)}, tag="Lidar", is_finalized=False) for n in range(3)]
        topics = [each["lidar"] for each in stored]
        for condition in (asked("Lidar.ranges[?]", "$gt", 200), asked("Lidar.ranges[0]", "$gt", 200)):
            explanation = Explanation()
            assert lake.search().matching(topics, [condition], explanation=explanation) == {topics[2].id: None}
            assert (explanation.files_opened, explanation.files_excluded.total()) == (1, 2)

    def test_elements_of_lists_exclude_published_files_never_opened(self, lake: SearchedLake) -> None:
        topics = [lake.store({"lidar": readings(100.0 * n)}, tag="Scan")["lidar"] for n in range(6)]
        search, explanation = lake.search(), Explanation()
        conditions = [asked("Scan.ranges[?]", "$gt", 500)]
        assert search.matching(topics, conditions, explanation=explanation) == {topics[5].id: None}
        assert explanation.files_excluded == {"Scan.ranges[?] $gt 500": 5}
        assert (explanation.files_opened, explanation.row_groups_excluded.total()) == (1, 0)
        assert search.matching(topics, [asked("Scan.ranges[?]", "$gt", 400)]).keys() == {topics[4].id, topics[5].id}
        assert search.audit(topics, conditions) == []

    def test_elements_of_lists_exclude_files_of_earlier_releases_once_opened(
        self, lake: SearchedLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as earlier_release:
            earlier_release.setattr("lakehouse.catalog.iceberg.manifests.gather", lambda _references: None)
            topics = [lake.store({"lidar": readings(100.0 * n)}, tag="Old")["lidar"] for n in range(6)]
        search, conditions = lake.search(), [asked("Old.ranges[?]", "$gt", 500)]
        for opened, groups in ((6, 5), (1, 0)):
            explanation = Explanation()
            assert search.matching(topics, conditions, explanation=explanation) == {topics[5].id: None}
            assert (explanation.files_opened, explanation.row_groups_excluded.total()) == (opened, groups)
        assert search.audit(topics, conditions) == []

    def test_row_groups_that_statistics_exclude_are_not_read(self, tmp_path: Path) -> None:
        written = HandWrittenLake.create(tmp_path)
        topic = written.write_topic([rows_at(range(100))], row_group_size=10)
        search = ContentSearch(written.database, written.warehouse, SkipIndex(TableFiles(written.warehouse)))
        explanation = Explanation()
        conditions = [asked("test.number", "$geq", 95)]
        assert search.matching([topic], conditions, with_ranges=True, explanation=explanation) == {
            topic.id: TimeInterval(95, 99)
        }
        assert (explanation.row_groups_read, explanation.row_groups_excluded.total()) == (1, 9)
        assert search.audit([topic], conditions) == []

    def test_only_new_manifests_are_decoded(self, lake: SearchedLake, monkeypatch: pytest.MonkeyPatch) -> None:
        topics = [lake.store({"front": readings(0.0)}, tag="Growing")["front"] for _ in range(6)]
        search, conditions = lake.search(), [asked("Growing.state.x", "$gt", 500)]
        search.matching(topics, conditions)
        topics.append(lake.store({"front": readings(501.0)}, tag="Growing")["front"])
        decoded: list[int] = []
        original = LeafBounds.decode.__func__
        monkeypatch.setattr(LeafBounds, "decode", classmethod(lambda *a: decoded.append(len(a[2])) or original(*a)))
        assert search.matching(topics, conditions) == {topics[-1].id: None}
        assert decoded == [1]


def test_the_audit_finds_a_wrong_bound(lake: SearchedLake, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = [lake.store({"front": readings(100.0 * n)}, tag="Audited")["front"] for n in range(6)]
    conditions = [asked("Audited.state.x", "$gt", 450)]
    search = lake.search()
    assert search.audit(topics, conditions) == []
    original = FileIndex.bounds

    def wrong(self: FileIndex, *arguments: object) -> LeafBounds:
        found = original(self, *arguments)  # type: ignore[arg-type]
        return LeafBounds(found.lower, found.upper - 100, found.value_counts, found.null_counts, found.nan_counts)

    monkeypatch.setattr(FileIndex, "bounds", wrong)
    assert [finding.topic_id for finding in search.audit(topics, conditions)] == [topics[5].id]


def test_all_conditions_hold_on_one_row(lake: SearchedLake) -> None:
    topic = lake.store({"front": readings(0.0)}, tag="Both")["front"]
    apart = [asked("Both.state.x", "$geq", 2), asked("Both.timestamp_ns", "$leq", 20)]
    together = [asked("Both.state.x", "$geq", 1), asked("Both.timestamp_ns", "$leq", 20)]
    assert lake.pruned.matching([topic], apart) == {}
    assert lake.pruned.matching([topic], together) == {topic.id: None}


def test_deleted_topics_are_never_found(lake: SearchedLake) -> None:
    kept, deleted = (lake.store({"front": readings(0.0)}, tag="Deleted")["front"] for _ in range(2))
    conditions = [asked("Deleted.state.x", "$geq", 0)]
    search = lake.search()
    assert len(search.matching([kept, deleted], conditions)) == 2
    lake.lakehouse.sequences.delete(deleted.locator.sequence)
    assert search.matching([kept, deleted], conditions) == {kept.id: None}
    with pytest.raises(NotFoundError):
        list(search.clusterize(deleted, conditions, 0))


def test_a_topic_finalized_meanwhile_is_found(lake: SearchedLake) -> None:
    topic = lake.store({"front": readings(0.0)}, tag="Meanwhile", is_finalized=False)["front"]
    session = lake.lakehouse.sequences.describe(topic.locator.sequence).sessions[0]
    lake.lakehouse.sessions.finalize(session.uuid)
    assert not topic.session_is_finalized
    assert lake.pruned.matching([topic], [asked("Meanwhile.state.x", "$geq", 0)]) == {topic.id: None}


def test_sequences_of_one_table_are_told_apart(lake: SearchedLake) -> None:
    topics = [lake.store({"front": readings(100.0 * n)}, tag="Apart")["front"] for n in range(8)]
    conditions = [asked("Apart.state.x", "$geq", 100)]
    assert lake.pruned.matching(topics[:6], conditions).keys() == {topic.id for topic in topics[1:6]}
    assert lake.pruned.matching(topics[:2], conditions).keys() == {topics[1].id}


def test_clusters_keep_to_the_window(lake: SearchedLake) -> None:
    day_ns = 86_400 * 10**9
    times = (-day_ns - 5, -3, 0, 4, day_ns, day_ns + 1)
    topic = lake.store({"front": readings(0.0, times)}, tag="Window")["front"]
    conditions = [asked("Window.state.x", "$geq", 1)]

    def clusters(dt_ns: int, window: TimeWindow) -> list[tuple[int, int]]:
        return [(each.start_ns, each.end_ns) for each in lake.pruned.clusterize(topic, conditions, dt_ns, window)]

    assert clusters(4, TimeWindow()) == [(-3, 4), (day_ns, day_ns + 1)]
    assert clusters(3, TimeWindow(-3, day_ns + 1)) == [(-3, 0), (4, 4), (day_ns, day_ns)]
    assert clusters(0, TimeWindow(-1, None)) == [(0, day_ns + 1)]
    assert clusters(0, TimeWindow(5, 5)) == []


def test_a_topic_without_upload_has_no_clusters(lake: SearchedLake) -> None:
    lake.lakehouse.sequences.create("never-uploaded")
    session = lake.lakehouse.sessions.create("never-uploaded")
    locator = TopicLocator("never-uploaded", "front")
    lake.lakehouse.topics.create(session.uuid, locator, "default", "Nothing")
    with pytest.raises(StateError):
        lake.pruned.clusterize(lake.lakehouse.topics.get(locator), [asked("Nothing.x", "$gt", 1)], 0)
