"""How `lakehouse contracts run` tells what it finds, sequence by sequence, as it finds it."""

import json
import uuid
from collections import Counter
from collections.abc import Sequence

import typer

from lakehouse.cli.formatting import bold, human_time, wide_console
from lakehouse.contracts.document import Problem
from lakehouse.contracts.findings import Finding, Verdict, worst
from lakehouse.contracts.results import result_rows
from lakehouse.contracts.validation import ValidationReport


class TextOutput:
    """For people."""

    def __init__(self) -> None:
        self.run_id = str(uuid.uuid4())
        self._console = wide_console()
        self._sequences = self._rows = 0
        self._seconds = 0.0
        self._verdicts: Counter[Verdict] = Counter()

    def show(self, part: ValidationReport) -> None:
        """Tell what was found about some sequences."""
        for sequence in part.sequences:
            found = part.of_sequence(sequence)
            failed, warned = (sum(each.verdict is kind for each in found) for kind in (Verdict.FAILED, Verdict.WARNED))
            topics = len({each.topic for each in found if each.topic})
            counts = f"{topics} topics, {len(found)} rules: {failed} failed, {warned} warned"
            of_sequence = worst(each.verdict for each in found)
            self._verdicts[of_sequence] += 1
            self._console.print(bold(f"{sequence}  {of_sequence}"), f" {counts}")
            for finding in found:
                if finding.verdict is not Verdict.PASSED:
                    self._show_finding(finding)
        self._sequences += len(part.sequences)
        self._rows += part.rows
        self._seconds += part.seconds

    def end(self, verdict: Verdict, seconds: float) -> None:
        """Tell what the whole run was.

        Args:
            verdict: The worst.
            seconds: How long it took, with loading the libraries and recording the verdicts.
        """
        if not self._sequences:
            self._console.print("nothing to validate: no finalized sequence matches")
            return
        of_them = f"{self._verdicts[verdict]} of {self._sequences} sequences"
        what = f"{of_them} {verdict}" if self._sequences > 1 else str(verdict)
        times = f"{self._rows:,} rows read and judged in {self._seconds:.1f} s, {seconds:.1f} s in all"
        self._console.print(f"{what}: {times}; run {self.run_id}")

    def _show_finding(self, finding: Finding) -> None:
        console = self._console
        console.print(bold(f"\n{finding.verdict}: {finding.subject}, rule {finding.rule.id}"))
        if finding.rule.description:
            console.print(f"  {finding.rule.description}")
        console.print(f"  expected  {finding.expected}")
        console.print(f"  observed  {finding.observed}")
        for found in finding.ranges[:3]:
            seconds = (found.end_ns - found.start_ns) / 1e9
            span = f"{human_time(found.start_ns)} UTC, {seconds:.3f} s, {found.rows:,} rows"
            console.print(f"  at        {span}; {found.start_ns} to {found.end_ns} ns")
        if finding.range_count > 3:
            console.print(f"            and {finding.range_count - 3:,} more places")
        if snippet := finding.snippet():
            console.print(f"  look      {snippet}", soft_wrap=True)


class JsonOutput:
    """For programs: one JSON object, written as it grows."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.run_id = str(uuid.uuid4())
        self._rows = 0
        self._seconds = 0.0
        self._without_contract: list[str] = []
        head = {"run_id": self.run_id, "contract_problems": [str(problem) for problem in problems]}
        # Written with the first result: a run that cannot begin writes nothing.
        self._separator = json.dumps(head)[:-1] + ', "results": ['

    def show(self, part: ValidationReport) -> None:
        """Write what was found about some sequences."""
        for row, finding in zip(result_rows(part, part.findings), part.findings, strict=True):
            row["time_ranges"], row["samples"] = json.loads(row["time_ranges"]), json.loads(row["samples"])
            row["snippet"] = finding.snippet()
            typer.echo(f"{self._separator}\n{json.dumps(row)}", nl=False)
            self._separator = ","
        self._rows += part.rows
        self._seconds += part.seconds
        self._without_contract += part.without_contract

    def end(self, verdict: Verdict, seconds: float) -> None:
        """Write what the whole run was; see `TextOutput.end`."""
        tail = {
            "verdict": str(verdict),
            "rows": self._rows,
            "seconds": round(self._seconds, 3),
            "seconds_in_all": round(seconds, 3),
            "topics_without_contract": self._without_contract,
        }
        begun = "" if self._separator == "," else self._separator
        typer.echo(f"{begun}\n], {json.dumps(tail)[1:]}")
