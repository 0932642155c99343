"""Write, audit, publish: whether a session may be committed."""

from collections.abc import Callable

import dagster as dg

from lakehouse.catalog.errors import ContractBreachError, quoted
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionState
from lakehouse.contracts import results
from lakehouse.contracts.findings import Verdict
from lakehouse.contracts.judging import Judge
from lakehouse.contracts.library import ContractLibrary, raise_problems
from lakehouse.contracts.selection import subjects_of_sessions
from lakehouse.contracts.validation import Validator

REFUSE = "refuse"
NAMED = 3

Gate = Callable[[str], None]


def contract_gate(lake: Lakehouse, run_id: str, log: dg.DagsterLogManager) -> Gate | None:
    """What lets a sequence pass to its commit, or raises `ContractBreachError`; None if the policy only reports."""
    if lake.settings.contract_policy != REFUSE:
        return None
    judge = Judge()

    def admit(sequence: str) -> None:
        library = ContractLibrary.load(lake.settings.contracts_path)
        # A rule that cannot be read may be the one that would have refused.
        raise_problems(library.problems)
        described = lake.sequences.describe(sequence)
        waiting = [str(each.locator) for each in described.sessions if each.state is not SessionState.FINALIZED]
        report = Validator(lake, library, judge).validate(subjects_of_sessions(lake, waiting), run_id)
        results.record(lake.system_tables, report)
        failed = [finding for finding in report.findings if finding.verdict is Verdict.FAILED]
        log.info(f"{sequence}: {report.verdict} by its contracts before the commit, {len(report.findings)} rules")
        if failed:
            reasons = "; ".join(f"{each.subject}, rule {each.rule.id}: {each.observed}" for each in failed[:NAMED])
            more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
            raise ContractBreachError(f"sequence {quoted(sequence)} breaks its contracts: {reasons}{more}")

    return admit
