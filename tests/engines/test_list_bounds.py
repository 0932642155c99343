"""What our manifests carry besides Iceberg's own, bounds of list elements in their header, disturbs no engine; and once
an engine has rewritten them, queries take longer and find the same.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.catalog.iceberg.avro_encoding import ContainerFile
from lakehouse.catalog.iceberg.element_records import HEADER_KEY
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.explain import Explanation
from tests.engines.conftest import WRITERS
from tests.engines.engines_under_test import DuckDB, Polars, WritingEngine
from tests.engines.recordings import NOON_NS
from tests.engines.shared_lake import SharedLake, fresh_name

# The catalog has no part in it.
PLACES = [place for place in WRITERS if place.values[0][1] == "production"]
pytestmark = [pytest.mark.timeout(600), pytest.mark.parametrize("place", PLACES, indirect=True, scope="session")]

MIB = 1 << 20
LABELS = 250
FILES = 130
ROWS_PER_FILE = 2
LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
READING = pa.struct([("value", pa.float64()), *((f"label{number:03}", pa.string()) for number in range(LABELS))])
SCHEMA = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("readings", pa.list_(READING))])


def wide_rows(file: int) -> pa.RecordBatch:
    """A few rows of one element each, whose values are those of no other file."""
    generator = np.random.default_rng(file)
    texts = LETTERS[generator.integers(0, len(LETTERS), (LABELS, ROWS_PER_FILE, 16))].view("S16")[..., 0].astype(str)
    values = pa.array(file + generator.random(ROWS_PER_FILE))
    readings = pa.StructArray.from_arrays([values, *map(pa.array, texts.tolist())], fields=list(READING))
    offsets = np.arange(ROWS_PER_FILE + 1, dtype=np.int32)
    times = NOON_NS + np.arange(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE) * 10**6
    lists = pa.ListArray.from_arrays(pa.array(offsets), readings).cast(SCHEMA.field("readings").type)
    return pa.record_batch([pa.array(times), lists], schema=SCHEMA)


def record(lake: SharedLake, sequence: str, path: str, tag: str, files: range) -> None:
    """A topic of many small files, as those of a long upload."""
    batches = [wide_rows(file) for file in files]
    settings = lake.settings.model_copy(update={"max_chunk_size": batches[0].nbytes})
    with Lakehouse.open(settings) as own:
        SharedLake(own, lake.sdk, lake.client, settings).write_batches(sequence, {path: (tag, batches)})


def headers(lake: SharedLake, table: str) -> list[int]:
    """Bytes of bounds of elements in each manifest of data files."""
    with lake.catalog() as catalog:
        loaded = catalog.load_table(table)
        snapshot = loaded.current_snapshot()
        assert snapshot is not None
        paths = [manifest.manifest_path for manifest in snapshot.manifests(loaded.io)]
        contents = [loaded.io.new_input(path).open().read() for path in paths]
    return [len(ContainerFile(content).metadata.get(HEADER_KEY, b"")) for content in contents]


def test_bounds_of_list_elements_disturb_no_engine_and_may_get_lost(engine: WritingEngine, lake: SharedLake) -> None:
    tag, path, names = fresh_name("Wide"), fresh_name("topic"), [fresh_name("drive") for _ in range(2)]
    record(lake, names[0], path, tag, range(FILES))
    record(lake, names[1], path, tag, range(FILES, FILES + 3))
    table = str(lake.lakehouse.topics.get(TopicLocator(names[0], path)).table_identifier)
    assert max(headers(lake, table)) > MIB

    def ask(low: float, high: float) -> tuple[set[str], int]:
        explanation = Explanation()
        condition: dict[str, Any] = {f"{tag}.readings[?].value": {"$between": [low, high]}}
        # A lake that was just opened knows bounds from nowhere but the manifests.
        with Lakehouse.open(lake.settings) as cold:
            found = cold.query({"ontology": condition}, explanation)
        return {match.name for match in found}, explanation.files_opened

    def check() -> None:
        for reader in (engine, DuckDB(lake), Polars(lake)):
            found = reader.rows(
                f"SELECT sequence, count(*) AS n, min(timestamp_ns) AS first FROM {table} GROUP BY sequence"
            )
            assert {name: rest for name, *rest in found} == {
                names[0]: [FILES * ROWS_PER_FILE, NOON_NS],
                names[1]: [3 * ROWS_PER_FILE, NOON_NS + FILES * ROWS_PER_FILE * 10**6],
            }, reader.name
        assert ask(FILES / 2, FILES / 2 + 1)[0] == {names[0]}
        assert ask(FILES + 1, FILES + 2)[0] == {names[1]}
        assert ask(FILES - 1, FILES + 1)[0] == set(names)
        assert ask(FILES + 3, FILES + 9)[0] == set()

    check()
    assert ask(FILES + 3, FILES + 9)[1] == 0, "bounds of elements exclude all files"
    engine.rewrite_manifests(table)
    assert max(headers(lake, table)) == 0
    check()
    assert ask(FILES + 3, FILES + 9)[1] > 0
    engine.compact(table)
    engine.expire_snapshots(table)
    check()
