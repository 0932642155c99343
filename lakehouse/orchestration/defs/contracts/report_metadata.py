"""Verdicts as Dagster metadata: what an operator asks first at the top, numbers that plot over time, tables to read."""

from collections.abc import Sequence

import dagster as dg

from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Finding, Verdict, worst
from lakehouse.contracts.model import Kind
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata

MAX_ROWS = 200
STRIP_LENGTH = 24
_BARS = "·▁▂▃▄▅▆▇█"

FINDINGS_TABLE = dg.TableSchema(
    columns=[
        dg.TableColumn("verdict", description="passed, noted, warned or failed"),
        dg.TableColumn("topic", description="Path in the sequence; empty: the sequence as a whole"),
        dg.TableColumn("rule", description="Id of the rule"),
        dg.TableColumn("expected"),
        dg.TableColumn("observed"),
        dg.TableColumn("rows failed", "int"),
        dg.TableColumn("rows checked", "int"),
        dg.TableColumn("when", description="From the first to the last row: where rows fail, more of them higher"),
        dg.TableColumn("first failing ns", "int", description="Unix time in ns"),
        dg.TableColumn("contract", description="Where the rule comes from"),
    ]
)


def sequence_metadata(findings: Sequence[Finding], intervals: dict[str, tuple[int, int]]) -> Metadata:
    """The report on one sequence.

    Args:
        findings: All about it.
        intervals: First and last time of each topic, by locator.
    """
    counts = {verdict: sum(each.verdict is verdict for each in findings) for verdict in Verdict}
    # A rule about the sequence as a whole checks no values.
    of_values = [each for each in findings if each.kind is not Kind.SEQUENCE]
    checked = sum(each.rows_checked for each in of_values)
    failed = sum(each.rows_failed for each in of_values)
    metadata: Metadata = {
        "verdict": dg.MetadataValue.text(str(worst(each.verdict for each in findings))),
        "rules": dg.MetadataValue.int(len(findings)),
        "rules_failed": dg.MetadataValue.int(counts[Verdict.FAILED]),
        "rules_warned": dg.MetadataValue.int(counts[Verdict.WARNED]),
        "values_checked": dg.MetadataValue.int(checked),
        "values_failed_percent": dg.MetadataValue.float(round(100 * failed / checked, 6) if checked else 0.0),
    }
    if findings:
        metadata["findings"] = findings_table(findings, intervals)
    if look := snippets(findings):
        metadata["look"] = look
    return metadata


def check_metadata(findings: Sequence[Finding], intervals: dict[str, tuple[int, int]]) -> Metadata:
    """The findings of one kind about one sequence."""
    metadata: Metadata = {
        "rules": dg.MetadataValue.int(len(findings)),
        "rules_broken": dg.MetadataValue.int(sum(each.verdict is not Verdict.PASSED for each in findings)),
        "values_checked": dg.MetadataValue.int(sum(each.rows_checked for each in findings)),
        "values_failed": dg.MetadataValue.int(sum(each.rows_failed for each in findings)),
        "findings": findings_table(findings, intervals),
    }
    if look := snippets(findings):
        metadata["look"] = look
    return metadata


def problems_metadata(problems: Sequence[Problem]) -> Metadata:
    """The contract files that are not used."""
    lines = "\n".join(f"- `{problem}`" for problem in problems)
    return {"problems": dg.MetadataValue.int(len(problems)), "files": dg.MetadataValue.md(lines or "all good")}


def findings_table(findings: Sequence[Finding], intervals: dict[str, tuple[int, int]]) -> dg.TableMetadataValue:
    """The worst first."""
    order = tuple(Verdict)
    ranked = sorted(findings, key=lambda each: (-order.index(each.verdict), each.subject, each.rule.id))
    return dg.MetadataValue.table([_row(each, intervals) for each in ranked[:MAX_ROWS]], schema=FINDINGS_TABLE)


def snippets(findings: Sequence[Finding]) -> dg.MarkdownMetadataValue | None:
    """Python that streams the failing moments; None if there are none."""
    lines = [
        f"# {each.subject}, {each.rule.id}\n{each.snippet()}"
        for each in findings
        if each.verdict in (Verdict.FAILED, Verdict.WARNED) and each.snippet()
    ]
    return dg.MetadataValue.md("```python\n" + "\n".join(lines[:10]) + "\n```") if lines else None


def failure_strip(finding: Finding, interval: tuple[int, int] | None) -> str:
    """Where in the topic's time the rule fails: one sign per piece of it, `·` where it does not."""
    if not finding.ranges or interval is None:
        return ""
    start_ns, end_ns = interval
    length = max(end_ns - start_ns, 1)
    weights = [0.0] * STRIP_LENGTH
    for found in finding.ranges:
        first, last = (
            min(max((at - start_ns) * STRIP_LENGTH // length, 0), STRIP_LENGTH - 1)
            for at in (found.start_ns, found.end_ns)
        )
        for place in range(first, last + 1):
            weights[place] += found.rows / (last - first + 1)
    highest = max(weights)
    return "".join(_BARS[0 if weight == 0 else 1 + round(7 * weight / highest)] for weight in weights)


def _row(finding: Finding, intervals: dict[str, tuple[int, int]]) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "verdict": str(finding.verdict),
            "topic": (finding.topic or "").removeprefix(f"{finding.sequence}/"),
            "rule": finding.rule.id,
            "expected": finding.expected,
            "observed": finding.observed,
            "rows failed": finding.rows_failed,
            "rows checked": finding.rows_checked,
            "when": failure_strip(finding, intervals.get(finding.topic or "")),
            "first failing ns": finding.first_ns,
            "contract": f"{finding.rule.contract} {finding.rule.contract_version}",
        }
    )
