"""Contract reports: one per sequence, with a check per kind of rule."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import dagster as dg

from lakehouse.catalog.errors import LakehouseError, NotFoundError, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts import results
from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Verdict, worst
from lakehouse.contracts.judging import Judge
from lakehouse.contracts.library import ContractLibrary
from lakehouse.contracts.model import Kind
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Subject, ValidationReport, Validator
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
SEQUENCES_PER_RUN = 50
# Verdicts of so many sequences become visible together; in between, memory is given back.
SEQUENCES_AT_ONCE = 20
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
    Kind.SCHEMA: ("schema_and_types", "Columns are there, in their types, and filled where required."),
    Kind.VALUE: ("values", "Ranges, magnitudes, enumerations, presence, counts."),
    Kind.PHYSICS: ("robot_physics", "Time, rates and gaps, rotations, covariances, fixes, frozen sensors, images."),
    Kind.SEQUENCE: ("whole_sequence", "Topics that must be there; coordinate frames that form one tree."),
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

    A broken contract is no failed run: the run did what it should. A sequence that cannot be read does not keep the
    others from being judged.

    Raises:
        Failure: If there were such sequences, when all others are judged.
    """
    # Loading Great Expectations takes ten seconds: once per run, however many sequences it validates.
    judge = Judge()
    library = ContractLibrary.load(lake.settings.contracts_path)
    remaining = iter(subjects)
    validator = Validator(lake, library, judge)
    unreadable: dict[str, str] = {}
    while some := list(islice(remaining, SEQUENCES_AT_ONCE)):
        for judged, found in _validated(context, validator, some, unreadable):
            results.record(lake.system_tables, found)
            for subject in judged:
                tell(context, subject, found)
            context.log.info(f"{len(judged)} sequences, {found.rows:,} rows in {found.seconds:.1f} s: {found.verdict}")
    tell_problems(context, library.problems)
    if unreadable:
        reasons = "; ".join(f"{quoted(name)}: {reason}" for name, reason in unreadable.items())
        raise dg.Failure(f"{len(unreadable)} sequences could not be judged: {reasons}"[:2000])


def _validated(
    context: Context, validator: Validator, subjects: list[Subject], unreadable: dict[str, str]
) -> Iterator[tuple[list[Subject], ValidationReport]]:
    """All at once; one by one where that fails, with the reason noted in `unreadable`."""
    try:
        yield subjects, validator.validate(subjects, context.run.run_id)
        return
    except LakehouseError as error:
        context.log.warning(f"{len(subjects)} sequences are judged one by one: {error.message}")
    for subject in subjects:
        try:
            found = validator.validate([subject], context.run.run_id)
        except NotFoundError as error:
            context.log.info(f"{subject.sequence} is passed over, deleted meanwhile: {error.message}")
        except LakehouseError as error:
            unreadable[subject.sequence] = error.message
        else:
            yield [subject], found


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
