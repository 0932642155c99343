"""Verdicts as a web site of Great Expectations: a suite and a validation per sequence, a column per topic and rule.

The site is static files. Its pages load style sheets and scripts from public servers when they are looked at.
"""

import hashlib
import html
import logging
import re
from collections.abc import Container, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from lakehouse.contracts.findings import Finding, Verdict
from lakehouse.contracts.judging import Measure, PlainJudge, measures_of
from lakehouse.contracts.model import Severity
from lakehouse.contracts.rules.rule import between
from lakehouse.contracts.validation import ValidationReport

SITE = "contracts"
# As Great Expectations names them.
_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "warning", Severity.INFO: "info"}


class DataDocs:
    """Collects the verdicts of a run and builds the site.

    Args:
        directory: Where to; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        import great_expectations as gx
        from great_expectations.expectations import core

        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        self.directory = directory
        self._gx: Any = gx
        self._between: Any = core.ExpectColumnValuesToBeBetween
        self._context: Any = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
        for other in list(self._context.list_data_docs_sites()):
            self._context.delete_data_docs_site(other)
        self._context.add_data_docs_site(
            SITE,
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(directory.resolve()),
                },
            },
        )
        self._source = self._context.data_sources.add_pandas("lake")

    def add(self, part: ValidationReport) -> None:
        """Take in what was found about some sequences."""
        for sequence in part.sequences:
            self._add(sequence, part.of_sequence(sequence))

    def build(self) -> Path:
        """Write the site; returns its first page."""
        self._context.build_data_docs(site_names=[SITE])
        return self.directory / "index.html"

    def _add(self, sequence: str, findings: Sequence[Finding]) -> None:
        import pandas as pd

        columns: dict[str, list[float]] = {}
        expectations = []
        for finding in findings:
            for each in _measures(finding):
                column = _unused(_plain(f"{finding.subject} {finding.rule.id}: {each.expectation.column}"), columns)
                columns[column] = [each.value]
                notes = html.escape(f"{finding.verdict}. Expected: {finding.expected}. Observed: {finding.observed}")
                severity = _SEVERITIES[finding.rule.severity]
                arguments = {**each.expectation.arguments, "notes": notes, "severity": severity}
                expectations.append(self._between(column=column, **arguments))
        if not expectations:
            return
        name = _name(sequence)
        asset = self._source.add_dataframe_asset(name)
        definition = self._gx.ValidationDefinition(
            name=name,
            data=asset.add_batch_definition_whole_dataframe("verdicts"),
            suite=self._context.suites.add(self._gx.ExpectationSuite(name=name, expectations=expectations)),
        )
        self._context.validation_definitions.add(definition).run(batch_parameters={"dataframe": pd.DataFrame(columns)})


def _measures(finding: Finding) -> Iterator[Measure]:
    """What the verdict rests on; where that is no count of rows, whether it is broken."""
    measures = measures_of(finding.rows_failed, finding.rows_checked, finding.rule.tolerance)
    is_broken = finding.verdict is not Verdict.PASSED
    if PlainJudge().broken([measures]) == [is_broken]:
        yield from measures
    else:
        yield Measure(float(is_broken), between("broken", 0, 0))


def _plain(text: str) -> str:
    """Without what means something in templates and pages."""
    return re.sub(r"[^\w./:% -]", "_", text)


def _unused(name: str, taken: Container[str]) -> str:
    """With a number where another has become the same."""
    numbered = (f"{name} {number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in taken)


def _name(sequence: str) -> str:
    """A name for files."""
    plain = re.sub(r"[^\w.-]", "_", sequence)
    return plain if plain == sequence else f"{plain}_{hashlib.sha256(sequence.encode()).hexdigest()[:8]}"
