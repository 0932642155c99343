"""Content queries on list elements, cold: bounds from the headers of manifests against the footers of all files.

Every file is a real one, a copy of one of a few with different rows, so that what is recorded of it is true; no file
but the matching one has to be opened.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from bench.measuring import interleave, ratio_of_times
from bench.report import Line, Section
from bench.rows import START_NS
from bench.runs import Run
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.schema import data_files
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.reading.parquet_slices import ParquetSlices
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.ontology.registry import model_arrow_schema

FILES = 10_000
FILES_PER_COMMIT = 500
SAMPLES = 20
GOAL = 5.0
THRESHOLD = 1000.0
JOINTS = 7
TAG = "RobotJoint"
CONDITIONS = (FieldCondition(parse_field_path(f"{TAG}.positions[?]"), Condition(Operator.GREATER, THRESHOLD)),)


@dataclass(frozen=True, slots=True)
class _Fleet:
    lake: Lakehouse
    topics: Sequence[TopicRecord]
    match: TopicRecord
    paths: Sequence[str]


def measure(run: Run) -> Section:
    section = Section(
        "Conditions on list elements",
        f"`{TAG}.positions[?] > {THRESHOLD:,.0f}`, true in one data file only, with nothing in memory; against reading "
        "the footer of every file, which is what such a condition took while only footers knew bounds of elements.",
    )
    with Lakehouse.open(Settings.load(home=run.directory / "lists", db_url="", store_endpoint="")) as lake:
        fleet = _make_fleet(run, lake, run.size(FILES))
        rounds = run.rounds(5)
        advance = run.step("list leaves, cold", rounds + 1, 2)
        found = interleave({"ours": partial(_cold, fleet), "footers": partial(_footers, fleet)}, rounds, advance)
        ratio = ratio_of_times(found["ours"], found["footers"])
        section.lines.append(
            Line(
                f"cold, 1 of {len(fleet.paths):,} files",
                found["ours"].text(0, "ms"),
                f"footers of all files: {found['footers'].text()} ms",
                ratio.text(1),
                f"≥ {GOAL:.0f}",
                ratio.median >= GOAL,
            )
        )
        section.lines.append(_opened(fleet))
        section.lines.append(_stored(fleet))
    return section


def _cold(fleet: _Fleet) -> float:
    gc.collect()
    search = _search(fleet)
    started = monotonic()
    found = search.matching(fleet.topics, CONDITIONS)
    elapsed = 1e3 * (monotonic() - started)
    if found.keys() != {fleet.match.id}:
        raise AssertionError(f"{len(found)} topics match instead of one")
    return elapsed


def _footers(fleet: _Fleet) -> float:
    gc.collect()
    slices = ParquetSlices(fleet.lake.warehouse)
    started = monotonic()
    for path in fleet.paths:
        slices.footer(path)
    return 1e3 * (monotonic() - started)


def _opened(fleet: _Fleet) -> Line:
    explanation = Explanation()
    _search(fleet).matching(fleet.topics, CONDITIONS, explanation=explanation)
    return Line(
        "files opened",
        f"{explanation.files_opened:,}",
        f"files considered: {explanation.files_considered:,}",
        goal="1",
        met=explanation.files_opened == 1,
    )


def _stored(fleet: _Fleet) -> Line:
    """What the bounds of four list columns take in the manifests."""
    with fleet.lake.database.snapshot() as connection:
        pointers = read_pointers(connection, [str(fleet.match.table_identifier)])
    files = TableFiles(fleet.lake.warehouse)
    (location,) = pointers.values()
    snapshot = files.document(location).current_snapshot
    assert snapshot is not None
    length = sum(record.length for record in files.manifest_list(snapshot["manifest-list"]))
    elements = sum(len(frame.elements) for frame in SkipIndex(files).frames(location))
    count = len(fleet.paths)
    return Line(
        "bounds of elements per file",
        f"{elements / count:,.0f} bytes",
        f"manifests: {length / count:,.0f} bytes per file",
    )


def _search(fleet: _Fleet) -> ContentSearch:
    lake = fleet.lake
    return ContentSearch(lake.database, lake.warehouse, SkipIndex(TableFiles(lake.warehouse)))


def _make_fleet(run: Run, lake: Lakehouse, files: int) -> _Fleet:
    advance = run.step("list leaves, making files", files // FILES_PER_COMMIT + 1)
    match, matching_entry = _upload(lake, "match", _rows(0, 2 * THRESHOLD))
    assert match.table_identifier is not None
    samples = [_upload(lake, f"usual_{number}", _rows(number, 0.0)) for number in range(SAMPLES)]
    contents = [_content(lake, entry) for _, entry in samples]
    topics, entries = [match], []
    for number in range(files - 1):
        usual, entry = samples[number % SAMPLES]
        sequence = f"drive-{number}"
        path = entry.path.replace(entry.sequence, sequence)
        with lake.warehouse.open_output(path) as sink:
            sink.write(contents[number % SAMPLES])
        entries.append(replace(entry, sequence=sequence, path=path))
        topics.append(replace(usual, id=-len(topics), locator=TopicLocator(sequence, "joints")))
    for first in range(0, len(entries), FILES_PER_COMMIT):
        change = TableChange(match.table_identifier, add=entries[first : first + FILES_PER_COMMIT])
        lake.committer.commit(partial(CommitPlan, [change], lambda _connection: None, {}))
        advance()
    return _Fleet(lake, topics, match, [matching_entry.path, *(each.path for each in entries)])


def _content(lake: Lakehouse, entry: DataFileEntry) -> bytes:
    with lake.warehouse.open_input(entry.path) as source:
        return bytes(source.read())


def _rows(seed: int, offset: float) -> pa.RecordBatch:
    schema = model_arrow_schema(TAG)
    generator = np.random.default_rng(seed)
    values = offset + generator.normal(0, 1, (50, JOINTS))
    rows = [
        {
            "timestamp_ns": START_NS + 10_000_000 * number,
            "names": [f"joint_{joint}" for joint in range(JOINTS)],
            **dict.fromkeys(("positions", "velocities", "efforts"), each.tolist()),
        }
        for number, each in enumerate(values)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def _upload(lake: Lakehouse, sequence: str, batch: pa.RecordBatch) -> tuple[TopicRecord, DataFileEntry]:
    lake.sequences.create(sequence)
    session = lake.sessions.create(sequence)
    locator = TopicLocator(sequence, "joints")
    topic_uuid = lake.topics.create(session.uuid, locator, "default", TAG)
    with lake.topics.begin_upload(locator, topic_uuid, batch.schema) as upload:
        upload.write(batch)
        upload.finish()
    with lake.database.snapshot() as connection:
        of_topic = data_files.c.topic_id == lake.topics.get(locator).id
        recorded = connection.scalars(select(data_files.c.entry).where(of_topic)).all()
    lake.sessions.finalize(session.uuid)
    return lake.topics.get(locator), DataFileEntry.from_bytes(recorded[0])
