"""Validating sequences and sessions: rows are read once, in blocks, whatever the number of rules."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import TopicRecord, TopicState
from lakehouse.contracts.binding import BoundTopic
from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Finding, Verdict, broken_verdict, worst
from lakehouse.contracts.judging import Judge, Question
from lakehouse.contracts.library import ContractLibrary
from lakehouse.contracts.model import Kind
from lakehouse.contracts.piles import Piles
from lakehouse.contracts.resolution import contract_of_sequence, contract_of_topic
from lakehouse.contracts.rules.catalogue import SEQUENCE_RULES
from lakehouse.contracts.rules.sequences import Finding as Measured
from lakehouse.contracts.rules.sequences import SequenceRule

BLOCK_ROWS = 65_536
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Subject:
    """What to validate of one sequence.

    Attributes:
        topics: Whose rows are judged.
        all_topics: What rules about the sequence as a whole look at; None: these rules are left out.
    """

    sequence: str
    topics: Sequence[TopicRecord]
    all_topics: Sequence[TopicRecord] | None = None


@dataclass
class ValidationReport:
    """What a run found.

    Attributes:
        findings: One per topic and rule, and per sequence and rule about it.
        without_contract: Locators of topics no contract applies to.
        problems: Contract files that were not used.
        rows: Rows read.
        seconds: How long it took.
    """

    run_id: str = ""
    checked_at_ns: int = 0
    findings: list[Finding] = field(default_factory=list)
    without_contract: list[str] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    sequences: list[str] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        return worst(finding.verdict for finding in self.findings)

    def of_sequence(self, sequence: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.sequence == sequence]


class Validator:
    """Validates against the contracts of a library.

    Args:
        lake: Where the rows are.
        library: The contracts.
        judge: Kept between runs of a process, as loading it is dear.
    """

    def __init__(self, lake: Lakehouse, library: ContractLibrary, judge: Judge | None = None) -> None:
        self._lake = lake
        self._library = library
        self._judge = judge or Judge()

    def validate(
        self,
        subjects: Iterable[Subject],
        run_id: str | None = None,
        progress: Callable[[str], None] = lambda _locator: None,
    ) -> ValidationReport:
        """Judge everything about the subjects. Nothing is recorded; see `results.record`.

        Args:
            subjects: Sequences with the topics to look at.
            run_id: Names the run in the results; None: a new one.
            progress: Called with the locator of each topic before it is read.

        Raises:
            NotFoundError: If a topic is deleted meanwhile.
            StorageError: If rows cannot be read.
        """
        started = time.monotonic()
        report = ValidationReport(run_id or str(uuid.uuid4()), time.time_ns(), problems=self._library.problems)
        piles = Piles(self._judge)
        bound: list[BoundTopic] = []
        measured: list[tuple[Subject, str, SequenceRule, Measured]] = []
        for subject in subjects:
            report.sequences.append(subject.sequence)
            for topic in subject.topics:
                progress(str(topic.locator))
                at_work = self._derive(topic, piles, report)
                if at_work is not None:
                    bound.append(at_work)
            measured += self._measure(subject)
        piles.flush()
        for each in bound:
            report.findings += each.findings()
        report.findings += self._judge_sequences(measured)
        report.seconds = time.monotonic() - started
        return report

    def _derive(self, topic: TopicRecord, piles: Piles, report: ValidationReport) -> BoundTopic | None:
        contract = contract_of_topic(self._library.contracts, topic)
        if contract.is_empty:
            report.without_contract.append(str(topic.locator))
            return None
        if topic.arrow_schema is None or topic.state is not TopicState.FINALIZED:
            return None
        bound = BoundTopic(topic, contract)
        for frame in read_blocks(self._lake, topic):
            report.rows += len(frame)
            piles.add(bound.derive(frame))
        piles.add(bound.finish())
        return bound

    def _measure(self, subject: Subject) -> list[tuple[Subject, str, SequenceRule, Measured]]:
        if subject.all_topics is None:
            return []
        contract = contract_of_sequence(self._library.contracts, subject.sequence)
        rules = {
            spec.id: SEQUENCE_RULES[spec.rule](SEQUENCE_RULES[spec.rule].parameters.model_validate(spec.parameters))
            for spec in contract.rules.values()
        }
        topics = [topic for topic in subject.all_topics if topic.state is TopicState.FINALIZED]
        for topic in topics:
            readers = [rule for rule in rules.values() if rule.reads(topic)]
            if readers and topic.arrow_schema is not None:
                for frame in read_blocks(self._lake, topic):
                    for rule in readers:
                        rule.observe(frame)
        return [(subject, rule_id, rule, rule.finish(topics)) for rule_id, rule in rules.items()]

    def _judge_sequences(self, measured: list[tuple[Subject, str, SequenceRule, Measured]]) -> list[Finding]:
        by_rule: dict[str, list[tuple[Subject, SequenceRule, Measured]]] = {}
        for subject, rule_id, rule, found in measured:
            by_rule.setdefault(rule_id, []).append((subject, rule, found))
        findings = []
        for rule_id, group in by_rule.items():
            expectation = group[0][1].expectation
            values = np.array([found.value for _, _, found in group])
            (answer,) = self._judge.judge(
                {"value": values}, [Question("value", expectation.type, expectation.arguments)]
            )
            failing = set(answer.failing.tolist())
            for place, (subject, rule, found) in enumerate(group):
                spec = contract_of_sequence(self._library.contracts, subject.sequence).rules[rule_id]
                findings.append(
                    Finding(
                        sequence=subject.sequence,
                        session=None,
                        topic=None,
                        topic_uuid=None,
                        ontology_tag=None,
                        rule=spec,
                        kind=Kind.SEQUENCE,
                        verdict=broken_verdict(spec) if place in failing or answer.complaint else Verdict.PASSED,
                        expected=rule.expected,
                        observed=answer.complaint or found.text,
                        rows_checked=1,
                        rows_failed=int(place in failing),
                    )
                )
        return findings


def read_blocks(lake: Lakehouse, topic: TopicRecord) -> Iterator[pl.DataFrame]:
    """The rows of a topic in blocks of bounded size, in time order."""
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in lake.reader.read(topic):
        batches.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield _frame(batches)
            batches, rows, size = [], 0, 0
    if batches:
        yield _frame(batches)


def _frame(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(batches), rechunk=True)
    assert isinstance(frame, pl.DataFrame)
    return frame
