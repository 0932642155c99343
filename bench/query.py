"""Content queries: finding the one data file in very many that holds a match, and joining matches to clusters.

The files of the lake are one small real file and one that matches; manifest entries by the ten thousands name the small
one again and again, with bounds as that many different recordings would have. Planning cannot tell the difference, and
nothing but the matching file is ever opened.
"""

import gc
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic, process_time

import numpy as np
import polars as pl
import pyarrow as pa
from sqlalchemy import select

from bench.measuring import Spread, interleave, ratio_of_times, take_turns, wait_for_quiet
from bench.report import Line, Section
from bench.rows import START_NS, RowSource
from bench.runs import Run
from lakehouse.catalog.commits.plan import CommitPlan, TableChange
from lakehouse.catalog.control_plane.schema import data_files
from lakehouse.catalog.iceberg.bounds import serialize
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.iceberg.sql_catalog import open_sql_catalog
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings
from lakehouse.ontology.arrow_iceberg import plan_storage

COLD_GOAL = 5.0
WARM_GOAL_MS = 50.0
FILES_PER_COMMIT = 1000
FILES_PER_SEQUENCE = 10
SCANNED_WITHOUT_BOUNDS = 2000
THRESHOLD = 1e6
LEAF = ("acceleration", "x")
CLUSTER_ROWS = 10_000_000
CONDITIONS = (FieldCondition(parse_field_path(f"IMU.{'.'.join(LEAF)}"), Condition(Operator.GREATER, THRESHOLD)),)
NUMBERS = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("value", pa.float64())])


def measure(run: Run) -> Section:
    section = Section(
        "Content queries",
        "`IMU.acceleration.x > 1,000,000`, true in one data file only. *Cold*: nothing is in memory, files are in the "
        "page cache; against PyIceberg's `plan_files` with the same condition on the same tables, by time and by "
        "processor time (user and system, all threads). *Warm*: the same question again. *New process*: a process "
        "that was just started asks twice. *One more session*: the first question after a commit to one table. "
        "*Scanning*: bounds are not believed, the time of a part scaled up to all files. Clusters: rows from Parquet "
        "to intervals, against Polars doing the same from memory.",
    )
    shapes = ((1000, 1), (1000, 20)) if run.quick else ((10_000, 1), (100_000, 1), (10_000, 1000), (100_000, 1000))
    for files, tables in shapes:
        section.lines += _search_lines(run, files, tables)
    section.lines += _cluster_lines(run)
    return section


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Finalized topics of the tag, with the entries of all their files committed."""

    lake: Lakehouse
    topics: Sequence[TopicRecord]
    match: TopicRecord
    one_more: TableChange

    def search(self, *, is_pruning: bool = True) -> ContentSearch:
        """A search as a gateway has it that was just started."""
        lake = self.lake
        return ContentSearch(
            lake.database, lake.warehouse, SkipIndex(TableFiles(lake.warehouse)), is_pruning=is_pruning
        )

    def ask(self, search: ContentSearch) -> "_Cost":
        """The cost of one query; the answer is checked."""
        gc.collect()
        started = _Cost.now()
        found = search.matching(self.topics, CONDITIONS)
        cost = _Cost.now().since(started)
        if list(found) != [self.match.id]:
            raise AssertionError(f"wrong answer: {len(found)} topics")
        return cost

    def plan_with_pyiceberg(self) -> "_Cost":
        """The cost of PyIceberg's finding the matching files of all tables."""
        catalog = open_sql_catalog(self.lake.database, self.lake.warehouse)
        gc.collect()
        started = _Cost.now()
        found = 0
        for identifier in sorted({str(topic.table_identifier) for topic in self.topics}):
            scan = catalog.load_table(identifier).scan(row_filter=f"{'.'.join(LEAF)} > {THRESHOLD}")
            found += len(list(scan.plan_files()))
        cost = _Cost.now().since(started)
        catalog.close()
        if found != 1:
            raise AssertionError(f"PyIceberg planned {found} files")
        return cost

    def ask_in_new_process(self, home: Path) -> tuple[float, float]:
        """Milliseconds of the first and of the second query of a process."""
        topics_file = home / "topics.pickle"
        topics_file.write_bytes(pickle.dumps((list(self.topics), CONDITIONS)))
        command = [sys.executable, "-m", "bench.first_query", str(home), str(topics_file)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
        (first, hits), (second, _) = (line.split() for line in lines[:2])
        if hits != "1":
            raise AssertionError(f"wrong answer of a new process: {hits} topics")
        return float(first), float(second)

    def commit_one_more(self) -> None:
        """Another session of one file, in a table that has some."""
        self.lake.committer.commit(partial(CommitPlan, [self.one_more], lambda _connection: None, {}))


@dataclass(frozen=True, slots=True)
class _Cost:
    """Milliseconds of time, and of processor time of all threads."""

    time: float
    processor_time: float

    @classmethod
    def now(cls) -> "_Cost":
        return cls(1e3 * monotonic(), 1e3 * process_time())

    def since(self, started: "_Cost") -> "_Cost":
        return _Cost(self.time - started.time, self.processor_time - started.processor_time)


class _CountingFiles(TableFiles):
    """Counts what is read."""

    count = 0

    def read(self, uri: str) -> bytes:
        self.count += 1
        return super().read(uri)


def _search_lines(run: Run, files: int, tables: int) -> list[Line]:
    name = f"{files:,} files, {tables:,} table{'s' if tables > 1 else ''}"
    with Lakehouse.open(
        Settings.load(home=run.directory / f"fleet-{files}-{tables}", db_url="", store_endpoint="")
    ) as lake:
        fleet = _make_fleet(run, lake, files, tables, name)
        rounds = run.rounds(3 if files <= 10_000 else 1)
        files_read = _CountingFiles(lake.warehouse)
        warm = ContentSearch(lake.database, lake.warehouse, index := SkipIndex(files_read))
        fleet.ask(warm)
        found = take_turns(
            {"cold": lambda: fleet.ask(fleet.search()), "PyIceberg": fleet.plan_with_pyiceberg},
            rounds,
            run.step(f"query, {name}", rounds + 1, 2),
        )
        warm_times = Spread(tuple(fleet.ask(warm).time for _ in range(run.rounds(20))))
        cold, theirs = (Spread(tuple(cost.time for cost in found[which])) for which in ("cold", "PyIceberg"))
        times = ratio_of_times(cold, theirs)
        cold_work, their_work = (
            Spread(tuple(cost.processor_time for cost in found[which])) for which in ("cold", "PyIceberg")
        )
        explanation = Explanation()
        warm.matching(fleet.topics, CONDITIONS, explanation=explanation)
        starts = [fleet.ask_in_new_process(lake.settings.home) for _ in range(run.rounds(3))]
        memory = f"{warm.index.cached_bytes / 1e6:.1f} MB for one leaf"
        manifests = f"and manifests as they are, {index.cached_bytes / 1e6:.1f} MB of at most 268"
        fleet.commit_one_more()
        read_before = files_read.count
        growth = fleet.ask(warm)
        lines = [
            Line(
                f"cold, {name}",
                cold.text(unit="ms"),
                f"PyIceberg: {theirs.text()} ms",
                times.text(1),
                f"≥ {COLD_GOAL:.0f}",
                times.median >= COLD_GOAL,
            ),
            Line(
                f"cold, {name}, processor time",
                cold_work.text(unit="ms"),
                f"PyIceberg: {their_work.text()} ms",
                ratio_of_times(cold_work, their_work).text(1),
            ),
            Line(
                f"new process, {name}",
                Spread(tuple(first for first, _ in starts)).text(unit="ms"),
                f"its second query: {Spread(tuple(second for _, second in starts)).text(1)} ms",
            ),
            Line(
                f"one more session, {name}",
                f"{growth.time:,.1f} ms",
                f"{files_read.count - read_before} metadata files read",
            ),
            Line(
                f"warm, {name}",
                warm_times.text(1, "ms"),
                f"{explanation.files_considered:,} considered, {explanation.files_opened} opened",
                "",
                f"≤ {WARM_GOAL_MS:.0f} ms",
                warm_times.median <= WARM_GOAL_MS,
            ),
            Line(f"memory of bounds, {name}", memory, manifests),
        ]
        if tables == 1 and files <= 10_000:
            lines.append(_scanning_line(run, fleet, files, warm_times, name))
        return lines


def _scanning_line(run: Run, fleet: _Fleet, files: int, warm: Spread, name: str) -> Line:
    search = fleet.search(is_pruning=False)
    part = [topic for topic in fleet.topics if topic.id != fleet.match.id]
    part = part[: min(run.size(SCANNED_WITHOUT_BOUNDS) // FILES_PER_SEQUENCE, len(part))]
    search.matching(part[:4], CONDITIONS)
    wait_for_quiet()
    started = monotonic()
    search.matching(part, CONDITIONS)
    elapsed = 1e3 * (monotonic() - started) * files / (len(part) * FILES_PER_SEQUENCE)
    return Line(
        f"against scanning, {name}",
        warm.text(1, "ms"),
        f"scanning: {elapsed:,.0f} ms",
        f"{elapsed / warm.median:,.0f}",
    )


def _make_fleet(run: Run, lake: Lakehouse, files: int, tables: int, name: str) -> _Fleet:
    imu = RowSource.imu(batch_bytes=20_000, pool_bytes=20_000).batches[0]
    advance = run.step(f"query, making {name}", tables)
    plan = plan_storage(imu.schema)
    usual, usual_entry = _upload(lake, "usual", "sensors/imu-0", imu)
    column = imu.schema.get_field_index(LEAF[0])
    struct = imu.column(column)
    loud_values = pa.array(np.full(imu.num_rows, 2 * THRESHOLD))
    children = [
        loud_values if field.name == LEAF[1] else struct.field(number) for number, field in enumerate(struct.type)
    ]
    loud = pa.StructArray.from_arrays(children, fields=list(struct.type))
    match, _ = _upload(lake, "match", "sensors/imu-0", imu.set_column(column, imu.schema.field(column), loud))
    topics = [usual, match]
    generator = np.random.default_rng(0)
    per_table = files // tables
    for number in range(tables):
        path = f"sensors/imu-{number}"
        table = lake.tables.ensure("IMU", path, plan)
        leaf_id = table.schema.find_field(".".join(LEAF)).field_id
        entries: list[DataFileEntry] = []
        for position in range(per_table):
            sequence = f"drive-{number}-{position // FILES_PER_SEQUENCE}"
            low, high = np.sort(generator.normal(0, 100, 2))
            entries.append(
                replace(
                    usual_entry,
                    sequence=sequence,
                    lower_bounds={**usual_entry.lower_bounds, leaf_id: serialize(pa.float64(), low)},
                    upper_bounds={**usual_entry.upper_bounds, leaf_id: serialize(pa.float64(), high)},
                )
            )
            if position % FILES_PER_SEQUENCE == 0:
                locator = TopicLocator(sequence, path)
                topics.append(replace(usual, id=-len(topics), locator=locator, table_identifier=table.identifier))
        for first in range(0, len(entries), FILES_PER_COMMIT):
            change = TableChange(table.identifier, add=entries[first : first + FILES_PER_COMMIT])
            lake.committer.commit(partial(CommitPlan, [change], lambda _connection: None, {}))
        advance()
    return _Fleet(lake, topics, match, TableChange(table.identifier, add=[replace(entries[-1], sequence="one-more")]))


def _upload(
    lake: Lakehouse, sequence: str, path: str, batch: pa.RecordBatch, tag: str = "IMU"
) -> tuple[TopicRecord, DataFileEntry]:
    lake.sequences.create(sequence)
    session = lake.sessions.create(sequence)
    locator = TopicLocator(sequence, path)
    topic_uuid = lake.topics.create(session.uuid, locator, "default", tag)
    with lake.topics.begin_upload(locator, topic_uuid, batch.schema) as upload:
        for first in range(0, batch.num_rows, 1 << 18):
            upload.write(batch.slice(first, 1 << 18))
        upload.finish()
    topic_id = lake.topics.get(locator).id
    with lake.database.snapshot() as connection:
        recorded = connection.scalars(select(data_files.c.entry).where(data_files.c.topic_id == topic_id)).all()
    lake.sessions.finalize(session.uuid)
    return lake.topics.get(locator), DataFileEntry.from_bytes(recorded[0])


def _cluster_lines(run: Run) -> list[Line]:
    rows = run.size(CLUSTER_ROWS)
    times = START_NS + 1000 * np.arange(rows, dtype=np.int64)
    values = np.sin(np.arange(rows) / 5000) + np.random.default_rng(1).normal(0, 0.05, rows)
    batch = pa.RecordBatch.from_arrays([pa.array(times), pa.array(values)], schema=NUMBERS)
    frame = pl.from_arrow(pa.Table.from_batches([batch]))
    assert isinstance(frame, pl.DataFrame)
    condition = FieldCondition(parse_field_path("Numbers.value"), Condition(Operator.GREATER, 0.5))
    with Lakehouse.open(Settings.load(home=run.directory / "clusters", db_url="", store_endpoint="")) as lake:
        topic, _ = _upload(lake, "long", "numbers", batch, "Numbers")
        search = ContentSearch(lake.database, lake.warehouse, SkipIndex(lake.table_files))
        counts: dict[str, int] = {}

        def ours() -> float:
            started = monotonic()
            counts["ours"] = sum(1 for _ in search.clusterize(topic, [condition], 50_000))
            return rows / (monotonic() - started) / 1e6

        def in_polars() -> float:
            started = monotonic()
            counts["Polars"] = _clusters_in_polars(frame).height
            return rows / (monotonic() - started) / 1e6

        rounds = run.rounds(5)
        measured: dict[str, Callable[[], float]] = {"ours": ours, "Polars": in_polars}
        found = interleave(measured, rounds, run.step("clusterize", rounds + 1, 2))
    if counts["ours"] != counts["Polars"]:
        raise AssertionError(f"different clusters: {counts}")
    share = Spread(tuple(own / other for own, other in zip(found["ours"].values, found["Polars"].values, strict=True)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Line(
            f"clusterize, {rows / 1e6:.1f} million rows",
            found["ours"].text(1, "million rows/s"),
            f"Polars from memory: {found['Polars'].text(1)}",
            share.text(2),
        ),
        Line("clusters found", f"{counts['ours']:,}", f"peak memory of the process {peak:,.0f} MB"),
    ]


def _clusters_in_polars(frame: pl.DataFrame) -> pl.DataFrame:
    time = pl.col("timestamp_ns")
    return (
        frame.lazy()
        .filter(pl.col("value") > 0.5)
        .select(time, ((time - time.shift(1)) > 50_000).fill_null(False).cum_sum().alias("cluster"))
        .group_by("cluster")
        .agg(time.min().alias("start_ns"), time.max().alias("end_ns"))
        .sort("cluster")
        .collect()
    )
