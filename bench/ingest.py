"""Ingestion of the demo recording, against the official SDK's own bridge. For information: there is no goal yet."""

import importlib.util
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic

from bench.gateway_process import HOST, GatewayProcess
from bench.measuring import interleave, ratio
from bench.report import Line, Section
from bench.runs import Run
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.recordings.ingest import ingest_recording

RECORDING = Path(__file__).parent.parent / "demo" / "recordings" / "city_drive.mcap"


def measure(run: Run) -> Section:
    section = Section(
        "Ingestion",
        "Messages of the demo recording per second, from the file to a finalized session, in a process that has "
        "imported everything. Compared with the official SDK's own bridge, which sends them to this gateway. For "
        "information.",
    )
    has_bridge = importlib.util.find_spec("mosaicolabs") is not None
    spawn = multiprocessing.get_context("spawn")
    with (
        GatewayProcess(run.directory / "lake") as lake,
        ProcessPoolExecutor(1, mp_context=spawn) as ours,
        ProcessPoolExecutor(1, mp_context=spawn) as bridge,
    ):
        numbers = count()
        messages = ours.submit(_ingest, run.directory / "count")
        total = messages.result()[0]

        def speed(pool: ProcessPoolExecutor, work: Callable[[], tuple[int, float]]) -> float:
            return total / pool.submit(work).result()[1]

        measurements = {"ours": lambda: speed(ours, partial(_ingest, run.directory / f"own-{next(numbers)}"))}
        if has_bridge:
            measurements["bridge"] = lambda: speed(bridge, partial(_inject, lake.port, f"bridged-{next(numbers)}"))
        rounds = run.rounds(5)
        found = interleave(measurements, rounds, run.step("Ingestion", rounds + 1, len(measurements)))
    line = Line(f"Demo recording, {total:,} messages", found["ours"].text(unit="messages/s"))
    if has_bridge:
        reached = ratio(found["ours"], found["bridge"])
        line = Line(line.what, line.ours, f"SDK bridge {found['bridge'].text()} messages/s", reached.text(1))
    section.lines.append(line)
    return section


def _ingest(home: Path) -> tuple[int, float]:
    """Messages taken and seconds, in a lake of its own."""
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as lake:
        started = monotonic()
        report = ingest_recording(lake, RECORDING)
        seconds = monotonic() - started
    shutil.rmtree(home)
    return report.rows, seconds


def _inject(port: int, sequence: str) -> tuple[int, float]:
    """The same by the bridge; it does not tell how many messages it took."""
    # Optional, and seconds to import.
    from mosaicolabs.bridges.ros import RosbagInjector, ROSInjectionConfig

    config = ROSInjectionConfig(
        file_path=RECORDING, sequence_name=sequence, host=HOST, port=port, log_level="ERROR", metadata={}
    )
    started = monotonic()
    RosbagInjector(config).run()
    return 0, monotonic() - started
