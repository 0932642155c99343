"""Conditions on list elements: a lake just opened opens no data file but those with matches."""

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table
from pyiceberg.types import NestedField

from lakehouse.catalog.iceberg.element_records import ElementColumns, ElementRecords
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.manifests import MANIFESTS_PER_CLASS
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.engine import QueryEngine
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.settings import Settings
from tests.catalog.hand_written_topics import RecordingWarehouse
from tests.catalog.test_skip_index import rewrite
from tests.warehouses import BOTH, scan_iceberg, store_settings

WAREHOUSES = BOTH
LONG = "the same twenty-odd characters, "
PART = pa.struct([("v", pa.int64()), ("name", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("timestamp_ns", pa.int64(), nullable=False),
        pa.field("positions", pa.list_(pa.float64())),
        pa.field("scan", pa.struct([("ranges", pa.list_(pa.float32()))])),
        pa.field("parts", pa.list_(PART)),
        pa.field("words", pa.large_list(pa.string())),
        pa.field("counts", pa.list_(pa.uint64())),
        pa.field("triple", pa.list_(pa.float64(), 3)),
        pa.field("facts", pa.map_(pa.string(), pa.float64())),
    ]
)
BEYOND_DOUBLES = 2**53
DRIVES = 6


def arm_rows(number: int) -> list[dict[str, Any]]:
    """Rows of the drive of this number, full of what is none of its values."""
    low = 100.0 * number
    nothing = dict.fromkeys(SCHEMA.names[1:])
    empty = nothing | {"positions": [], "parts": [], "words": [], "counts": [], "scan": {"ranges": []}, "facts": []}
    full = {
        "positions": [low, math.nan, None, low + 1],
        "scan": {"ranges": [math.nan, low, -0.0 if number == 0 else low + 0.5]},
        "parts": [{"v": BEYOND_DOUBLES + number, "name": f"{LONG}{number}"}, None, {"v": None, "name": None}],
        "words": [f"{number}{LONG}", None, f"{number}z"],
        "counts": [2**63 + number],
        "triple": [low, low + 1, math.nan],
        "facts": [("a", low), ("b", None)],
    }
    return [{"timestamp_ns": moment, **values} for moment, values in enumerate((nothing, full, empty))]


class ListLake:
    """A lake of drives with one topic each, and what a query to a lake just opened does."""

    def __init__(self, home: Path, store: dict[str, str]) -> None:
        self.lakehouse = Lakehouse.open(Settings.load(home=home, db_url="", **store))

    def record(self, tag: str, number: int) -> None:
        sequence = f"{tag}-{number}"
        self.lakehouse.sequences.create(sequence)
        session = self.lakehouse.sessions.create(sequence)
        locator = TopicLocator(sequence, "joints")
        uuid = self.lakehouse.topics.create(session.uuid, locator, "default", tag)
        with self.lakehouse.topics.begin_upload(locator, uuid, SCHEMA) as upload:
            upload.write(pa.RecordBatch.from_pylist(arm_rows(number), schema=SCHEMA))
            upload.finish()
        self.lakehouse.sessions.finalize(session.uuid)

    def fleet(self, tag: str, drives: int = DRIVES) -> None:
        for number in range(drives):
            self.record(tag, number)

    def cold(self, ontology: dict[str, Any]) -> tuple[list[str], int]:
        """Sequences with a match, and how many data files were opened for that, with nothing cached."""
        outcomes = []
        for few_candidates, explanation in ((1000, None), (-1, None), (1000, Explanation())):
            warehouse = RecordingWarehouse(self.lakehouse.warehouse)
            search = ContentSearch(self.lakehouse.database, warehouse, SkipIndex(TableFiles(warehouse)), concurrency=2)
            engine = QueryEngine(self.lakehouse.database, search, few_candidates=few_candidates)
            found = [each.name for each in engine.query({"ontology": ontology}, explanation)]
            opened = {uri for uri in warehouse.opened if uri.endswith(".parquet")}
            outcomes.append((found, len(opened)))
            if explanation is not None:
                assert explanation.files_opened == len(opened)
                assert explanation.files_considered == len(opened) + explanation.files_excluded.total()
        assert outcomes.count(outcomes[0]) == len(outcomes), outcomes
        return outcomes[0]

    def table(self, tag: str) -> Table:
        topic = self.lakehouse.topics.get(TopicLocator(f"{tag}-0", "joints"))
        assert topic.table_identifier is not None
        with closing(open_sql_catalog(self.lakehouse.database, self.lakehouse.warehouse)) as catalog:
            return catalog.load_table(topic.table_identifier)

    def rows(self, tag: str) -> list[dict[str, Any]]:
        """Every row that was stored under a tag, as other engines are to see it."""
        names = [f"{tag}-{number}" for number in range(DRIVES)]
        return [{"sequence": name, **row} for number, name in enumerate(names) for row in arm_rows(number)]


@pytest.fixture(scope="module")
def lake(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, warehouse_kind: str
) -> Iterator[ListLake]:
    opened = ListLake(tmp_path_factory.mktemp("lists"), store_settings(request, warehouse_kind))
    opened.fleet("Arm")
    yield opened
    opened.lakehouse.close()


@pytest.mark.parametrize(
    ("path", "operators", "drives"),
    [
        ("positions[?]", {"$gt": 400.5}, [4, 5]),
        ("positions[0]", {"$eq": 300}, [3]),
        ("positions[?]", {"$outside": [100, 1e9]}, [0]),
        ("positions[?]", {"$in": [201.0, 9e9]}, [2]),
        ("positions[?]", {"$gt": 501}, []),
        ("positions", {"$eq": [300.0, 301.0]}, []),
        ("triple[1]", {"$lt": 100}, [0]),
        ("scan.ranges[?]", {"$geq": 500.5}, [5]),
        ("scan.ranges[2]", {"$eq": 0.0}, [0]),
        ("parts[?].v", {"$gt": BEYOND_DOUBLES + 4}, [5]),
        ("parts[0].v", {"$eq": BEYOND_DOUBLES + 1}, [1]),
        ("counts[?]", {"$eq": 2**63 + 3}, [3]),
        ("words[?]", {"$match": "4the same*"}, [4]),
        ("words[?]", {"$between": [f"3{LONG}", f"3{LONG}"]}, [3]),
        ("words[2]", {"$eq": "5z"}, [5]),
        ("facts.a", {"$gt": 450}, [5]),
    ],
)
def test_only_files_with_matches_are_opened(
    lake: ListLake, path: str, operators: dict[str, Any], drives: list[int]
) -> None:
    found, opened = lake.cold({f"Arm.{path}": operators})
    assert found == [f"Arm-{number}" for number in drives]
    # A whole list is compared by its elements one by one, so that its file may have to be looked at.
    assert opened <= len(drives) + (path == "positions")


def test_what_bounds_cannot_tell_is_looked_up(lake: ListLake) -> None:
    everywhere = [f"Arm-{number}" for number in range(DRIVES)]
    # Texts that differ only behind what bounds keep of them.
    assert lake.cold({"Arm.parts[?].name": {"$eq": f"{LONG}2"}}) == (["Arm-2"], DRIVES)
    # True for every empty list.
    assert lake.cold({"Arm.positions[!]": {"$gt": 1e9}}) == (everywhere, DRIVES)
    # Elements that are null.
    assert lake.cold({"Arm.positions[2]": {"$nex": None}}) == (everywhere, DRIVES)
    assert lake.cold({"Arm.counts[0]": {"$nex": None}}) == ([], 0)
    # NaN differs from everything.
    assert lake.cold({"Arm.scan.ranges[0]": {"$neq": 1e9}}) == (everywhere, DRIVES)


def test_merging_manifests_and_deleting_from_them_changes_nothing(lake: ListLake) -> None:
    lake.fleet("Leg", MANIFESTS_PER_CLASS + 1)
    question = {"Leg.positions[?]": {"$between": [300, 301]}}
    assert lake.cold(question) == (["Leg-3"], 1)
    lake.lakehouse.maintenance.run([lake.table("Leg").name()[-2] + "." + lake.table("Leg").name()[-1]])
    assert len(lake.table("Leg").inspect.manifests()) == 1
    assert lake.cold(question) == (["Leg-3"], 1)
    lake.lakehouse.sequences.delete("Leg-2")
    assert lake.cold(question) == (["Leg-3"], 1)
    lake.lakehouse.sequences.delete("Leg-3")
    assert lake.cold(question) == ([], 0)
    lake.record("Leg", 3)
    assert lake.cold(question) == (["Leg-3"], 1)


def test_files_that_another_engine_rewrote_are_opened_the_others_are_not(lake: ListLake) -> None:
    lake.fleet("Hand")
    rewrite(lake.table("Hand"), "Hand-1")
    # The engine wrote the manifests of the files it replaced anew; those of the others stay ours.
    assert lake.cold({"Hand.positions[?]": {"$between": [300, 301]}}) == (["Hand-3"], 2)
    assert lake.cold({"Hand.positions[?]": {"$between": [100, 101]}}) == (["Hand-1"], 1)


def test_the_audit_finds_a_wrong_bound_of_elements(lake: ListLake, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = [lake.lakehouse.topics.get(TopicLocator(f"Arm-{number}", "joints")) for number in range(DRIVES)]
    path = parse_field_path("Arm.positions[?]")
    conditions = [FieldCondition(path, Condition(Operator.GREATER, 450.0))]

    def audited() -> list[tuple[int, FieldCondition | None]]:
        database, files = lake.lakehouse.database, TableFiles(lake.lakehouse.warehouse)
        search = ContentSearch(database, lake.lakehouse.warehouse, SkipIndex(files))
        return [(each.topic_id, each.excluded_by) for each in search.audit(topics, conditions)]

    assert audited() == []
    original = ElementRecords.columns

    def wrong(self: ElementRecords, field_id: int, file_count: int) -> ElementColumns:
        found = original(self, field_id, file_count)
        return found._replace(upper=found.lower)

    monkeypatch.setattr(ElementRecords, "columns", wrong)
    lost = [topic.id for topic in topics if topic.locator.sequence == "Arm-5"]
    conditions[0] = FieldCondition(path, Condition(Operator.GREATER, 500.5))
    assert audited() == [(topic_id, conditions[0]) for topic_id in lost]


class TestOtherEngines:
    """They read the rows and prune by the bounds they know, as if there were no others."""

    def test_pyiceberg(self, lake: ListLake) -> None:
        table = lake.table("Arm")
        rows = table.scan().to_arrow()
        assert rows.num_rows == DRIVES * 3
        assert sorted(rows["sequence"].to_pylist()) == sorted(row["sequence"] for row in lake.rows("Arm"))
        (only,) = table.scan(EqualTo("sequence", "Arm-4")).plan_files()
        assert only.file.partition[0] == "Arm-4"
        elements = {
            field.field_id for name, field in _fields(table) if ".element" in name or ".key" in name or ".value" in name
        }
        assert elements
        for column in ("lower_bounds", "upper_bounds"):
            for of_file in table.inspect.files()[column].to_pylist():
                assert not elements & {field_id for field_id, _ in of_file}

    def test_polars(self, lake: ListLake) -> None:
        frame = scan_iceberg(lake.table("Arm"))
        assert frame.select(pl.len()).collect().item() == DRIVES * 3
        high = frame.filter(pl.col("positions").list.max() > 450).select("sequence").collect()
        assert high["sequence"].to_list() == ["Arm-5"]
        exact = frame.filter(pl.col("parts").list.first().struct.field("v") == BEYOND_DOUBLES + 1)
        assert exact.select("sequence").collect()["sequence"].to_list() == ["Arm-1"]

    def test_duckdb(self, lake: ListLake) -> None:
        connection = lake.table("Arm").scan().to_duckdb("arm")
        assert connection.sql("SELECT count(*) FROM arm").fetchall() == [(DRIVES * 3,)]
        asked = (
            f"SELECT sequence FROM arm WHERE list_contains(list_transform(parts, lambda p: p.v), {BEYOND_DOUBLES + 1})"
        )
        assert connection.sql(asked).fetchall() == [("Arm-1",)]
        assert connection.sql("SELECT sequence FROM arm WHERE positions[1] = 300").fetchall() == [("Arm-3",)]

    def test_a_commit_of_theirs_leaves_them_in_force(self, lake: ListLake) -> None:
        lake.fleet("Head")
        lake.table("Head").delete(EqualTo("sequence", "Head-5"))
        assert lake.cold({"Head.positions[?]": {"$geq": 300}}) == (["Head-3", "Head-4"], 2)


def _fields(table: Table) -> Iterator[tuple[str, NestedField]]:
    schema = table.schema()
    for field_id in schema.field_ids:
        name = schema.find_column_name(field_id)
        assert name is not None
        yield name, schema.find_field(field_id)
