"""Which sequences break their contracts now, as metadata of a check: all in one place.

The checks per kind of rule have a partition per sequence, and the page of the asset shows the one judged last.
"""

from collections.abc import Sequence
from urllib.parse import quote

import dagster as dg

from lakehouse.catalog.failing_rules import (
    FailingAlike,
    FailingCounts,
    FailingRule,
    count_failing,
    failing_alike,
    list_failing,
)
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.findings import stream_snippet
from lakehouse.orchestration.check_targets import latest_materialization
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata, utc

CHECK = "no_sequence_fails"
DESCRIPTION = (
    "Fails while the latest verdict on any sequence is `failed`, and lists them all, whenever they were judged. It is "
    "looked at again by itself: green once each passes, or is released, discarded or deleted."
)
MAX_LISTED = 200
MAX_RULES = 20
MAX_SNIPPETS = 10

ALL_OF_THEM = """```sql
SELECT sequence, topic, rule, observed FROM mosaico.validation_results
WHERE verdict = 'failed' ORDER BY checked_at DESC
```"""

FAILING_TABLE = dg.TableSchema(
    columns=[
        dg.TableColumn("sequence"),
        dg.TableColumn("topic", description="Path in the sequence; empty: the sequence as a whole"),
        dg.TableColumn("rule", description="Id of the rule"),
        dg.TableColumn("expected"),
        dg.TableColumn("observed"),
        dg.TableColumn("first failing ns", "int", description="Unix time in ns"),
        dg.TableColumn("since", description="When it was first found, without having passed since then"),
        dg.TableColumn("committed", "bool", description="False: the session is in quarantine, or waits for its commit"),
        dg.TableColumn("contract", description="Where the rule comes from"),
    ]
)


def failing_check(
    lake: Lakehouse, instance: dg.DagsterInstance, reports: dg.AssetKey, counts: FailingCounts | None = None
) -> dg.AssetCheckEvaluation:
    """The check evaluated now.

    Args:
        lake: Knows what fails.
        instance: Knows the latest report: a check is shown for the latest event of its asset only.
        reports: The asset.
        counts: Of what fails, if they are known.
    """
    counts = counts or count_failing(lake.database)
    return dg.AssetCheckEvaluation(
        asset_key=reports,
        check_name=CHECK,
        passed=not counts.rules,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=_metadata(lake, counts, reports),
        target_materialization_data=latest_materialization(instance, reports),
    )


def _metadata(lake: Lakehouse, counts: FailingCounts, reports: dg.AssetKey) -> Metadata:
    metadata: Metadata = {
        "sequences_failing": dg.MetadataValue.int(counts.sequences),
        "rules_failing": dg.MetadataValue.int(counts.rules),
        "rules_accepted": dg.MetadataValue.int(counts.accepted),
    }
    if counts.rules:
        failing = list_failing(lake.database, MAX_LISTED)
        page = f"{lake.settings.dagster_url.rstrip('/')}/assets/{reports.to_user_string()}"
        report_url = f"{page}?view=partitions&partition="
        metadata["by_rule"] = dg.MetadataValue.table([_alike(each) for each in failing_alike(lake.database, MAX_RULES)])
        metadata["failing"] = dg.MetadataValue.table([_row(each) for each in failing], schema=FAILING_TABLE)
        metadata["look"] = dg.MetadataValue.md(_directions(failing, report_url))
        if counts.rules > len(failing):
            rest = f"{counts.rules - len(failing):,} more fail than are listed. In SQL, with what failed earlier:\n\n"
            metadata["rest"] = dg.MetadataValue.md(rest + ALL_OF_THEM)
    return metadata


def _alike(each: FailingAlike) -> dg.TableRecord:
    return dg.TableRecord(
        {"rule": each.rule, "contract": each.contract, "sequences": each.sequences, "for example": each.example}
    )


def _row(each: FailingRule) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "sequence": each.sequence,
            "topic": each.path or "",
            "rule": each.rule,
            "expected": each.expected,
            "observed": each.observed,
            "first failing ns": each.start_ns,
            "since": utc(each.since_ns),
            "committed": each.is_committed,
            "contract": each.contract,
        }
    )


def _directions(failing: Sequence[FailingRule], report: str) -> str:
    """Links to the reports on some sequences, and Python that streams the failing moments."""
    names = list(dict.fromkeys(each.sequence for each in failing))[:MAX_SNIPPETS]
    links = [f"- [{_plain(name)}]({report}{quote(name, safe='')})" for name in names]
    code = [
        f"# {each.sequence}/{each.path}, {each.rule}\n"
        + stream_snippet(each.sequence, each.path, each.start_ns, each.end_ns)
        for each in failing
        if each.path is not None and each.start_ns is not None and each.end_ns is not None
    ]
    text = "\n".join(links)
    return f"{text}\n\n```python\n" + "\n".join(code[:MAX_SNIPPETS]) + "\n```" if code else text


def _plain(name: str) -> str:
    """A name without meaning for Markdown."""
    return "".join(sign if sign.isalnum() or sign in " -" else f"\\{sign}" for sign in name)
