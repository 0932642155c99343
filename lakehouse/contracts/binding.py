"""The rules of one topic at work: blocks of rows in, derived columns out."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lakehouse.catalog.errors import shorten
from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.findings import Finding, Tally, Verdict, broken_verdict
from lakehouse.contracts.judging import Question
from lakehouse.contracts.model import EffectiveContract, FieldPath, RuleSpec
from lakehouse.contracts.rules.catalogue import TOPIC_RULES
from lakehouse.contracts.rules.rule import Derived, Rows, Rule, find_field
from lakehouse.contracts.rules.schema import RequiredValues, SchemaMatches

logger = logging.getLogger(__name__)


@dataclass
class BoundRule:
    """A rule of a contract and what it found in one topic."""

    spec: RuleSpec
    rule: Rule | None
    tally: Tally
    is_about_rows: bool = False

    @property
    def is_working(self) -> bool:
        return self.rule is not None and self.tally.complaint is None

    def give_up(self, complaint: str) -> None:
        self.tally.complaint = shorten(complaint, 300)

    def column(self, suffix: str) -> str:
        return f"{self.spec.id}|{suffix}"


@dataclass
class Piece:
    """Derived columns of one block of one topic.

    Attributes:
        topic: What they were derived from.
        first_row: Number of the first row within the topic; -1: this is the one extra row for the topic as a whole.
        columns: By rule id and suffix.
    """

    topic: "BoundTopic"
    first_row: int
    times: npt.NDArray[np.int64]
    previous_ns: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values()) + self.times.nbytes * 2


class BoundTopic:
    """All rules of one topic.

    Attributes:
        questions: What to ask about the derived columns, with the rule each belongs to. Topics with equal questions can
            be judged in one batch.
    """

    def __init__(self, topic: TopicRecord, contract: EffectiveContract) -> None:
        if topic.arrow_schema is None:
            raise ValueError("a topic without schema has nothing to validate")
        self.topic = topic
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(topic.arrow_schema))
        self.rules = {rule.id: self._bind(rule, contract) for rule in contract.rules.values()}
        self._row_count = 0
        self._last_ns: int | None = None

    @property
    def questions(self) -> list[tuple[str, Question]]:
        found = []
        for rule_id, bound in self.rules.items():
            if bound.rule is not None and bound.is_working:
                for each in bound.rule.expectations:
                    found.append((rule_id, Question(bound.column(each.column), each.type, each.arguments)))
        return found

    @property
    def batch_key(self) -> str:
        """Equal for topics that can be judged in one batch."""
        return repr([(rule_id, q.column, q.type, sorted(q.arguments.items())) for rule_id, q in self.questions])

    def derive(self, frame: pl.DataFrame) -> Piece:
        """The derived columns of the next block."""
        rows = Rows(frame, self._last_ns, self._row_count)
        piece = Piece(self, self._row_count, rows.times, rows.previous_ns)
        for bound in self.rules.values():
            if bound.is_working:
                for suffix, values in self._derived(bound, rows).items():
                    bound.is_about_rows = True
                    piece.columns[bound.column(suffix)] = values
        self._row_count += len(rows)
        self._last_ns = int(rows.times[-1])
        return piece

    def finish(self) -> Piece:
        """One more row, with what is about the topic as a whole."""
        interval = self.topic.interval
        end_ns = np.array([interval.end_ns if interval else 0], dtype=np.int64)
        start_ns = np.array([interval.start_ns if interval else 0], dtype=np.int64)
        piece = Piece(self, -1, end_ns, start_ns)
        for bound in self.rules.values():
            if bound.rule is not None and bound.is_working:
                for suffix, value in bound.rule.finish().items():
                    piece.columns[bound.column(suffix)] = np.array([value])
        return piece

    def findings(self) -> list[Finding]:
        """The results, once everything is judged."""
        there = [bound for bound in self.rules.values() if bound.rule is not None or bound.tally.complaint is not None]
        return [self._finding(bound) for bound in there]

    def _derived(self, bound: BoundRule, rows: Rows) -> Derived:
        assert bound.rule is not None
        try:
            with np.errstate(invalid="ignore", over="ignore"):
                return bound.rule.derive(rows)
        except (pl.exceptions.PolarsError, pa.ArrowException, ArithmeticError, TypeError, ValueError) as error:
            # One rule that meets data it cannot make sense of must not keep the others from being judged.
            logger.warning("rule %s of %s: %s", bound.spec.id, self.topic.locator, error)
            bound.give_up(f"could not be evaluated: {error}")
            return {}

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
        return BoundRule(spec, rule, Tally(rule.spans_previous, rule.describe))

    def _is_optional(self, path: FieldPath, contract: EffectiveContract) -> bool:
        """Whether a field that is not there need not be: the contract lists it, or what is around it, as optional."""
        for depth in range(1, len(path) + 1):
            wanted = contract.properties.get(path[:depth])
            if find_field(self.schema, path[:depth]) is None:
                return wanted is not None and not wanted.required
        return False

    def _finding(self, bound: BoundRule) -> Finding:
        tally, spec, topic = bound.tally, bound.spec, self.topic
        is_broken = tally.complaint is not None or not spec.tolerance.allows(tally.failed, tally.checked)
        if tally.complaint is not None:
            observed = tally.complaint
        elif tally.failed and not bound.is_about_rows:
            observed = tally.samples[0].text if tally.samples else "not as expected"
        elif tally.failed:
            samples = "; ".join(dict.fromkeys(sample.text for sample in tally.samples))
            observed = f"{tally.failed:,} of {tally.checked:,} rows: {samples}"
        elif bound.is_about_rows:
            observed = f"{tally.checked:,} rows as expected" if tally.checked else "nothing to judge"
        else:
            observed = "as expected" if tally.checked else "nothing to judge"
        expected = bound.rule.expected if bound.rule is not None else spec.rule
        if str(spec.tolerance):
            expected += f", but for {spec.tolerance}"
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
            observed=shorten(observed, 500),
            rows_checked=tally.checked,
            rows_failed=tally.failed,
            ranges=tuple(tally.ranges),
            range_count=tally.range_count,
            first_ns=tally.first_ns,
            last_ns=tally.last_ns,
            samples=tuple(tally.samples),
        )


def filled(piece: Piece, column: str, like: np.dtype[Any]) -> npt.NDArray[Any]:
    """A column of a piece; where the piece has none, nothing to judge."""
    values = piece.columns.get(column)
    if values is not None:
        return values
    empty = None if like.hasobject else math.nan
    return np.full(len(piece), empty, dtype=like)


def count_judged(values: npt.NDArray[Any]) -> int:
    """How many values there are to judge."""
    if values.dtype.hasobject:
        return int(sum(value is not None for value in values))
    return int(np.count_nonzero(~np.isnan(values)))
