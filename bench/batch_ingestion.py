"""What Dagster adds to the ingestion of a batch: a whole run against a loop over the bare function.

Both sides are programs of their own, from start to end, imports included: that is what an operator waits for.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

import dagster as dg
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from bench.measuring import Spread, take_turns
from bench.report import Line, Section
from bench.runs import Run

PROJECT = Path(__file__).parent.parent
RECORDING = PROJECT / "demo" / "recordings" / "city_drive.mcap"
RECORDINGS, QUICK_RECORDINGS = 50, 6
SECONDS = 10
GOAL = 1.15

_BARE = """
import sys
from pathlib import Path
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.recordings.ingest import ingest_recording
with Lakehouse.open(Settings.load()) as lake:
    for path in sorted(Path(sys.argv[1]).iterdir()):
        ingest_recording(lake, path)
    lake.maintenance.run_pending()
"""


def measure(run: Run) -> Section:
    section = Section(
        "Batch ingestion through Dagster",
        f"Recordings of {SECONDS} s, cut from the demo drive, with eleven topics each: seconds from the start of the "
        "program to its end, imports included. A Dagster run records events and metadata for each recording; its "
        "databases are there already. The bare program calls the ingestion function in a loop, one recording at a "
        "time; a run works on two at a time. Both do the same durable work: upload, commit, published metadata, "
        "maintenance. Processor time is that of all threads, and depends less on what else the machine does.",
    )
    number = QUICK_RECORDINGS if run.quick else RECORDINGS
    source = run.directory / "recordings"
    _cut(source, number)
    first = run.directory / "first"
    first.mkdir()
    shutil.copy(min(source.iterdir()), first)
    attempts = count()
    rounds = run.rounds(3)
    found = take_turns(
        {
            "bare": lambda: _bare(source, run.directory / f"bare-{next(attempts)}"),
            "dagster": lambda: _dagster(source, run.directory / f"dagster-{next(attempts)}"),
            "bare, one": lambda: _bare(first, run.directory / f"bare-{next(attempts)}"),
            "dagster, one": lambda: _dagster(first, run.directory / f"dagster-{next(attempts)}"),
        },
        rounds,
        run.step("Batch ingestion", rounds, 4),
        warm_ups=0,
    )
    wall = {name: Spread.of(each.seconds for each in values) for name, values in found.items()}
    processor = {name: Spread.of(each.processor_s for each in values) for name, values in found.items()}
    share = _each(wall["dagster"], wall["bare"], lambda ours, bare: ours / bare)
    processor_share = _each(processor["dagster"], processor["bare"], lambda ours, bare: ours / bare)
    added = _each(processor["dagster"], processor["bare"], lambda ours, bare: ours - bare)
    start = _each(processor["dagster, one"], processor["bare, one"], lambda ours, bare: ours - bare)
    further = _each(added, start, lambda all_of_them, one: (all_of_them - one) / (number - 1))
    each = {
        side: _each(wall[side], wall[f"{side}, one"], lambda all_of_them, one: (all_of_them - one) / (number - 1))
        for side in ("bare", "dagster")
    }
    section.lines += [
        Line(
            f"One run, {number} recordings",
            wall["dagster"].text(1, "s"),
            f"bare function {wall['bare'].text(1)} s",
            share.text(2),
            f"<= {GOAL}",
            share.median <= GOAL,
        ),
        Line(
            f"One run, {number} recordings, processor time",
            processor["dagster"].text(1, "s"),
            f"bare function {processor['bare'].text(1)} s",
            processor_share.text(2),
        ),
        Line(
            "Each recording after the first",
            _milliseconds(each["dagster"]).text(0, "ms"),
            f"bare function {_milliseconds(each['bare']).text(0)} ms",
            _each(each["dagster"], each["bare"], lambda ours, bare: ours / bare).text(2),
        ),
        Line(
            "One run, one recording: what a run costs before it works",
            wall["dagster, one"].text(1, "s"),
            f"bare function {wall['bare, one'].text(1)} s",
        ),
        Line("Added to a run of one recording, processor time", start.text(1, "s")),
        Line("Added by each further recording, processor time", further.text(3, "s")),
    ]
    return section


@dataclass(frozen=True, slots=True)
class _Effort:
    seconds: float
    processor_s: float


def _each(ours: Spread, others: Spread, of: Callable[[float, float], float]) -> Spread:
    """What `of` makes of both, round by round."""
    return Spread.of(of(own, other) for own, other in zip(ours.values, others.values, strict=True))


def _milliseconds(seconds: Spread) -> Spread:
    return Spread.of(1e3 * value for value in seconds.values)


def _cut(folder: Path, number: int) -> None:
    """The first seconds of the drive, once per recording, each an hour after the one before."""
    folder.mkdir(parents=True)
    with RECORDING.open("rb") as file:
        messages = list(make_reader(file).iter_messages())
    start_ns = min(message.log_time for _, _, message in messages)
    chosen = [item for item in messages if item[2].log_time < start_ns + SECONDS * 1_000_000_000]
    for recording in range(number):
        shift_ns = recording * 3_600 * 1_000_000_000
        with (folder / f"part_{recording:02}.mcap").open("wb") as file:
            writer = Writer(file, compression=CompressionType.ZSTD)
            writer.start(profile="ros2")
            schemas: dict[int, int] = {}
            channels: dict[int, int] = {}
            for schema, channel, message in chosen:
                assert schema is not None
                if schema.id not in schemas:
                    schemas[schema.id] = writer.register_schema(schema.name, schema.encoding, schema.data)
                if channel.id not in channels:
                    channels[channel.id] = writer.register_channel(
                        channel.topic, channel.message_encoding, schemas[schema.id]
                    )
                writer.add_message(
                    channels[channel.id],
                    message.log_time + shift_ns,
                    message.data,
                    message.publish_time + shift_ns,
                    message.sequence,
                )
            writer.finish()


def _bare(source: Path, home: Path) -> _Effort:
    return _effort([sys.executable, "-c", _BARE, str(source)], home)


def _dagster(source: Path, home: Path) -> _Effort:
    """One run of the job that the drop folder's sensor launches, with Dagster's records on disk."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True)
    shutil.copy(PROJECT / "dagster.yaml", dagster_home)
    with dg.DagsterInstance.from_config(str(dagster_home)):
        pass  # makes the databases
    config = home / "run.json"
    locations = [str(path) for path in sorted(source.iterdir())]
    config.write_text(json.dumps({"ops": {"ingestion": {"config": {"recordings": locations}}}}))
    tool = str(Path(sys.executable).with_name("dagster"))
    module = ["-m", "lakehouse.orchestration.definitions", "-j", "ingest_recordings"]
    return _effort([tool, "job", "execute", *module, "-c", str(config)], home, DAGSTER_HOME=str(dagster_home))


def _effort(command: list[str], home: Path, **variables: str) -> _Effort:
    environment = {**os.environ, "LAKEHOUSE_HOME": str(home), "MOSAICOD_DB_URL": "", "MOSAICOD_STORE_ENDPOINT": ""}
    home.mkdir(exist_ok=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), monotonic()
    subprocess.run(command, env=environment | variables, cwd=PROJECT, check=True, capture_output=True)
    seconds, after = monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(home)
    return _Effort(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
