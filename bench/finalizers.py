"""Many sessions finalized at once: SQLite against PostgreSQL, in one process and in several."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from bench.measuring import Spread, ratio, take_turns
from bench.report import Line, Section
from bench.rows import RowSource
from bench.runs import Run
from bench.workers import Workers
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from tests.postgres_server import fresh_database, postgres_server

TOPICS = 10
FINALIZERS = (1, 4, 16)
SESSIONS = 32
# Of these also processes whose topics are their own, so that they share only the tables of the catalog's metadata.
APART = 4
DATABASES = ("SQLite", "PostgreSQL")
_numbers = count()


def measure(run: Run) -> Section:
    section = Section(
        "Concurrent finalizers",
        f"Sessions of {TOPICS} topics, all into the same tables, finalized one after another by each of 1, 4 and 16 "
        "finalizers that start at once: processes of their own, as many gateways would be, or threads of one process, "
        "as the clients of one gateway are; four processes also *apart*, each with topics of its own. PostgreSQL waits "
        "for the disk as SQLite does. The time is of one call; *in vain* are commits that were staged again because "
        "another process had been faster.",
    )
    finalizers = FINALIZERS[:2] if run.quick else FINALIZERS
    with ExitStack() as stack:
        host = stack.enter_context(postgres_server(is_durable=True))
        urls = {"SQLite": "", "PostgreSQL": stack.enter_context(fresh_database(host, "bench"))}
        workers = stack.enter_context(Workers(max(finalizers), _rows))
        ways = {
            f"{database}/{number}/{kind}": partial(_finalize, run, workers, database, urls[database], number, kind)
            for database in DATABASES
            for number in finalizers
            for kind in _kinds(number)
        }
        rounds = run.rounds(3)
        found = take_turns(ways, rounds, run.step("finalizers", rounds, len(ways)), warm_ups=0)
        workers.run(_close, *[()] * max(finalizers))
    for number in finalizers:
        for kind in _kinds(number):
            section.lines += _lines(found, number, kind)
    return section


def _kinds(finalizers: int) -> list[str]:
    if finalizers == 1:
        return ["processes"]
    return ["processes", *(["processes apart"] if finalizers == APART else []), "threads"]


@dataclass(frozen=True, slots=True)
class _Finalized:
    """What finalizers did at the same time.

    Attributes:
        seconds: From the first call to the last answer.
        latencies_ms: Of each call.
        in_vain: Commits staged again.
    """

    seconds: float
    latencies_ms: tuple[float, ...]
    in_vain: int

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds


def _finalize(run: Run, workers: Workers, database: str, url: str, finalizers: int, kind: str) -> _Finalized:
    place = (str(run.directory / database), url)
    sessions = max(1, (SESSIONS // 4 if run.quick else SESSIONS) // finalizers)
    processes, threads = (1, finalizers) if kind == "threads" else (finalizers, 1)
    sensors = [f"sensors_{number}" if kind == "processes apart" else "sensors" for number in range(processes)]
    names = [[f"sequence-{next(_numbers)}" for _ in range(sessions * threads)] for _ in range(processes)]
    uploaded = workers.run(_upload, *[(*place, *each) for each in zip(names, sensors, strict=True)])
    starts_at = time.monotonic() + 0.5
    done = workers.run(_finalize_all, *[(*place, each, threads, starts_at) for each in uploaded])
    return _Finalized(
        max(each[0] for each in done) - starts_at,
        tuple(latency for each in done for latency in each[1]),
        sum(each[2] for each in done),
    )


_lakes: dict[str, Lakehouse] = {}


def _rows(number: int) -> RowSource:
    return RowSource.imu(number, batch_bytes=20_000, pool_bytes=20_000)


def _lake(home: str, url: str) -> Lakehouse:
    """The lake as this process has opened it."""
    if home not in _lakes:
        _lakes[home] = Lakehouse.open(Settings.load(home=Path(home), db_url=url, store_endpoint=""))
        _lakes[home].maintenance.start()
    return _lakes[home]


def _close(rows: RowSource) -> None:
    for lake in _lakes.values():
        lake.close()


def _upload(rows: RowSource, home: str, url: str, sequences: Sequence[str], sensors: str) -> list[str]:
    """Open sessions with all of their topics, which are below `sensors`; returns their UUIDs."""
    lake = _lake(home, url)
    sessions = []
    for sequence in sequences:
        lake.sequences.create(sequence)
        session = lake.sessions.create(sequence)
        for number in range(TOPICS):
            locator = TopicLocator(sequence, f"{sensors}/number_{number}")
            topic = lake.topics.create(session.uuid, locator, rows.serialization_format, rows.tag)
            with lake.topics.begin_upload(locator, topic, rows.schema) as upload:
                upload.write(rows.batches[0])
                upload.finish()
        sessions.append(session.uuid)
    return sessions


def _finalize_all(
    rows: RowSource, home: str, url: str, sessions: Sequence[str], threads: int, starts_at: float
) -> tuple[float, list[float], int]:
    """When it ended, the time of each call in milliseconds, and commits in vain."""
    lake = _lake(home, url)
    before = lake.activity.counts()["commit_conflicts"]

    def one_after_another(own: Sequence[str]) -> list[float]:
        latencies = []
        for session in own:
            started = time.monotonic()
            lake.sessions.finalize(session)
            latencies.append(1e3 * (time.monotonic() - started))
        return latencies

    with ThreadPoolExecutor(threads) as pool:
        time.sleep(max(0.0, starts_at - time.monotonic()))
        found = list(pool.map(one_after_another, [sessions[number::threads] for number in range(threads)]))
    ended = time.monotonic()
    latencies = [latency for of_thread in found for latency in of_thread]
    return ended, latencies, lake.activity.counts()["commit_conflicts"] - before


def _lines(found: Mapping[str, Sequence[_Finalized]], finalizers: int, kind: str) -> list[Line]:
    of = {database: found[f"{database}/{finalizers}/{kind}"] for database in DATABASES}
    name = "1 finalizer" if finalizers == 1 else f"{finalizers} {kind}"
    speeds = {database: Spread.of(each.per_second for each in rounds) for database, rounds in of.items()}
    times = {database: _times(rounds) for database, rounds in of.items()}
    in_vain = {
        database: sum(each.in_vain for each in rounds) / sum(len(each.latencies_ms) for each in rounds)
        for database, rounds in of.items()
    }
    ours, reference = DATABASES[1], DATABASES[0]
    return [
        Line(
            f"{name}, sessions per second, PostgreSQL",
            speeds[ours].text(1, "/s"),
            f"SQLite {speeds[reference].text(1)} /s",
            ratio(speeds[ours], speeds[reference]).text(2),
        ),
        Line(
            f"{name}, time of one call, PostgreSQL",
            f"{times[ours].text(unit='ms')}, p95 {times[ours].percentile(0.95):,.0f}",
            f"SQLite {times[reference].text()} ms, p95 {times[reference].percentile(0.95):,.0f}",
            f"{times[ours].median / times[reference].median:.2f}",
        ),
        Line(
            f"{name}, commits in vain per session, PostgreSQL",
            f"{in_vain[ours]:.2f}",
            f"SQLite {in_vain[reference]:.2f}",
        ),
    ]


def _times(rounds: Sequence[_Finalized]) -> Spread:
    return Spread.of(latency for each in rounds for latency in each.latencies_ms)
