"""The same analytic questions in Spark, Trino, DuckDB and Polars, each in a process of its own, on the same tables."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

from bench.engine_process import ENGINES
from bench.measuring import Spread, take_turns
from bench.report import Line, Section
from bench.rows import START_NS, RowSource
from bench.runs import Run
from engines.install import ensure
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from tests.postgres_server import fresh_database, postgres_server
from tests.processes import free_port

MB = 1_000_000
SEQUENCES = 8
SEQUENCE_BYTES = 40 * MB
SECOND_NS = 10**9
QUESTIONS = {
    "all rows, by a nested field, joined with metadata": """
        SELECT t.sequence, count(*) AS samples, min(i.acceleration.z) AS least, max(i.acceleration.x) AS most,
               avg(i.angular_velocity.z) AS turning
        FROM mosaico.topics AS t JOIN imu.sensors_imu AS i ON i.sequence = t.sequence
        WHERE i.acceleration.y > 0.01 AND t.ontology_tag = 'IMU'
        GROUP BY t.sequence ORDER BY t.sequence
    """,
    "two seconds of one recording": f"""
        SELECT sequence, count(*) AS samples, max(acceleration.y) AS most, avg(acceleration.z) AS middle
        FROM imu.sensors_imu
        WHERE sequence = 'drive_3'
          AND timestamp_ns >= {START_NS + 5 * SECOND_NS} AND timestamp_ns < {START_NS + 7 * SECOND_NS}
        GROUP BY sequence
    """,
}


def measure(run: Run) -> Section:
    for name in ("spark-jars", "trino"):
        ensure(name)
    with ExitStack() as stack:
        # Java reaches PostgreSQL over TCP only, and nothing else can hold the pointers for all four.
        port = free_port()
        stack.enter_context(postgres_server(port))
        url = stack.enter_context(fresh_database("127.0.0.1", "lake", port))
        settings = Settings.load(home=run.directory / "lake", db_url=url, store_endpoint="")
        rows = _record(run, settings)
        section = Section(
            "SQL engines",
            f"The same statements over {rows:,} rows of an IMU in {SEQUENCES} recordings, on local files, from the "
            "statement to rows in Python; all answers are compared. *First*: asked of an engine that was just started "
            "and has looked at nothing yet; *again*: the same statement in turns with the other engines. DuckDB is "
            "`lakehouse sql`, Polars reads through PyIceberg, Spark and Trino are the nodes that `python -m "
            "engines.spark` and `engines.trino` start. For information: Spark and Trino are made for many machines.",
        )
        environment = {"MOSAICOD_DB_URL": url, "LAKEHOUSE_HOME": str(settings.home)}
        advance = run.step("engines, starting", len(ENGINES))
        processes = {}
        for name in ENGINES:
            processes[name] = stack.enter_context(EngineProcess(name, environment, run.directory / f"{name}.log"))
            advance()
        section.lines.append(_line("start", {name: each.start_s for name, each in processes.items()}, "s", 1))
        for question, statement in QUESTIONS.items():
            section.lines += _lines(run, question, statement, processes)
    return section


class EngineProcess:
    """One engine, for as long as the context lasts.

    Attributes:
        start_s: Seconds until it was ready, Python's start included.
    """

    def __init__(self, name: str, environment: dict[str, str], log: Path) -> None:
        self._log = log
        started = monotonic()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MOSAICOD_", "LAKEHOUSE_"))}
        quiet = {"POLARS_ICEBERG_PLANNER": "pyiceberg"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.engine_process", name],
                env={**inherited, **quiet, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._answer()
        self.start_s = monotonic() - started

    def ask(self, statement: str) -> tuple[float, list[list[Any]]]:
        """Seconds and rows."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["rows"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"an engine ended by itself: {self._log.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _record(run: Run, settings: Settings) -> int:
    """Write the recordings; returns the number of rows."""
    rows = 0
    advance = run.step("engines, writing", SEQUENCES)
    with Lakehouse.open(settings) as lake:
        for number in range(SEQUENCES):
            source = RowSource.imu(number, batch_bytes=4 * MB, pool_bytes=16 * MB)
            sequence = f"drive_{number}"
            lake.sequences.create(sequence, {"vehicle": number})
            session = lake.sessions.create(sequence)
            locator = TopicLocator(sequence, "sensors/imu")
            topic = lake.topics.create(session.uuid, locator, source.serialization_format, source.tag)
            with lake.topics.begin_upload(locator, topic, source.schema) as upload:
                for batch in source.take(run.size(SEQUENCE_BYTES)):
                    upload.write(batch)
                    rows += batch.num_rows
                upload.finish()
            lake.sessions.finalize(session.uuid)
            advance()
    return rows


def _lines(run: Run, question: str, statement: str, processes: dict[str, EngineProcess]) -> list[Line]:
    firsts = {name: process.ask(statement) for name, process in processes.items()}
    _require_equal({name: rows for name, (_, rows) in firsts.items()})
    rounds = run.rounds(3)
    found = take_turns(
        {name: lambda process=process: process.ask(statement) for name, process in processes.items()},  # type: ignore[misc]
        rounds,
        run.step(f"engines, {question}", rounds + 1, len(processes)),
    )
    for answers in zip(*found.values(), strict=True):
        _require_equal({name: rows for name, (_, rows) in zip(found, answers, strict=True)})
    again = {name: Spread.of(1e3 * seconds for seconds, _ in answers) for name, answers in found.items()}
    return [
        _line(f"{question}, first", {name: 1e3 * seconds for name, (seconds, _) in firsts.items()}, "ms", 0),
        Line(
            f"{question}, again",
            f"DuckDB {again['DuckDB'].text(unit='ms')}",
            ", ".join(f"{name} {spread.text()}" for name, spread in again.items() if name != "DuckDB") + " ms",
        ),
    ]


def _line(what: str, values: dict[str, float], unit: str, digits: int) -> Line:
    own, *others = (f"{name} {value:,.{digits}f}" for name, value in values.items())
    return Line(what, f"{own} {unit}", f"{', '.join(others)} {unit}")


def _require_equal(answers: dict[str, list[list[Any]]]) -> None:
    """Sums are taken in another order by each engine: numbers with a fraction may differ in the last digits."""
    for (one, found), (other, expected) in pairwise(answers.items()):
        if not found or len(found) != len(expected) or not all(map(_are_equal, found, expected)):
            raise AssertionError(f"{one} and {other} do not agree: {found[:3]}, {expected[:3]}")


def _are_equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) if isinstance(a, float) else a == b
        for a, b in zip(one, other, strict=True)
    )
