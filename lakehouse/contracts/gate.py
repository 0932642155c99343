"""Write, audit, publish: sessions are judged between upload and commit, in the process that commits them.

A gate judges without Great Expectations, which would add ten seconds and 280 MB to every process that commits. What its
rules expect is evaluated with the same results (`screening.py`); only expectations of Great Expectations with arguments
that are not known there are left to the validation after the commit.
"""

import threading
from collections.abc import Collection
from typing import Literal

from lakehouse.catalog.errors import ContractBreachError, ContractError, QuarantinedError, quoted, shorten
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionRecord, TopicState
from lakehouse.contracts import results
from lakehouse.contracts.collection import ContractLibrary, raise_problems
from lakehouse.contracts.findings import Finding, Verdict
from lakehouse.contracts.judging import PlainJudge
from lakehouse.contracts.selection import subjects_of_sessions
from lakehouse.contracts.validation import Validator

Policy = Literal["report", "refuse", "quarantine"]
NAMED = 3
_LONGEST_REASON = 800


def guard(lake: Lakehouse, policy: Policy, run_id: str | None = None) -> None:
    """Let what this process commits pass its contracts first, if that is the policy."""
    lake.sessions.admission = None if policy == "report" else ContractGate(lake, policy, run_id)


class ContractGate:
    """Decides about sessions that are about to be committed; see `lakehouse.catalog.sessions.Admission`.

    Args:
        lake: Where they are.
        policy: What becomes of a session that breaks a rule of severity error: it stays open, or goes into quarantine.
        run_id: Names the run in the results; None: a new one for each session.
    """

    def __init__(self, lake: Lakehouse, policy: Policy, run_id: str | None = None) -> None:
        self._lake = lake
        self._policy = policy
        self._run_id = run_id
        # Each holds blocks of rows in memory.
        self._places = threading.BoundedSemaphore(lake.settings.parallelism)

    def __call__(self, session: SessionRecord) -> Collection[int]:
        """Judge a session, and record the verdicts.

        Returns:
            The ids of those topics that were uploaded when it was judged.

        Raises:
            ContractBreachError: If it breaks a rule of severity error, or cannot be judged as a contract file cannot be
                read; a `QuarantinedError` if it was put in quarantine for that.
            CommitConflictError: If it has other topics than those judged, and was to be put in quarantine.
            StorageError: If database or warehouse fail: what cannot be read for now is neither good nor bad.
        """
        with self._places:
            subjects = list(subjects_of_sessions(self._lake, [str(session.locator)]))
            # Others may have come since the session was found to be whole: their rows are not looked at.
            judged = [
                topic.id for subject in subjects for topic in subject.topics if topic.state is TopicState.FINALIZED
            ]
            library = ContractLibrary.load(self._lake.settings.contracts_path)
            try:
                # A rule that cannot be read may be the one that would have refused.
                raise_problems(library.problems)
            except ContractError as error:
                self._refuse(session, judged, f"cannot be judged: {error.message}")
            report = Validator(self._lake, library, PlainJudge(), judges_all=True).validate(subjects, self._run_id)
        results.record(self._lake, report)
        failed = [finding for finding in report.findings if finding.verdict is Verdict.FAILED]
        if failed:
            self._refuse(session, judged, f"breaks its contracts: {_reasons(failed)}")
        return judged

    def _refuse(self, session: SessionRecord, judged: Collection[int], reason: str) -> None:
        reason = shorten(reason, _LONGEST_REASON)
        text = f"session {quoted(session.locator)} {reason}"
        if self._policy == "refuse":
            raise ContractBreachError(text)
        self._lake.quarantine.put(session.locator, reason, judged)
        way_out = "it is in quarantine until an operator releases or discards it: see `lakehouse contracts quarantined`"
        raise QuarantinedError(f"{text}; {way_out}")


def _reasons(failed: list[Finding]) -> str:
    reasons = "; ".join(
        f"{each.subject}, rule {each.rule.id} ({shorten(each.expected, 80)}): {shorten(each.observed, 160)}"
        for each in failed[:NAMED]
    )
    return reasons + (f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else "")
