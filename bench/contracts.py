"""Data contracts: an hour and a half of IMU rows judged, and what one more session adds to a run."""

import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa

from bench.measuring import Spread, interleave, ratio
from bench.report import Line, Section
from bench.runs import Run
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.blocks import read_blocks
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.judging import Judge
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import ValidationReport, Validator
from lakehouse.ontology.registry import model_arrow_schema

ROWS = 1_000_000
SMALL_ROWS = 2_000
SMALL_SESSIONS = 40
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 5_000_000


def measure(run: Run) -> Section:
    section = Section(
        "Data contracts",
        "IMU rows judged by the shipped contracts (14 rules), in a process that has loaded Great Expectations, from "
        "table to verdicts. Compared with *by hand*: the same rows read the same way, the same rules written as Polars "
        "expressions over the whole topic, which gives counts but neither places nor samples; both find the same "
        "numbers of failing rows. Reading is most of both. Then what one more session of a known kind adds to a run, "
        "beside what a run costs before its first verdict: loading Great Expectations. For information.",
    )
    rows = run.size(ROWS)
    with Lakehouse.open(Settings.load(home=run.directory / "lake", db_url="", store_endpoint="")) as lake:
        _record(lake, "long", rows)
        for number in range(SMALL_SESSIONS):
            _record(lake, f"short-{number:02}", SMALL_ROWS)
        started = time.monotonic()
        assert "great_expectations" not in sys.modules
        judge = Judge()
        validator = Validator(lake, ContractLibrary.load(None), judge)
        _validate(lake, validator, "short-00")
        loading_s = time.monotonic() - started
        _compare(lake, validator)
        rounds = run.rounds(5)
        ours, by_hand = (lambda: _validate(lake, validator, "long")), (lambda: _by_hand(lake))
        measurements: dict[str, Callable[[], float]] = {
            "ours": lambda: rows / _seconds(ours),
            "by hand": lambda: rows / _seconds(by_hand),
            "ours, processor": lambda: rows / _processor_seconds(ours),
            "by hand, processor": lambda: rows / _processor_seconds(by_hand),
        }
        found = interleave(measurements, rounds, run.step("Contracts", rounds + 1, len(measurements)))
        for suffix, unit in (("", "rows/s"), (", processor", "rows/s of processor time")):
            mine, theirs = found[f"ours{suffix}"], found[f"by hand{suffix}"]
            section.lines.append(
                Line(
                    f"IMU rows, {rows:,}{suffix and ', processor time'}",
                    mine.text(unit=unit),
                    f"by hand {theirs.text()} {unit}",
                    ratio(mine, theirs).text(2),
                )
            )
        one, all_of_them = (
            (lambda: _validate(lake, validator, "short-00")),
            (lambda: _validate(lake, validator, "short-*")),
        )
        sessions: dict[str, Callable[[], float]] = {
            "one": lambda: _seconds(one),
            "all": lambda: _seconds(all_of_them),
            "one, processor": lambda: _processor_seconds(one),
            "all, processor": lambda: _processor_seconds(all_of_them),
        }
        taken = interleave(sessions, rounds, run.step("One more session", rounds + 1, len(sessions)))
    added_ms, added_cpu_ms = (_added_ms(taken[f"one{kind}"], taken[f"all{kind}"]) for kind in ("", ", processor"))
    section.lines.append(
        Line(
            f"One more session of {SMALL_ROWS:,} rows in a run",
            f"{added_ms.text(1, 'ms')}; {added_cpu_ms.text(1, 'ms')} of processor time",
            f"a run of one session {1e3 * taken['one'].median:,.0f} ms, loading {loading_s:,.1f} s",
            f"1 : {1e3 * loading_s / added_ms.median:,.0f}",
        )
    )
    return section


def _added_ms(one: Spread, many: Spread) -> Spread:
    pairs = zip(one.values, many.values, strict=True)
    return Spread.of(1e3 * (all_s - one_s) / (SMALL_SESSIONS - 1) for one_s, all_s in pairs)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _validate(lake: Lakehouse, validator: Validator, sequences: str) -> ValidationReport:
    return validator.validate(select_subjects(lake, sequences))


def _compare(lake: Lakehouse, validator: Validator) -> None:
    """Whether both find the same rows."""
    failed = {finding.rule.id: finding.rows_failed for finding in _validate(lake, validator, "long").findings}
    by_hand = _by_hand(lake)
    differences = {rule: (failed[rule], count) for rule, count in by_hand.items() if failed[rule] != count}
    if differences:
        raise AssertionError(f"the judge and the rules by hand disagree: {differences}")


def _by_hand(lake: Lakehouse) -> dict[str, int]:
    """Failing rows of the rules that have any say on these rows."""
    frame = pl.concat(read_blocks(lake, lake.topics.get(TopicLocator("long", "imu"))))
    first = pl.col("timestamp_ns").head(65_536).diff().median()
    steps = pl.col("timestamp_ns").diff() / first
    axes = [pl.col("acceleration").struct.field(axis) for axis in "xyz"]
    changes = pl.any_horizontal([axis.ne_missing(axis.shift()) for axis in axes])
    since = pl.when(changes).then("timestamp_ns").forward_fill()
    turn = [pl.col("angular_velocity").struct.field(axis) for axis in "xyz"]
    unit = [pl.col("orientation").struct.field(part) for part in "xyzw"]
    length, turning, norm = (pl.sum_horizontal([p**2 for p in parts]).sqrt() for parts in (axes, turn, unit))
    required = pl.any_horizontal([part.is_null() for part in (*axes, *turn)])
    orientation = pl.any_horizontal([part.is_null() for part in unit]) & pl.col("orientation").is_not_null()
    return frame.select(
        gaps=(steps > 10).sum(),
        jitter=((steps <= 10) & ((steps - 1).abs() > 0.5)).sum(),
        acceleration_magnitude=((length > 408) | length.is_nan()).sum(),
        acceleration_frozen=((pl.col("timestamp_ns") - since) > 2_000_000_000).sum(),
        angular_velocity_magnitude=((turning > 60.5) | turning.is_nan()).sum(),
        orientation_norm=((norm - 1).abs() > 0.01).sum(),
        required=(required | orientation).sum(),
        acceleration_covariance=pl.col("acceleration").struct.field("covariance").is_not_null().sum(),
        header_time=pl.col("header").struct.field("timestamp").is_not_null().sum(),
    ).row(0, named=True)


def _record(lake: Lakehouse, sequence: str, rows: int) -> None:
    lake.sequences.create(sequence, {})
    session = lake.sessions.create(sequence)
    locator = TopicLocator(sequence, "imu")
    topic = lake.topics.create(session.uuid, locator, "default", "IMU")
    table = _imu(rows)
    with lake.topics.begin_upload(locator, topic, table.schema) as upload:
        for batch in table.to_batches(max_chunksize=8192):
            upload.write(batch)
        upload.finish()
    lake.sessions.finalize(session.uuid)


def _imu(rows: int) -> pa.Table:
    """A living sensor that hits its limits now and then."""
    random = np.random.default_rng(1)
    schema = model_arrow_schema("IMU")
    times = START_NS + np.arange(rows) * PERIOD_NS + random.integers(0, 100_000, rows)
    times[rows // 2 :] += 1_000_000_000
    ones, zeros = np.ones(rows), np.zeros(rows)
    ones[:: rows // 100] = 0.5
    shock = random.normal(0, 0.1, rows)
    shock[:: rows // 50] = 500
    parts = {
        "acceleration": {"x": shock, "y": random.normal(0, 0.1, rows), "z": random.normal(9.81, 0.1, rows)},
        "angular_velocity": {axis: random.normal(0, 0.01, rows) for axis in "xyz"},
        "orientation": {"x": zeros, "y": zeros, "z": zeros, "w": ones},
    }
    columns = []
    for field in schema:
        if field.name == "timestamp_ns":
            columns.append(pa.array(times))
        elif field.name in parts:
            inner = [
                pa.array(parts[field.name][child.name])
                if child.name in parts[field.name]
                else pa.nulls(rows, child.type)
                for child in field.type
            ]
            columns.append(pa.StructArray.from_arrays(inner, fields=list(field.type)))
        else:
            columns.append(pa.nulls(rows, field.type))
    return pa.table(columns, schema=schema)
