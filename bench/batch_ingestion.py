"""What Dagster adds to the ingestion of a batch: a whole run against a loop over the bare function.

Both sides are programs of their own, from start to end, imports included: that is what an operator waits for.
"""

import json
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from time import monotonic

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from bench.measuring import Spread, interleave
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
        "program to its end. A Dagster run records events and metadata for each recording, and asks the gate; "
        "the bare program calls the ingestion function in a loop.",
    )
    number = QUICK_RECORDINGS if run.quick else RECORDINGS
    source = run.directory / "recordings"
    _cut(source, number)
    attempts = count()
    rounds = run.rounds(3)
    found = interleave(
        {
            "bare": lambda: _bare(source, run.directory / f"bare-{next(attempts)}"),
            "dagster": lambda: _dagster(source, run.directory / f"dagster-{next(attempts)}"),
        },
        rounds,
        run.step("Batch ingestion", rounds, 2),
        warm_ups=0,
    )
    share = Spread.of(ours / bare for ours, bare in zip(found["dagster"].values, found["bare"].values, strict=True))
    per_recording = Spread.of(
        (ours - bare) / number for ours, bare in zip(found["dagster"].values, found["bare"].values, strict=True)
    )
    section.lines += [
        Line(
            f"One run, {number} recordings",
            found["dagster"].text(1, "s"),
            f"bare function {found['bare'].text(1)} s",
            share.text(2),
            f"<= {GOAL}",
            share.median <= GOAL,
        ),
        Line("Added per recording, the run's start included", per_recording.text(3, "s")),
    ]
    return section


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


def _bare(source: Path, home: Path) -> float:
    return _seconds([sys.executable, "-c", _BARE, str(source)], home)


def _dagster(source: Path, home: Path) -> float:
    """One run of the job that the drop folder's sensor launches, with Dagster's records on disk."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True)
    shutil.copy(PROJECT / "dagster.yaml", dagster_home)
    config = home / "run.json"
    locations = [str(path) for path in sorted(source.iterdir())]
    config.write_text(json.dumps({"ops": {"ingestion": {"config": {"recordings": locations}}}}))
    tool = str(Path(sys.executable).with_name("dagster"))
    module = ["-m", "lakehouse.orchestration.definitions", "-j", "ingest_recordings"]
    return _seconds([tool, "job", "execute", *module, "-c", str(config)], home, DAGSTER_HOME=str(dagster_home))


def _seconds(command: list[str], home: Path, **variables: str) -> float:
    environment = {**os.environ, "LAKEHOUSE_HOME": str(home), "MOSAICOD_DB_URL": "", "MOSAICOD_STORE_ENDPOINT": ""}
    home.mkdir(exist_ok=True)
    started = monotonic()
    subprocess.run(command, env=environment | variables, cwd=PROJECT, check=True, capture_output=True)
    seconds = monotonic() - started
    shutil.rmtree(home)
    return seconds
