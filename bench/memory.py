"""Memory of the gateway while topics larger than any buffer pass through it."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.client import Client, Transfer
from bench.gateway_process import GatewayProcess
from bench.report import Line, Section
from bench.rows import MIB, RowSource
from bench.runs import Run
from bench.transfers import create_topic, download, upload
from bench.workers import Workers
from lakehouse.catalog.settings import Settings

CONCURRENT = 8
TOPIC_SIZE = 4096 * MIB
WARM_UP_SIZE = 64 * MIB


def measure(run: Run) -> Section:
    chunk = Settings.model_fields["max_chunk_size"].default
    section = Section(
        "Memory of the gateway",
        "Peak resident memory while rows pass through, above what the gateway holds after a first small upload and "
        "read. "
        f"The bound is one chunk target ({chunk / MIB:.0f} MiB by default) per open upload.",
    )
    size = run.size(TOPIC_SIZE)
    with GatewayProcess(run.directory / "lake") as lake, Workers(CONCURRENT, RowSource.imu) as workers:
        bench = _Bench(lake, workers, run)
        bench.upload("warm-up", 1, WARM_UP_SIZE)
        bench.read("warm-up")
        base = lake.resident_bytes()
        section.lines.append(Line("After a first small upload and read (base)", f"{base / MIB:,.0f} MiB"))
        for name, uploads, work in (
            (f"Upload of {size / 1e9:.1f} GB", 1, lambda: bench.upload("large", 1, size)),
            (f"Read of {size / 1e9:.1f} GB", 1, lambda: bench.read("large")),
            (
                f"{CONCURRENT} uploads at once, {size / 1e9:.1f} GB in all",
                CONCURRENT,
                lambda: bench.upload("many", CONCURRENT, size // CONCURRENT),
            ),
        ):
            found = bench.observe(name, work)
            section.lines.append(_line(name, found, base, uploads, chunk))
    return section


@dataclass(frozen=True, slots=True)
class _Observed:
    """Resident bytes before and at the peak."""

    before: int
    peak: int


class _Bench:
    def __init__(self, lake: GatewayProcess, workers: Workers, run: Run) -> None:
        self._lake = lake
        self._workers = workers
        self._run = run

    def observe(self, name: str, work: Callable[[], object]) -> _Observed:
        advance = self._run.step(f"Memory, {name}", 1)
        before = self._lake.resident_bytes()
        self._lake.forget_peak()
        work()
        advance()
        return _Observed(before, self._lake.peak_resident_bytes())

    def upload(self, sequence: str, topics: int, size: int) -> None:
        with Client(self._lake.port) as client:
            session = client.open_session(sequence)
            handles = [
                self._workers.run(create_topic, (self._lake.port, session, f"{sequence}/sensor/{number}"))[0]
                for number in range(topics)
            ]
            self._workers.run(upload, *((self._lake.port, handle, size) for handle in handles))
            client.action("session_finalize", session_uuid=session)

    def read(self, sequence: str) -> Transfer:
        return self._workers.run(download, (self._lake.port, f"{sequence}/sensor/0"))[0]


def _line(name: str, found: _Observed, base: int, uploads: int, chunk: int) -> Line:
    above = max(0, found.peak - base)
    bound = uploads * chunk
    return Line(
        name,
        f"peak {found.peak / MIB:,.0f} MiB, {above / MIB:,.0f} above base",
        f"{uploads} × chunk target = {bound / MIB:,.0f} MiB",
        f"{above / bound:.2f}",
        "≤ 1",
        above <= bound,
    )
