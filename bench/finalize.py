"""session_finalize: whether committing a session stays as cheap as it was when the lake was empty."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic

from bench.client import Client
from bench.gateway_process import GatewayProcess
from bench.history import SmallTopic, make_history, small_topics
from bench.measuring import Spread, interleave, ratio
from bench.report import Line, Section
from bench.runs import Run

TOPICS = 30
SIZES = (10, 100, 1000, 3000)
QUICK_SIZES = (10, 50)
GROWTH_GOAL = 1.5
TOPICS_GOAL = 8


def measure(run: Run) -> Section:
    sizes = QUICK_SIZES if run.quick else SIZES
    section = Section(
        "session_finalize",
        f"Time of the action for a session of {TOPICS} topics, into tables that hold a number of sequences already, "
        "and for a session of one topic. One lake per number, each behind a gateway of its own with maintenance "
        "running; sessions are finalized in turns. Growth is the time against that of the smallest lake in the same "
        "round.",
    )
    kinds = small_topics(TOPICS)
    with ExitStack() as stack:
        lakes = {}
        for size in sizes:
            home = run.directory / f"lake-{size}"
            _fill(run, home, kinds, size)
            gateway = stack.enter_context(GatewayProcess(home))
            lakes[size] = _Lake(stack.enter_context(Client(gateway.port)), kinds)
        rounds = run.rounds(20)
        found = interleave(
            {f"{size}/{topics}": partial(lakes[size].finalize, topics) for size in sizes for topics in (TOPICS, 1)},
            rounds,
            run.step("finalize", rounds + 2, 2 * len(sizes)),
            warm_ups=2,
        )
    section.lines += _lines(sizes, found)
    return section


def _fill(run: Run, home: Path, kinds: Sequence[SmallTopic], size: int) -> None:
    task = run.progress.add_task(f"finalize, making {size:,} sequences", total=size)
    make_history(home, kinds, size, lambda made: run.progress.advance(task, made))


class _Lake:
    """Records sessions through a gateway."""

    def __init__(self, client: Client, kinds: Sequence[SmallTopic]) -> None:
        self._client = client
        self._kinds = kinds
        self._numbers = count()

    def finalize(self, topics: int) -> float:
        """Upload a session and finalize it; milliseconds of the latter."""
        sequence = f"measured-{next(self._numbers)}"
        session = self._client.open_session(sequence)
        for kind in self._kinds[:topics]:
            rows = kind.rows
            locator = f"{sequence}/{kind.path}"
            topic = self._client.create_topic(session, locator, rows.tag, rows.serialization_format)
            self._client.upload(topic, rows.schema, [kind.batch])
        started = monotonic()
        self._client.action("session_finalize", session_uuid=session)
        return 1e3 * (monotonic() - started)


def _lines(sizes: Sequence[int], found: dict[str, Spread]) -> list[Line]:
    smallest, largest = sizes[0], sizes[-1]
    lines = []
    for size in sizes:
        ours, base = found[f"{size}/{TOPICS}"], found[f"{smallest}/{TOPICS}"]
        growth = ratio(ours, base)
        has_goal = size == largest
        lines.append(
            Line(
                f"{TOPICS} topics, {size:,} sequences",
                f"{ours.text(unit='ms')}, p95 {ours.percentile(0.95):,.0f}",
                "" if size == smallest else f"{smallest} sequences: {base.text()} ms",
                "" if size == smallest else growth.text(2),
                f"≤ {GROWTH_GOAL}" if has_goal else "",
                growth.median <= GROWTH_GOAL if has_goal else None,
            )
        )
    for size in sizes:
        ours, single = found[f"{size}/{TOPICS}"], found[f"{size}/1"]
        times = ratio(ours, single)
        lines.append(
            Line(
                f"{TOPICS} topics against one, {size:,} sequences",
                ours.text(unit="ms"),
                f"one topic: {single.text()} ms",
                times.text(2),
                f"≤ {TOPICS_GOAL}",
                times.median <= TOPICS_GOAL,
            )
        )
    return lines
