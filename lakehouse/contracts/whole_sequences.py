"""The rules about one sequence as a whole at work."""

import logging
from collections.abc import Iterator

import polars as pl

from lakehouse.catalog.errors import shorten
from lakehouse.catalog.records import TopicRecord
from lakehouse.contracts.findings import Finding, Verdict, broken_verdict
from lakehouse.contracts.judging import Measure
from lakehouse.contracts.model import EffectiveContract, Kind, RuleSpec
from lakehouse.contracts.rules.catalogue import SEQUENCE_RULES
from lakehouse.contracts.rules.sequences import Measured, SequenceFacts, SequenceRule

logger = logging.getLogger(__name__)


class WatchingRule:
    """A rule about a sequence that looks at rows, or not."""

    def __init__(self, spec: RuleSpec) -> None:
        kind = SEQUENCE_RULES[spec.rule]
        self.spec = spec
        self.rule: SequenceRule = kind(kind.parameters.model_validate(spec.parameters))
        self.complaint: str | None = None
        self.is_left_out = False

    def observe(self, frame: pl.DataFrame) -> None:
        if self.complaint is not None:
            return
        try:
            self.rule.observe(frame)
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            logger.warning("rule %s: %s", self.spec.id, error)
            self.give_up(f"could not be evaluated: {error}")

    def leave_out(self) -> None:
        """Have no result: it has not seen everything, for a reason that may pass."""
        self.is_left_out = True

    def give_up(self, complaint: str) -> None:
        self.complaint = shorten(complaint, 300)


class BoundSequence:
    """All rules of one sequence.

    Args:
        name: Of the sequence.
        contract: What applies to it.
        facts: What the rules look at besides rows.
    """

    def __init__(self, name: str, contract: EffectiveContract, facts: SequenceFacts) -> None:
        self._name = name
        self._rules = [WatchingRule(spec) for spec in contract.rules.values()]
        self._facts = facts
        self._measured: list[Measured] | None = None

    def watching(self, topic: TopicRecord) -> list[WatchingRule]:
        """The rules that want to see the rows of a topic."""
        return [each for each in self._rules if each.rule.reads(topic)]

    def measures(self) -> list[list[Measure]]:
        """What the verdicts rest on, one list per rule, once all rows were seen."""
        return [
            [Measure(found.value, each.rule.expectation)]
            for each, found in zip(self._rules, self._results(), strict=True)
        ]

    def findings(self, broken: Iterator[bool]) -> Iterator[Finding]:
        """The results, given which rules are broken, in the order of `measures`."""
        for each, found in zip(self._rules, self._results(), strict=True):
            is_broken = next(broken) or each.complaint is not None
            if each.is_left_out:
                continue
            yield Finding(
                sequence=self._name,
                session=None,
                topic=None,
                topic_uuid=None,
                ontology_tag=None,
                rule=each.spec,
                kind=Kind.SEQUENCE,
                verdict=broken_verdict(each.spec) if is_broken else Verdict.PASSED,
                expected=each.rule.expected,
                observed=shorten(each.complaint or found.text, 500),
                rows_checked=int(found.is_judged),
                rows_failed=int(is_broken),
            )

    def _results(self) -> list[Measured]:
        if self._measured is None:
            self._measured = [each.rule.finish(self._facts) for each in self._rules]
        return self._measured
