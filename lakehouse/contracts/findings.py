"""What judging found out, per topic and rule: counts, time ranges, samples, and the verdict."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from lakehouse import __version__
from lakehouse.catalog.errors import shorten
from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.model import NO_TOLERANCE, Kind, RuleSpec, Severity

MAX_RANGES = 20
MAX_SAMPLES = 5


class Verdict(StrEnum):
    """What became of a rule, from best to worst."""

    PASSED = "passed"
    NOTED = "noted"
    WARNED = "warned"
    FAILED = "failed"


_BROKEN = {Severity.INFO: Verdict.NOTED, Severity.WARNING: Verdict.WARNED, Severity.ERROR: Verdict.FAILED}
_ORDER = tuple(Verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several; of none, passed."""
    return max(verdicts, key=_ORDER.index, default=Verdict.PASSED)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Neighbouring failing rows, or the pause before one.

    Attributes:
        start_ns, end_ns: First and last time, both included.
        rows: Number of failing rows.
    """

    start_ns: int
    end_ns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One failing row in words."""

    at_ns: int
    text: str


@dataclass(frozen=True)
class Finding:
    """The result of one rule on one topic, or on a sequence as a whole.

    Attributes:
        topic: Locator; None for a rule about the sequence.
        session: Locator of the session that wrote the topic; None for a rule about the sequence.
        expected, observed: In words.
        rows_checked, rows_failed: Rows the rule had something to say about; 1 for what is about the topic as a whole.
        ranges: The first `MAX_RANGES`, in time order.
        range_count: How many there are.
        first_ns, last_ns: Of all failing rows; None without any.
    """

    sequence: str
    session: str | None
    topic: str | None
    topic_uuid: str | None
    ontology_tag: str | None
    rule: RuleSpec
    kind: Kind
    verdict: Verdict
    expected: str
    observed: str
    rows_checked: int
    rows_failed: int
    ranges: tuple[TimeRange, ...] = ()
    range_count: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def subject(self) -> str:
        return self.topic or self.sequence

    def snippet(self) -> str | None:
        """Python that jumps to the first failing moment with the SDK; None if there is no such moment."""
        if not self.ranges or self.topic is None:
            return None
        found = self.ranges[0]
        path = self.topic.removeprefix(f"{self.sequence}/")
        return stream_snippet(self.sequence, path, found.start_ns, found.end_ns)


def stream_snippet(sequence: str, path: str, start_ns: int, end_ns: int) -> str:
    """Python that streams a moment of a topic, both ends included, with the SDK."""
    # The end is excluded there.
    return (
        f"client.topic_handler({sequence!r}, {path!r}).get_data_streamer("
        f"start_timestamp_ns={start_ns}, end_timestamp_ns={end_ns + 1})"
    )


def broken_verdict(rule: RuleSpec) -> Verdict:
    return _BROKEN[rule.severity]


READABLE = "readable"


def unreadable_topic(topic: TopicRecord, reason: str) -> Finding:
    """The only result about a topic whose rows cannot be read: that it fails."""
    rule = RuleSpec(
        READABLE, READABLE, (), {}, Severity.ERROR, "availability", "", NO_TOLERANCE, "lakehouse", __version__, None
    )
    return Finding(
        sequence=topic.locator.sequence,
        session=str(topic.session_locator),
        topic=str(topic.locator),
        topic_uuid=topic.uuid,
        ontology_tag=topic.ontology_tag,
        rule=rule,
        kind=Kind.SCHEMA,
        verdict=Verdict.FAILED,
        expected="rows that can be read",
        observed=shorten(f"could not be read: {reason}", 500),
        rows_checked=topic.row_count,
        rows_failed=topic.row_count,
    )


@dataclass
class Tally:
    """Collects what one rule found in the blocks of one topic.

    Attributes:
        spans_previous: Whether a failing row stands for the time since the row before.
        describe: A failing value in words.
    """

    spans_previous: bool
    describe: Callable[[str, Any], str]
    checked: int = 0
    failed: int = 0
    complaint: str | None = None
    range_count: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    ranges: list[TimeRange] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    _last_row: int = -2

    def add(
        self,
        failing: npt.NDArray[np.int64],
        first_row: int,
        times: npt.NDArray[np.int64],
        previous_ns: npt.NDArray[np.int64],
    ) -> None:
        """Add failing rows of the next block, given by their places in it."""
        if not len(failing):
            return
        self.failed += len(failing)
        starts_ns = (previous_ns if self.spans_previous else times)[failing]
        ends_ns = times[failing]
        if self.first_ns is None:
            self.first_ns = int(starts_ns[0])
        self.last_ns = int(ends_ns[-1])
        breaks = np.flatnonzero(np.diff(failing) > 1) + 1
        firsts = np.concatenate([[0], breaks])
        lasts = np.concatenate([breaks - 1, [len(failing) - 1]])
        counts = lasts - firsts + 1
        begin = 0
        if first_row + failing[0] == self._last_row + 1 and self.range_count:
            begin = 1
            if self.range_count <= MAX_RANGES:
                open_range = self.ranges[-1]
                self.ranges[-1] = TimeRange(
                    open_range.start_ns, int(ends_ns[lasts[0]]), open_range.rows + int(counts[0])
                )
        self.range_count += len(firsts) - begin
        for number in range(begin, min(len(firsts), begin + MAX_RANGES - len(self.ranges))):
            first, last = firsts[number], lasts[number]
            self.ranges.append(TimeRange(int(starts_ns[first]), int(ends_ns[last]), int(counts[number])))
        self._last_row = first_row + int(failing[-1])

    @property
    def samples_wanted(self) -> int:
        return MAX_SAMPLES - len(self.samples)

    def sample(self, at_ns: int, column: str, value: Any) -> None:
        if self.samples_wanted:
            self.samples.append(Sample(at_ns, self.describe(column, value)))
