"""Compaction against plain pyarrow that reads the same files and writes one."""

import random
from itertools import count
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq

from bench.measuring import interleave, ratio
from bench.report import Line, Section
from bench.rows import RowSource
from bench.runs import Run
from lakehouse.catalog.iceberg.sql_catalog import read_pointers
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.compaction import run_compaction
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.settings import Settings

MB = 1_000_000
CHUNK_BYTES = 512 * 1024
BATCH_BYTES = 200_000
TOTAL_BYTES = 64 * MB
ROW_GROUP_BYTES = 16 << 20


def measure(run: Run) -> Section:
    section = Section(
        "Compaction",
        "Stored megabytes of small files of one topic rewritten per second, in one process: found, merged by time, "
        "written with bounds, made durable and committed. Compared with pyarrow, which reads the same files one after "
        "the other and writes one with the same compression, neither sorted, nor bounded, nor durable. Rows and their "
        "order are compared before and after.",
    )
    for title, is_disordered in (("files one after another in time", False), ("files that overlap in time", True)):
        section.lines.append(_line(run, title, is_disordered))
    return section


def _line(run: Run, title: str, is_disordered: bool) -> Line:
    settings = Settings.load(home=run.directory / title.replace(" ", "-"), db_url="", store_endpoint="")
    small = settings.model_copy(update={"max_chunk_size": CHUNK_BYTES, "compaction_target_size": 128 << 20})
    numbers = count()
    batches = _batches(run.size(TOTAL_BYTES), is_disordered)
    files = 0
    with Lakehouse.open(small) as lake:

        def ours() -> float:
            nonlocal files
            topic = _store(lake, f"ours-{next(numbers)}", batches)
            before = pa.Table.from_batches(lake.reader.read(topic))
            started = monotonic()
            report = run_compaction(lake.database, lake.table_files, lake.committer, lake.settings)
            seconds = monotonic() - started
            assert report is not None
            assert pa.Table.from_batches(lake.reader.read(topic)).equals(before), "rows or their order changed"
            files = report.total.files_replaced
            assert files > len(_paths(lake, topic))
            return report.total.bytes_replaced / seconds / MB

        def plain() -> float:
            topic = _store(lake, f"plain-{next(numbers)}", batches)
            paths = _paths(lake, topic)
            target = run.directory / "plain.parquet"
            started = monotonic()
            _rewrite_plainly(paths, target)
            seconds = monotonic() - started
            size = sum(path.stat().st_size for path in paths)
            # Else the next compaction would find it.
            lake.sequences.delete(topic.locator.sequence)
            return size / seconds / MB

        rounds = run.rounds(5)
        advance = run.step(f"Compaction, {title}", rounds + 1, 2)
        found = interleave({"ours": ours, "pyarrow": plain}, rounds, advance)
    reached = ratio(found["ours"], found["pyarrow"])
    return Line(
        f"{files:,} {title}",
        found["ours"].text(1, "MB/s"),
        f"pyarrow {found['pyarrow'].text(1)} MB/s",
        reached.text(2),
    )


def _batches(size: int, is_disordered: bool) -> list[pa.RecordBatch]:
    source = RowSource.imu(batch_bytes=BATCH_BYTES, pool_bytes=BATCH_BYTES)
    first = source.batches[0]
    times = first.column("timestamp_ns")
    span = times[-1].as_py() - times[0].as_py() + 1
    column = first.schema.get_field_index("timestamp_ns")
    shifted = [
        first.set_column(column, first.schema.field(column), pa.array(times.to_numpy() + number * span))
        for number in range(max(size // first.nbytes, 16))
    ]
    if is_disordered:
        random.Random(0).shuffle(shifted)
    return shifted


def _store(lake: Lakehouse, sequence: str, batches: list[pa.RecordBatch]) -> TopicRecord:
    lake.sequences.create(sequence)
    session = lake.sessions.create(sequence)
    locator = TopicLocator(sequence, "imu")
    uuid = lake.topics.create(session.uuid, locator, "default", "IMU")
    with lake.topics.begin_upload(locator, uuid, batches[0].schema) as upload:
        for batch in batches:
            upload.write(batch)
        upload.finish()
    lake.sessions.finalize(session.uuid)
    return lake.topics.get(locator)


def _paths(lake: Lakehouse, topic: TopicRecord) -> list[Path]:
    assert topic.table_identifier is not None
    with lake.database.snapshot() as connection:
        location = read_pointers(connection, [topic.table_identifier])[topic.table_identifier]
    found = SkipIndex(lake.table_files).sequence_files(location, topic.locator.sequence)
    return sorted(Path(file.path.removeprefix("file://")) for file in found)


def _rewrite_plainly(paths: list[Path], target: Path) -> None:
    schema = pq.read_schema(paths[0])
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for path in paths:
            waiting.append(pq.read_table(path, partitioning=None))
            if sum(table.nbytes for table in waiting) >= ROW_GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
