"""The rules of one topic at work: blocks of rows in, counts and places of what breaks them out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lakehouse.catalog.errors import shorten
from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.findings import Finding, Tally, Verdict, broken_verdict
from lakehouse.contracts.judging import Measure, Question, measures_of
from lakehouse.contracts.model import EffectiveContract, FieldPath, RuleSpec
from lakehouse.contracts.rules.catalogue import TOPIC_RULES
from lakehouse.contracts.rules.rule import VALUE, Derived, Rows, Rule, find_field, is_text
from lakehouse.contracts.rules.schema import RequiredValues, SchemaMatches
from lakehouse.contracts.screening import can_screen, failing_rows, is_there

logger = logging.getLogger(__name__)

Failing = Sequence[tuple[str, npt.NDArray[np.int64]]]
"""Which rows of a block fail, by derived column."""


@dataclass(frozen=True)
class Block:
    """Where derived columns come from.

    Attributes:
        first_row: Number of the first row within the topic; -1: this is the one extra row for the topic as a whole.
        times: Of the rows.
        previous_ns: Of the row before each.
    """

    first_row: int
    times: npt.NDArray[np.int64]
    previous_ns: npt.NDArray[np.int64]


@dataclass
class BoundRule:
    """A rule of a contract and what it found in one topic.

    Attributes:
        rule: None if it has nothing to be about.
        is_deferred: Whether Great Expectations itself looks at the rows.
    """

    spec: RuleSpec
    rule: Rule | None
    tally: Tally
    is_about_rows: bool = False
    is_deferred: bool = False

    @property
    def is_working(self) -> bool:
        return self.rule is not None and self.tally.complaint is None

    def give_up(self, complaint: str) -> None:
        self.tally.complaint = shorten(complaint, 300)

    def column(self, suffix: str) -> str:
        return f"{self.spec.id}|{suffix}"

    def screen(self, derived: Derived, block: Block) -> None:
        """Find the rows that fail, and settle."""
        assert self.rule is not None
        failing = [
            (each.column, failing_rows(each.type, each.arguments, derived[each.column]))
            for each in self.rule.expectations
            if each.column in derived
        ]
        self.settle(derived, failing, block)

    def settle(self, derived: Derived, failing: Failing, block: Block) -> None:
        """Add what was found in a block.

        Args:
            derived: Columns that were judged, by suffix.
            failing: What was found in each.
            block: Where they come from.
        """
        if block.first_row < 0 and self.is_about_rows:
            return
        if len(failing) == 1:
            own = failing[0][1]
        else:
            own = np.unique(np.concatenate([rows for _, rows in failing])) if failing else np.empty(0, np.int64)
        main = derived.get(VALUE)
        if main is not None:
            there = is_there(main)
            # What has no value to judge may still be missing one.
            self.tally.checked += int(np.count_nonzero(there)) + len(own) - int(np.count_nonzero(there[own]))
        if not len(own):
            return
        if block.first_row < 0:
            self.tally.failed += 1
        else:
            self.tally.add(own, block.first_row, block.times, block.previous_ns)
        for place in own[: self.tally.samples_wanted]:
            column = next(suffix for suffix, rows in failing if _contains(rows, place))
            self.tally.sample(int(block.times[place]), column, derived[column][place])


@dataclass
class Piece:
    """Derived columns of one block of one topic that Great Expectations is to look at.

    Attributes:
        topic: What they were derived from.
        columns: By rule id and suffix.
    """

    topic: "BoundTopic"
    block: Block
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.block.times)

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values()) + self.block.times.nbytes * 2


class BoundTopic:
    """All rules of one topic.

    Args:
        topic: With a schema.
        contract: What applies to it.
        defers: Whether rules that are expectations of Great Expectations are left to it; else those are evaluated here
            that can be, and the others left out.
    """

    def __init__(self, topic: TopicRecord, contract: EffectiveContract, *, defers: bool) -> None:
        if topic.arrow_schema is None:
            raise ValueError("a topic without schema has nothing to validate")
        self.topic = topic
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(topic.arrow_schema))
        self._defers = defers
        self.rules = {rule.id: self._bind(rule, contract) for rule in contract.rules.values()}
        self._row_count = 0
        self._last_ns: int | None = None

    @property
    def questions(self) -> list[tuple[str, Question]]:
        """What Great Expectations is to be asked about the rows, with the rule each question belongs to."""
        return [
            (rule_id, Question(bound.column(each.column), each.type, each.arguments))
            for rule_id, bound in self.rules.items()
            if bound.is_deferred and bound.rule is not None and bound.is_working
            for each in bound.rule.expectations
        ]

    @property
    def batch_key(self) -> str:
        """Equal for topics whose rows can be judged in one batch."""
        return repr([(rule_id, q.column, q.type, sorted(q.arguments.items())) for rule_id, q in self.questions])

    def observe(self, frame: pl.DataFrame) -> Piece | None:
        """Take the next block; returns what is left to Great Expectations, if anything is."""
        rows = Rows(frame, self._last_ns, self._row_count)
        block = Block(self._row_count, rows.times, rows.previous_ns)
        piece = Piece(self, block)
        for bound in self.rules.values():
            if bound.is_working:
                self._observe(bound, rows, piece)
        self._row_count += len(rows)
        self._last_ns = int(rows.times[-1])
        return piece if piece.columns else None

    def finish(self) -> None:
        """After the last block: what is about the topic as a whole."""
        interval = self.topic.interval
        end_ns = np.array([interval.end_ns if interval else 0], dtype=np.int64)
        start_ns = np.array([interval.start_ns if interval else 0], dtype=np.int64)
        for bound in self.rules.values():
            if bound.rule is not None and bound.is_working:
                derived = {suffix: np.array([value]) for suffix, value in bound.rule.finish().items()}
                bound.screen(derived, Block(-1, end_ns, start_ns))

    def judged(self) -> list[BoundRule]:
        """The rules that have a result."""
        return [bound for bound in self.rules.values() if bound.rule is not None or bound.tally.complaint is not None]

    def measures(self) -> list[list[Measure]]:
        """What the verdicts about `judged` rest on."""
        return [measures_of(bound.tally.failed, bound.tally.checked, bound.spec.tolerance) for bound in self.judged()]

    def findings(self, broken: Sequence[bool]) -> list[Finding]:
        """The results, given which of the `judged` rules are broken."""
        return [self._finding(bound, is_broken) for bound, is_broken in zip(self.judged(), broken, strict=True)]

    def _observe(self, bound: BoundRule, rows: Rows, piece: Piece) -> None:
        assert bound.rule is not None
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                derived = bound.rule.derive(rows)
                if not derived:
                    return
                bound.is_about_rows = True
                if not bound.is_deferred:
                    bound.screen(derived, piece.block)
        except (pl.exceptions.PolarsError, pa.ArrowException, ArithmeticError, TypeError, ValueError) as error:
            # One rule that meets data it cannot make sense of must not keep the others from being judged.
            logger.warning("rule %s of %s: %s", bound.spec.id, self.topic.locator, error)
            bound.give_up(f"could not be evaluated: {error}")
            return
        if bound.is_deferred:
            piece.columns.update({bound.column(suffix): values for suffix, values in derived.items()})

    def _bind(self, spec: RuleSpec, contract: EffectiveContract) -> BoundRule:
        kind = TOPIC_RULES[spec.rule]
        parameters = kind.parameters.model_validate(spec.parameters)
        unbound = BoundRule(spec, None, Tally(False, lambda _column, value: str(value)))
        for path in kind.fields(spec.path, parameters):
            if find_field(self.schema, path) is None:
                if not self._is_optional(path, contract):
                    unbound.give_up(f"the topic has no column '{'.'.join(path)}'")
                return unbound
        if complaint := kind.complaint(spec.path, parameters, self.schema):
            unbound.give_up(complaint)
            return unbound
        if issubclass(kind, SchemaMatches | RequiredValues):
            rule: Rule = kind(spec.path, parameters, self.schema, tuple(contract.properties.values()))
        else:
            rule = kind(spec.path, parameters, self.schema)
        if rule.is_native and not self._defers and not self._can_screen(spec.path, rule):
            return unbound
        tally = Tally(rule.spans_previous, rule.describe)
        return BoundRule(spec, rule, tally, is_deferred=rule.is_native and self._defers)

    def _can_screen(self, path: FieldPath, rule: Rule) -> bool:
        found = find_field(self.schema, path)
        of_text = found is not None and is_text(found.type)
        return all(can_screen(each.type, each.arguments, of_text=of_text) for each in rule.expectations)

    def _is_optional(self, path: FieldPath, contract: EffectiveContract) -> bool:
        """Whether a field that is not there need not be: the contract lists it, or what is around it, as optional."""
        for depth in range(1, len(path) + 1):
            wanted = contract.properties.get(path[:depth])
            if find_field(self.schema, path[:depth]) is None:
                return wanted is not None and not wanted.required
        return False

    def _finding(self, bound: BoundRule, is_broken: bool) -> Finding:
        tally, spec, topic = bound.tally, bound.spec, self.topic
        expected = bound.rule.expected if bound.rule is not None else spec.rule
        if str(spec.tolerance):
            expected += f", but for {spec.tolerance}"
        is_broken = is_broken or tally.complaint is not None
        return Finding(
            sequence=topic.locator.sequence,
            session=str(topic.session_locator),
            topic=str(topic.locator),
            topic_uuid=topic.uuid,
            ontology_tag=topic.ontology_tag,
            rule=spec,
            kind=TOPIC_RULES[spec.rule].kind,
            verdict=broken_verdict(spec) if is_broken else Verdict.PASSED,
            expected=expected,
            observed=shorten(_observed(bound), 500),
            rows_checked=tally.checked,
            rows_failed=tally.failed,
            ranges=tuple(tally.ranges),
            range_count=tally.range_count,
            first_ns=tally.first_ns,
            last_ns=tally.last_ns,
            samples=tuple(tally.samples),
        )


def filled(columns: Mapping[str, npt.NDArray[Any]], name: str, count: int, like: np.dtype[Any]) -> npt.NDArray[Any]:
    """A column of a piece of `count` rows; where the piece has none, nothing to judge."""
    values = columns.get(name)
    if values is not None:
        return values
    return np.full(count, None if like.hasobject else np.nan, dtype=like)


def _observed(bound: BoundRule) -> str:
    tally = bound.tally
    if tally.complaint is not None:
        return tally.complaint
    if tally.failed and not bound.is_about_rows:
        return tally.samples[0].text if tally.samples else "not as expected"
    if tally.failed:
        samples = "; ".join(dict.fromkeys(sample.text for sample in tally.samples))
        return f"{tally.failed:,} of {tally.checked:,} rows: {samples}"
    if not tally.checked:
        return "nothing to judge"
    return f"{tally.checked:,} rows as expected" if bound.is_about_rows else "as expected"


def _contains(rows: npt.NDArray[np.int64], row: int) -> bool:
    place = np.searchsorted(rows, row)
    return bool(place < len(rows) and rows[place] == row)
