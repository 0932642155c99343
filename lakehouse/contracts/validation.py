"""Validating sequences and sessions: rows are read once, in blocks, whatever the number of rules.

Results come some sequences at a time, so that a run over a whole lake holds the findings of a few, and what has been
judged when it ends early is not lost.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse.catalog.errors import (
    DamagedDataError,
    LakehouseError,
    MissingFileError,
    NotFoundError,
    StorageError,
    Transient,
)
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import TopicRecord, TopicState
from lakehouse.contracts.binding import BoundTopic
from lakehouse.contracts.blocks import read_blocks
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Finding, Verdict, unreadable_topic, worst
from lakehouse.contracts.judging import Judge, Measure, PlainJudge
from lakehouse.contracts.piles import Piles
from lakehouse.contracts.resolution import contract_of_sequence, contract_of_topic
from lakehouse.contracts.rules.sequences import SequenceFacts
from lakehouse.contracts.whole_sequences import BoundSequence

# Whatever is reached first ends a part of a run. A part costs one judgement and, where it is recorded, one commit.
SEQUENCES_AT_ONCE = 20
SECONDS_AT_ONCE = 30.0


@dataclass(frozen=True)
class Subject:
    """What to validate of one sequence.

    Attributes:
        topics: Whose rows are judged.
        all_topics: What rules about the sequence as a whole look at; None: these rules are left out.
        user_metadata: Of the sequence.
    """

    sequence: str
    topics: Sequence[TopicRecord]
    all_topics: Sequence[TopicRecord] | None = None
    user_metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class ValidationReport:
    """What a run, or a part of it, found.

    Attributes:
        findings: One per topic and rule, and per sequence and rule about it.
        without_contract: Locators of topics no contract applies to.
        unreadable: Why rows could not be read, by locator of the topic; each is a finding too.
        not_judged: The same where that may pass: it says nothing about the rows, and is no finding.
        problems: Contract files that were not used.
        subjects: What was looked at, without sequences that were deleted meanwhile.
        rows: Rows read.
        seconds: How long it took.
    """

    run_id: str = ""
    checked_at_ns: int = 0
    findings: list[Finding] = field(default_factory=list)
    without_contract: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    not_judged: dict[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    subjects: list[Subject] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0

    @property
    def sequences(self) -> list[str]:
        return [subject.sequence for subject in self.subjects]

    @property
    def verdict(self) -> Verdict:
        return worst(finding.verdict for finding in self.findings)

    def of_sequence(self, sequence: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.sequence == sequence]

    def add(self, part: "ValidationReport") -> None:
        """Take in another part of the run."""
        self.findings += part.findings
        self.without_contract += part.without_contract
        self.unreadable |= part.unreadable
        self.not_judged |= part.not_judged
        self.subjects += part.subjects
        self.rows += part.rows
        self.seconds += part.seconds


@dataclass
class _Pending:
    """A subject whose rows were read and whose verdicts are still out."""

    subject: Subject
    topics: list[BoundTopic] = field(default_factory=list)
    sequence: BoundSequence | None = None
    unreadable: list[Finding] = field(default_factory=list)

    def measures(self) -> list[list[Measure]]:
        found = [measures for bound in self.topics for measures in bound.measures()]
        return found + (self.sequence.measures() if self.sequence else [])

    def findings(self, broken: Iterator[bool]) -> Iterator[Finding]:
        yield from self.unreadable
        for bound in self.topics:
            yield from bound.findings([next(broken) for _ in bound.judged()])
        if self.sequence is not None:
            yield from self.sequence.findings(broken)


class Validator:
    """Validates against the contracts of a library.

    Args:
        lake: Where the rows are.
        library: The contracts.
        judge: Kept between runs of a process, as loading Great Expectations is dear.
        judges_all: Whether rows that cannot be read for now end the run, instead of being left out of it.
    """

    def __init__(
        self,
        lake: Lakehouse,
        library: ContractLibrary,
        judge: PlainJudge | None = None,
        *,
        judges_all: bool = False,
    ) -> None:
        self._lake = lake
        self._judges_all = judges_all
        self._library = library
        self._judge = judge or Judge()

    def validate(self, subjects: Iterable[Subject], run_id: str | None = None) -> ValidationReport:
        """Judge everything about the subjects, and keep all findings; see `parts`."""
        whole = ValidationReport(run_id or str(uuid.uuid4()), time.time_ns(), problems=self._library.problems)
        for part in self.parts(subjects, whole.run_id):
            whole.add(part)
        return whole

    def parts(
        self,
        subjects: Iterable[Subject],
        run_id: str | None = None,
        progress: Callable[[str], None] = lambda _locator: None,
    ) -> Iterator[ValidationReport]:
        """Judge everything about the subjects, some sequences at a time. Nothing is recorded; see `results.record`.

        A topic whose rows are damaged or gone fails; one that cannot be read for now is not judged; all others are.
        What is deleted meanwhile is passed over.

        Args:
            subjects: Sequences with the topics to look at.
            run_id: Names the run in the results; None: a new one.
            progress: Called with the locator of each topic before it is read.

        Raises:
            StorageError: If the database cannot be read; or rows, where all are to be judged.
        """
        run_id, checked_at_ns = run_id or str(uuid.uuid4()), time.time_ns()
        report = ValidationReport(run_id, checked_at_ns, problems=self._library.problems)
        pending: list[_Pending] = []
        piles = Piles(self._judge)
        started = time.monotonic()
        for subject in subjects:
            found = self._look_at(subject, piles, report, progress)
            if found is not None:
                pending.append(found)
                report.subjects.append(subject)
            report.seconds = time.monotonic() - started
            if len(pending) >= SEQUENCES_AT_ONCE or report.seconds > SECONDS_AT_ONCE:
                yield self._judged(report, pending, piles, started)
                report = ValidationReport(run_id, checked_at_ns, problems=self._library.problems)
                pending, started = [], time.monotonic()
        if pending:
            yield self._judged(report, pending, piles, started)

    def _judged(
        self, report: ValidationReport, pending: list[_Pending], piles: Piles, started: float
    ) -> ValidationReport:
        piles.flush()
        outcomes = [measures for each in pending for measures in each.measures()]
        broken = iter(self._judge.broken(outcomes))
        for each in pending:
            report.findings += each.findings(broken)
        report.seconds = time.monotonic() - started
        return report

    def _look_at(
        self, subject: Subject, piles: Piles, report: ValidationReport, progress: Callable[[str], None]
    ) -> _Pending | None:
        """Have the rows of a subject read; None if it was deleted meanwhile."""
        found = _Pending(subject)
        if subject.all_topics is not None:
            contract = contract_of_sequence(self._library.contracts, subject.sequence)
            facts = SequenceFacts(_finalized(subject.all_topics), subject.user_metadata)
            found.sequence = BoundSequence(subject.sequence, contract, facts)
        judged = {topic.id for topic in subject.topics}
        for topic in subject.topics if subject.all_topics is None else subject.all_topics:
            progress(str(topic.locator))
            try:
                self._read(topic, topic.id in judged, found, piles, report)
            except NotFoundError:
                if self._is_gone(subject.sequence):
                    return None
                # Only this topic was deleted: nothing is said about it.
        return found

    def _read(
        self, topic: TopicRecord, is_judged: bool, found: _Pending, piles: Piles, report: ValidationReport
    ) -> None:
        """Read the rows of a topic once, for all rules.

        Raises:
            NotFoundError: If it was deleted meanwhile.
            StorageError: If its rows cannot be read for now, where all are to be judged.
        """
        if topic.state is not TopicState.FINALIZED or topic.arrow_schema is None:
            return
        bound: BoundTopic | None = None
        if is_judged:
            contract = contract_of_topic(self._library.contracts, topic)
            if contract.is_empty:
                report.without_contract.append(str(topic.locator))
            else:
                bound = BoundTopic(topic, contract, defers=self._judge.defers)
        watching = found.sequence.watching(topic) if found.sequence else []
        if bound is None and not watching:
            return
        try:
            for frame in read_blocks(self._lake, topic):
                report.rows += len(frame)
                if bound is not None and (piece := bound.observe(frame)) is not None:
                    piles.add(piece)
                for rule in watching:
                    rule.observe(frame)
        except NotFoundError:
            raise
        except LakehouseError as error:
            if self._may_pass(error):
                if self._judges_all:
                    raise
                report.not_judged[str(topic.locator)] = error.message
                for rule in watching:
                    rule.leave_out()
                return
            report.unreadable[str(topic.locator)] = error.message
            found.unreadable.append(unreadable_topic(topic, error.message))
            for rule in watching:
                rule.give_up(f"{topic.locator} could not be read: {error.message}")
            return
        if bound is not None:
            bound.finish()
            found.topics.append(bound)

    def _may_pass(self, error: LakehouseError) -> bool:
        """Whether an error tells of the storage at this moment, and not of the rows."""
        if isinstance(error, DamagedDataError):
            return False
        if isinstance(error, MissingFileError) and not self._judges_all:
            # Without the warehouse every file is missing.
            try:
                self._lake.warehouse.check_reachable()
            except StorageError:
                return True
            return False
        return isinstance(error, Transient)

    def _is_gone(self, sequence: str) -> bool:
        try:
            self._lake.sequences.get(sequence)
        except NotFoundError:
            return True
        return False


def _finalized(topics: Sequence[TopicRecord]) -> list[TopicRecord]:
    return [topic for topic in topics if topic.state is TopicState.FINALIZED]
