"""`lakehouse contracts`: what recordings promise, and whether they keep it."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lakehouse.cli.formatting import error_console, human_time, wide_console
from lakehouse.cli.help_style import App

if TYPE_CHECKING:
    from lakehouse.contracts.collection import ContractLibrary
    from lakehouse.contracts.coverage import Coverage, Covered
    from lakehouse.contracts.model import Contract

app = App(
    help="Data contracts: list and check them, and judge recordings by them.",
)

File = Annotated[
    list[Path] | None,
    typer.Option("--contract", metavar="FILE", help="Also use this contract file; can be given more than once."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command("run")
def run(
    sequence: Annotated[
        str, typer.Option(metavar="GLOB", help="Sequences by name; `*` stands for any characters.")
    ] = "*",
    topic: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only topics of these paths, and no rules about whole sequences.")
    ] = None,
    contract: File = None,
    data_docs: Annotated[
        Path | None,
        typer.Option("--data-docs", metavar="DIR", help="Also write the verdicts as a web site of Great Expectations."),
    ] = None,
    record: Annotated[bool, typer.Option(help="Add the verdicts to the table mosaico.validation_results.")] = True,
    as_json: Json = False,
) -> None:
    """Validate recordings now.

    Each sequence is told and recorded when it is judged. Ends with status 1 if a rule of severity error is broken, rows
    cannot be read, for now or at all, or a contract file cannot be used.
    """
    # Imported when the command runs: the libraries behind it take seconds, `--help` should not.
    started = time.monotonic()
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings
    from lakehouse.cli.validation_output import JsonOutput, TextOutput
    from lakehouse.contracts import results
    from lakehouse.contracts.collection import ContractLibrary
    from lakehouse.contracts.data_docs import DataDocs
    from lakehouse.contracts.findings import Verdict, worst
    from lakehouse.contracts.selection import select_subjects
    from lakehouse.contracts.validation import Validator

    settings = Settings.load()
    library = ContractLibrary.load(settings.contracts_path, contract or ())
    _print_problems(library)
    verdict, is_complete = Verdict.PASSED, True
    output = JsonOutput(library.problems) if as_json else TextOutput()
    docs = None if data_docs is None else DataDocs(data_docs)
    with Lakehouse.open(settings) as lake:
        for part in Validator(lake, library).parts(select_subjects(lake, sequence, topic), output.run_id):
            if record:
                results.record(lake, part)
                lake.maintenance.run_pending()
            output.show(part)
            if docs is not None:
                docs.add(part)
            verdict = worst([verdict, part.verdict])
            for name, reason in part.not_judged.items():
                is_complete = False
                error_console().print(f"error: not judged: {name}: {reason}", style="red")
    if docs is not None:
        docs.build()
    output.end(verdict, time.monotonic() - started)
    if library.problems or verdict is Verdict.FAILED or not is_complete:
        raise typer.Exit(1)


@app.command("list")
def list_contracts(contract: File = None, as_json: Json = False) -> None:
    """List the contracts in force, shipped ones and those of the contracts folder."""
    library = _library(contract)
    _print_problems(library)
    with _coverage() as coverage:
        covered = {each.id: coverage.of(each) for each in library.contracts} if coverage else {}
    if as_json:
        typer.echo(json.dumps([_contract_as_dict(each, covered.get(each.id)) for each in library.contracts], indent=2))
    else:
        table = Table("contract", "version", "from", "applies to", "covers", "rules", box=None, header_style="bold")
        for each in library.contracts:
            rules = sum(len(part.rules) for part in each.objects)
            target = ", ".join(map(_target, each.objects))
            table.add_row(each.id, each.version, each.origin, target, _covered(covered.get(each.id)), str(rules))
        wide_console().print(table)
    if library.problems:
        raise typer.Exit(1)


@app.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Id of a contract, or locator of a topic (sequence/path) to see what applies to it."
        ),
    ],
    contract: File = None,
    as_json: Json = False,
) -> None:
    """Show the rules of a contract, or all that apply to a topic after refinement."""
    from lakehouse.contracts.rules.catalogue import SEQUENCE_RULES, TOPIC_RULES

    library = _library(contract)
    _print_problems(library)
    if "/" in name:
        from lakehouse.catalog.lakehouse import Lakehouse
        from lakehouse.catalog.locators import TopicLocator
        from lakehouse.catalog.settings import Settings
        from lakehouse.contracts.resolution import contract_of_topic

        with Lakehouse.open(Settings.load()) as lake:
            effective = contract_of_topic(library.contracts, lake.topics.get(TopicLocator.parse(name)))
        title = f"{name}: {', '.join(effective.sources) or 'no contract'}"
        rules = [(name, rule) for rule in effective.rules.values()]
    else:
        found = library.get(name)
        title = f"{found.id} {found.version} ({found.origin}, {found.file}): {found.purpose}"
        rules = [(_target(part), rule) for part in found.objects for rule in part.rules]
    if as_json:
        typer.echo(json.dumps([{"applies_to": target, **_rule_as_dict(rule)} for target, rule in rules], indent=2))
        return
    console = wide_console()
    console.print(title, style="bold")
    table = Table("applies to", "rule", "severity", "kind", "asks for", "contract", box=None, header_style="bold")
    for target, rule in rules:
        kind = TOPIC_RULES[rule.rule].kind if rule.rule in TOPIC_RULES else SEQUENCE_RULES[rule.rule].kind
        asks = f"{rule.rule} {_parameters(rule)}".strip()
        state = "disabled" if rule.disabled else str(rule.severity)
        table.add_row(target, rule.id, state, str(kind), asks, f"{rule.contract} {rule.contract_version}")
    console.print(table)


@app.command("lint")
def lint(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Contract files; without any, those in the folder.")
    ] = None,
) -> None:
    """Check contract files: every problem with its file, its line, and what is expected.

    Names that nothing in the lake has, where there is one, are noted: they may be misspelt.
    """
    from lakehouse.contracts.collection import USER, read_contract
    from lakehouse.contracts.document import BrokenContractError

    if not files:
        library = _library(None)
        _print_problems(library)
        typer.echo(f"{len(library.contracts)} contracts are good")
        _print_notes([each for each in library.contracts if each.origin == USER])
        if library.problems:
            raise typer.Exit(1)
        return
    good: list[Contract] = []
    for path in files:
        try:
            found = read_contract(path)
        except BrokenContractError as error:
            for problem in error.problems:
                error_console().print(f"error: {problem}", style="red")
        else:
            rules = sum(len(part.rules) for part in found.objects)
            typer.echo(f"{path.name}: good: {found.id} {found.version}, {rules} rules")
            good.append(found)
    _print_notes(good)
    if len(good) < len(files):
        raise typer.Exit(1)


@app.command("failing")
def failing(
    limit: Annotated[int, typer.Option(min=1, help="The latest so many.")] = 200, as_json: Json = False
) -> None:
    """List what fails now, by the latest judgement of each sequence, whoever had it judged.

    What an operator released in spite of it is left out.
    """
    from lakehouse.catalog.failing_rules import count_failing, list_failing
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        counts, found = count_failing(lake.database), list_failing(lake.database, limit)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    if not found:
        typer.echo("nothing fails")
        return
    table = Table("sequence", "topic", "rule", "observed", "since (UTC)", box=None, header_style="bold")
    for each in found:
        table.add_row(each.sequence, each.path or "", each.rule, each.observed, human_time(each.since_ns))
    wide_console().print(table)
    if counts.rules > len(found):
        typer.echo(f"and {counts.rules - len(found):,} more; {counts.sequences:,} sequences fail")


@app.command("quarantined")
def quarantined(as_json: Json = False) -> None:
    """List the sessions that are kept from being committed, with the reason."""
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        found = lake.quarantine.sessions()
    if as_json:
        rows = [
            {"session": str(each.locator), "since_ns": each.quarantined_at_ns, "reason": each.quarantine_reason}
            for each in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("session", "since (UTC)", "reason", box=None, header_style="bold")
    for each in found:
        table.add_row(str(each.locator), human_time(each.quarantined_at_ns or 0), each.quarantine_reason)
    wide_console().print(table if found else "no session is in quarantine")


Sessions = Annotated[
    list[str],
    typer.Argument(
        metavar="SESSION",
        help="As `quarantined` lists them; the name of the sequence is enough where it has only one.",
    ),
]


@app.command("release")
def release(sessions: Sessions) -> None:
    """Commit sessions that are in quarantine, in spite of the contracts they break.

    To have them judged again instead, by contracts that were corrected, ingest the recording or finalize the session
    again.
    """
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        # All first: a name that is wrong is found before anything is done.
        for locator in [lake.quarantine.named(name) for name in sessions]:
            lake.quarantine.release(locator)
            typer.echo(f"{locator}: released, and committed")
        lake.maintenance.run_pending()


@app.command("discard")
def discard(sessions: Sessions) -> None:
    """Delete sessions that are in quarantine, with everything uploaded to them.

    A sequence that holds nothing else goes too.
    """
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        for locator in [lake.quarantine.named(name) for name in sessions]:
            is_empty = lake.quarantine.discard(locator)
            rest = f", and sequence {locator.sequence}, which held nothing else" if is_empty else ""
            typer.echo(f"{locator}: discarded{rest}")


def _library(extra: list[Path] | None) -> "ContractLibrary":
    from lakehouse.catalog.settings import Settings
    from lakehouse.contracts.collection import ContractLibrary

    return ContractLibrary.load(Settings.load().contracts_path, extra or ())


def _print_problems(library: "ContractLibrary") -> None:
    for problem in library.problems:
        error_console().print(f"error: contract not used: {problem}", style="red")


@contextmanager
def _coverage() -> "Iterator[Coverage | None]":
    """What there is to cover; None where there is no lake, or it cannot be reached: contracts are files."""
    from lakehouse.catalog.errors import LakehouseError
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings
    from lakehouse.contracts.coverage import Coverage

    settings = Settings.load()
    with ExitStack() as stack:
        lake = None
        if settings.has_database:
            try:
                lake = stack.enter_context(Lakehouse.open(settings))
            except LakehouseError as error:
                error_console().print(f"note: not compared with the lake: {error.plain_message}", style="yellow")
        yield Coverage(lake.database) if lake else None


def _print_notes(contracts: "Sequence[Contract]") -> None:
    with _coverage() as coverage:
        if coverage is None:
            return
        for each in contracts:
            for note in coverage.notes(each):
                error_console().print(f"note: {each.file}: {note}", style="yellow")


def _covered(covered: "Covered | None") -> str:
    if covered is None:
        return "-"
    counts = ((covered.topics, "topic"), (covered.sequences, "sequence"))
    return ", ".join(f"{count:,} {what}{'s' * (count != 1)}" for count, what in counts if count) or "nothing"


def _target(part: Any) -> str:
    if part.scope == "sequence":
        return f"sequences {part.sequences or '*'}"
    words = [part.ontology_tag or "", part.topics or ("" if part.ontology_tag else "every topic")]
    words += [f"in {part.sequences}"] if part.sequences else []
    return " ".join(word for word in words if word)


def _parameters(rule: Any) -> str:
    words = [f"{key}={value}" for key, value in rule.parameters.items()]
    return " ".join([*words, *([f"tolerating {rule.tolerance}"] if str(rule.tolerance) else [])])


def _rule_as_dict(rule: Any) -> dict[str, Any]:
    return {
        "id": rule.id,
        "rule": rule.rule,
        "column": ".".join(rule.path) or None,
        "parameters": dict(rule.parameters),
        "severity": str(rule.severity),
        "dimension": rule.dimension,
        "disabled": rule.disabled,
        "contract": rule.contract,
        "contract_version": rule.contract_version,
    }


def _contract_as_dict(contract: "Contract", covered: "Covered | None") -> dict[str, Any]:
    return {
        "id": contract.id,
        "version": contract.version,
        "origin": contract.origin,
        "file": contract.file,
        "purpose": contract.purpose,
        "applies_to": [_target(part) for part in contract.objects],
        "covers": None if covered is None else {"topics": covered.topics, "sequences": covered.sequences},
        "rules": sum(len(part.rules) for part in contract.objects),
    }
