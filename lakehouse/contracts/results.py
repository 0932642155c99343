"""Verdicts as rows of `mosaico.validation_results`, and those that fail now beside what they are about."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from lakehouse.catalog import failing_rules
from lakehouse.catalog.failing_rules import FailedRule, Judgement
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import TopicRecord
from lakehouse.catalog.system_tables import NUMBER, TEXT, TIME, SystemColumn, SystemTable
from lakehouse.contracts.findings import Finding, Verdict
from lakehouse.contracts.validation import Subject, ValidationReport

VALIDATION_RESULTS = SystemTable(
    "validation_results",
    "Verdicts of data contracts: one row per run, topic or sequence, and rule.",
    (
        SystemColumn("run_id", TEXT, "Run that judged: of Dagster, or a UUID."),
        SystemColumn("checked_at", TIME, "Start of the run, rounded down to microseconds.", time_of="checked_at_ns"),
        SystemColumn("checked_at_ns", NUMBER, "Start of the run, exact. [ns since 1970-01-01 UTC]"),
        SystemColumn("sequence", TEXT, "Name of the sequence."),
        SystemColumn("session", TEXT, "Locator of the session; null for rules about the sequence.", required=False),
        SystemColumn("topic", TEXT, "Locator of the topic; null for rules about the sequence.", required=False),
        SystemColumn("topic_uuid", TEXT, "Identity of the topic, which a reused name does not share.", required=False),
        SystemColumn("ontology_tag", TEXT, "What the topic's rows mean.", required=False),
        SystemColumn("contract", TEXT, "Id of the contract the rule comes from."),
        SystemColumn("contract_version", TEXT, "Version of that contract."),
        SystemColumn("rule", TEXT, "Id of the rule."),
        SystemColumn("rule_type", TEXT, "Name of the rule type."),
        SystemColumn("kind", TEXT, "schema, value, physics or sequence."),
        SystemColumn("dimension", TEXT, "Dimension of data quality, as the Open Data Contract Standard names them."),
        SystemColumn("severity", TEXT, "error, warning or info."),
        SystemColumn("verdict", TEXT, "passed, noted, warned or failed."),
        SystemColumn("expected", TEXT, "What the rule expects, in words."),
        SystemColumn("observed", TEXT, "What was found, in words."),
        SystemColumn("rows_checked", NUMBER, "Rows the rule had something to say about."),
        SystemColumn("rows_failed", NUMBER, "Rows that break it."),
        SystemColumn("first_failing_ns", NUMBER, "Time of the first. [ns since 1970-01-01 UTC]", required=False),
        SystemColumn("last_failing_ns", NUMBER, "Time of the last. [ns since 1970-01-01 UTC]", required=False),
        SystemColumn("range_count", NUMBER, "Number of time ranges with failing rows."),
        SystemColumn("time_ranges", TEXT, "The first 20: JSON list of [start ns, end ns (included), rows]."),
        SystemColumn("samples", TEXT, "Up to 5 failing rows: JSON list of [ns, text]."),
    ),
)


def record(lake: Lakehouse, report: ValidationReport) -> None:
    """Append the findings of a run, and let them take the place of earlier ones as what fails now, in one commit.

    Raises:
        StorageError: If database or warehouse fail.
        CommitConflictError: If other writers kept winning the race for the table.
    """
    judgements = [_judgement(subject, report) for subject in report.subjects]
    if report.findings:
        lake.system_tables.append(
            VALIDATION_RESULTS,
            list(result_rows(report, report.findings)),
            lambda connection: failing_rules.replace(connection, judgements),
        )
    else:
        with lake.database.transaction() as connection:
            failing_rules.replace(connection, judgements)


def _judgement(subject: Subject, report: ValidationReport) -> Judgement:
    seen = subject.topics if subject.all_topics is None else subject.all_topics
    ids = {topic.uuid: topic.id for topic in seen}
    failed = [
        _failed(finding, ids[finding.topic_uuid] if finding.topic_uuid else None)
        for finding in report.of_sequence(subject.sequence)
        if finding.verdict is Verdict.FAILED
    ]
    judged = {topic.id for topic in subject.topics if _is_judged(topic, report)}
    # Also of a topic that was only watched is known when it cannot be read.
    unreadable = {each.topic_id for each in failed if each.topic_id is not None}
    # Rules about the sequence may have no result if they have not seen all of it.
    is_whole = subject.all_topics is not None and all(_is_judged(topic, report) for topic in subject.all_topics)
    waiting = {topic.session_id for topic in subject.topics if not topic.session_is_finalized}
    return Judgement(seen[0].sequence_id, frozenset(judged | unreadable), is_whole, min(waiting, default=None), failed)


def _is_judged(topic: TopicRecord, report: ValidationReport) -> bool:
    return str(topic.locator) not in report.not_judged


def _failed(finding: Finding, topic_id: int | None) -> FailedRule:
    first = finding.ranges[0] if finding.ranges else None
    return FailedRule(
        topic_id,
        finding.rule.id,
        f"{finding.rule.contract} {finding.rule.contract_version}",
        finding.expected,
        finding.observed,
        first.start_ns if first else None,
        first.end_ns if first else None,
    )


def result_rows(report: ValidationReport, findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    """Findings by column name."""
    for finding in findings:
        yield {
            "run_id": report.run_id,
            "checked_at_ns": report.checked_at_ns,
            "sequence": finding.sequence,
            "session": finding.session,
            "topic": finding.topic,
            "topic_uuid": finding.topic_uuid,
            "ontology_tag": finding.ontology_tag,
            "contract": finding.rule.contract,
            "contract_version": finding.rule.contract_version,
            "rule": finding.rule.id,
            "rule_type": finding.rule.rule,
            "kind": str(finding.kind),
            "dimension": finding.rule.dimension,
            "severity": str(finding.rule.severity),
            "verdict": str(finding.verdict),
            "expected": finding.expected,
            "observed": finding.observed,
            "rows_checked": finding.rows_checked,
            "rows_failed": finding.rows_failed,
            "first_failing_ns": finding.first_ns,
            "last_failing_ns": finding.last_ns,
            "range_count": finding.range_count,
            "time_ranges": json.dumps([[each.start_ns, each.end_ns, each.rows] for each in finding.ranges]),
            "samples": json.dumps([[each.at_ns, each.text] for each in finding.samples]),
        }
