"""Contract reports: one per sequence, with a check per kind of rule."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from lakehouse.catalog.errors import quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts import results
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Verdict, worst
from lakehouse.contracts.model import Kind
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Subject, ValidationReport, Validator
from lakehouse.orchestration.defs.contracts import failing
from lakehouse.orchestration.defs.contracts.report_metadata import (
    check_metadata,
    problems_metadata,
    sequence_metadata,
)
from lakehouse.orchestration.defs.ingestion.assets import OWNER, sequences
from lakehouse.orchestration.partitions import sequence_partitions
from lakehouse.orchestration.resources import LakehouseResource

Context = dg.AssetExecutionContext | dg.OpExecutionContext
GROUP = "contracts"
# More than a run ingests: each loads Great Expectations for ten seconds and more. Findings are told as they come.
SEQUENCES_PER_RUN = 200
CONTRACT_FILES = "contract_files"
NO_RULE = "No rule of this kind applies to this sequence."

contract_reports = dg.AssetSpec(
    "contract_reports",
    deps=[sequences],
    group_name=GROUP,
    kinds={"iceberg", "greatexpectations"},
    owners=[OWNER],
    partitions_def=sequence_partitions,
    skippable=True,
    description=(
        "Whether a sequence keeps its data contracts: columns and types, values, robot physics, and the sequence as a "
        "whole. A broken rule names topic, time ranges and sample values. The checks show the same per kind of rule; "
        "all verdicts are rows of the table `mosaico.validation_results`. Materialize it to validate again."
    ),
)
CHECKS: dict[Kind, tuple[str, str]] = {
    Kind.SCHEMA: (
        "schema_and_types",
        "Rows can be read; columns are there, in their types, filled where required.",
    ),
    Kind.VALUE: ("values", "Ranges, magnitudes, enumerations, presence, counts."),
    Kind.PHYSICS: ("robot_physics", "Time, rates and gaps, rotations, covariances, fixes, frozen sensors, images."),
    Kind.SEQUENCE: (
        "whole_sequence",
        "Recording complete; topics that must be there; frames that form one tree.",
    ),
}
with warnings.catch_warnings():
    # Partitioned checks are in preview in this Dagster. Without them the check of one sequence would replace the one of
    # another, and failures be forgotten.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    _SEQUENCE_CHECKS = [
        dg.AssetCheckSpec(name, asset=contract_reports.key, description=text, partitions_def=sequence_partitions)
        for name, text in CHECKS.values()
    ]
CHECK_SPECS = [
    *_SEQUENCE_CHECKS,
    dg.AssetCheckSpec(failing.CHECK, asset=contract_reports.key, description=failing.DESCRIPTION),
    dg.AssetCheckSpec(
        CONTRACT_FILES,
        asset=contract_reports.key,
        description="Every contract file can be used. One that cannot is left out; the others are in force.",
    ),
]


@dg.multi_asset(
    name="validation",
    specs=[contract_reports],
    check_specs=CHECK_SPECS,
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.multi_run(SEQUENCES_PER_RUN),
    pool="validation",
)
def validation(context: dg.AssetExecutionContext, lakehouse: LakehouseResource) -> Iterator[dg.MaterializeResult]:
    """Validates the partitions of the run."""
    with lakehouse.open(actor=f"dagster run {context.run.run_id}") as lake:
        subjects = (subject for name in context.partition_keys for subject in select_subjects(lake, name))
        validate_and_tell(context, lake, subjects)
    yield from ()


def validate_and_tell(context: Context, lake: Lakehouse, subjects: Iterable[Subject]) -> None:
    """Validate sequences and make the findings events of the asset and its checks.

    A broken contract is no failed run: the run did what it should. Rows that cannot be read fail the checks of their
    sequence and keep no other from being judged; as more than a contract is broken then, the run fails too. What cannot
    be read for now is not judged: the checks of its sequence stay as they were, and the run fails.

    Raises:
        Failure: If there were such rows, when everything is judged.
    """
    library = ContractLibrary.load(lake.settings.contracts_path)
    unreadable: dict[str, str] = {}
    for part in Validator(lake, library).parts(subjects, context.run.run_id):
        results.record(lake, part)
        for subject in part.subjects:
            if not any(str(topic.locator) in part.not_judged for topic in subject.all_topics or subject.topics):
                tell(context, subject, part)
        unreadable |= part.unreadable | part.not_judged
        context.log.info(f"{len(part.subjects)} sequences, {part.rows:,} rows in {part.seconds:.1f} s: {part.verdict}")
    tell_problems(context, library.problems)
    _log_check(context, failing.failing_check(lake, context.instance, contract_reports.key))
    if unreadable:
        reasons = "; ".join(f"{quoted(name)}: {reason}" for name, reason in unreadable.items())
        raise dg.Failure(f"{len(unreadable)} topics could not be read: {reasons}"[:2000])


def tell(context: Context, subject: Subject, report: ValidationReport) -> None:
    """Make the findings about one sequence events of the asset and its checks."""
    findings = report.of_sequence(subject.sequence)
    intervals = {str(t.locator): (t.interval.start_ns, t.interval.end_ns) for t in subject.topics if t.interval}
    context.instance.add_dynamic_partitions(str(sequence_partitions.name), [subject.sequence])
    context.log_event(
        dg.AssetMaterialization(
            contract_reports.key,
            partition=subject.sequence,
            metadata=sequence_metadata(findings, intervals),
        )
    )
    for kind, (name, _) in CHECKS.items():
        about = [finding for finding in findings if finding.kind is kind]
        verdict = worst(finding.verdict for finding in about)
        broken = [finding for finding in about if finding.verdict in (Verdict.FAILED, Verdict.WARNED)]
        for finding in broken:
            context.log.warning(f"{finding.subject}, rule {finding.rule.id}: {finding.observed}")
        _log_check(
            context,
            dg.AssetCheckEvaluation(
                contract_reports.key,
                name,
                passed=not broken,
                # Passed without rules too: a check that failed would stay red when its rule is gone.
                description=None if about else NO_RULE,
                severity=dg.AssetCheckSeverity.ERROR if verdict is Verdict.FAILED else dg.AssetCheckSeverity.WARN,
                metadata=check_metadata(about, intervals),
                partition=subject.sequence,
            ),
        )


def tell_problems(context: Context, problems: Sequence[Problem]) -> None:
    """Make contract files that cannot be used a failed check."""
    for problem in problems:
        context.log.error(f"contract not used: {problem}")
    _log_check(
        context,
        dg.AssetCheckEvaluation(
            contract_reports.key, CONTRACT_FILES, passed=not problems, metadata=problems_metadata(problems)
        ),
    )


def _log_check(context: Context, evaluation: dg.AssetCheckEvaluation) -> None:
    # An op may log the evaluation of a check; the annotation of its context does not know it.
    context.log_event(evaluation)  # type: ignore[arg-type]
