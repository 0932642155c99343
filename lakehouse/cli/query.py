"""`lakehouse query`: find recordings by name, metadata and content."""

import json
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lakehouse.cli.formatting import error_console, human_span, human_time, wide_console

if TYPE_CHECKING:
    from lakehouse.catalog.query.content_search import AuditFinding
    from lakehouse.catalog.query.engine import MatchingSequence, MatchingTopic
    from lakehouse.catalog.query.explain import Explanation


def query(
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", metavar="CONDITION", help="On rows: 'IMU.acceleration.y > 4'; may be repeated."),
    ] = None,
    sequence: Annotated[str | None, typer.Option(metavar="GLOB", help="Name of the sequence, e.g. 'drive_*'.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="GLOB", help="Name of the topic, e.g. '/imu/*'.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Ontology tag of the topic, e.g. IMU.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            metavar="CONDITION",
            help="On metadata of the sequence: 'weather.kind = rain'; repeatable.",
        ),
    ] = None,
    topic_metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="On metadata of the topic: 'rate >= 100'; may be repeated."),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(metavar="JSON|FILE|-", help="A whole query in the JSON of the protocol, in place of the others."),
    ] = None,
    when: Annotated[
        bool, typer.Option("--when", help="Also find the first and last matching row of each topic.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also tell which files were opened, and what spared the others.")
    ] = False,
    audit: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Also read up to N of the files that statistics spared; status 1 if one holds a match.",
        ),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Find sequences and topics by name, metadata and content.

    All conditions have to hold; those on rows of one tag in one and the same row. Conditions read
    `FIELD = VALUE` (or `!=`, `<`, `<=`, `>`, `>=`, `~` for patterns), `FIELD between LOW and HIGH`, `FIELD in A, B`,
    `FIELD exists`, `FIELD missing`. Elements of lists: `Joy.axes[0]`, `[?]` for any, `[!]` for all.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.errors import BadRequestError, LakehouseError
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.query.explain import Explanation
    from lakehouse.catalog.settings import Settings
    from lakehouse.cli.conditions import in_words

    has_conditions = any(each is not None for each in (where, sequence, topic, tag, metadata, topic_metadata))
    if request is None and not has_conditions:
        raise BadRequestError("no condition given: try --where 'IMU.acceleration.y > 4', or --help")
    if request is None:
        asked = _request(where, sequence, topic, tag, metadata, topic_metadata)
    elif has_conditions:
        raise BadRequestError("--request holds the whole query; the other conditions cannot be added to it")
    else:
        asked = _read_request(request)
    if when:
        asked = asked | {"ontology": (asked.get("ontology") or {}) | {"include_timestamp_range": True}}
    explanation = Explanation() if explain else None
    with Lakehouse.open(Settings.load()) as lake:
        try:
            found = lake.query(asked, explanation)
        except BadRequestError as error:
            if request is not None:
                raise
            raise BadRequestError(in_words(error.plain_message)) from None
        hints: list[str] = []
        # They read the lake again: whatever fails there must not take the answer with it.
        with suppress(LakehouseError):
            hints = [] if found else lake.queries.hints(asked)
        findings = lake.queries.audit(asked, sample=audit, seed=random.randrange(1 << 32)) if audit else None
    if as_json:
        typer.echo(json.dumps(_as_dict(found, explanation) | _audit_as_dict(findings), indent=2))
    else:
        _print_found(found)
        if explanation is not None:
            _print_explanation(explanation)
        if findings is not None:
            _print_findings(findings)
    for hint in hints:
        error_console().print(f"hint: {hint if request else in_words(hint)}", style="yellow")
    if findings:
        raise typer.Exit(1)


def _request(
    where: list[str] | None,
    sequence: str | None,
    topic: str | None,
    tag: str | None,
    metadata: list[str] | None,
    topic_metadata: list[str] | None,
) -> dict[str, Any]:
    from lakehouse.cli.conditions import parse_conditions

    on_sequence: dict[str, Any] = {"user_metadata": parse_conditions(metadata or [])}
    on_topic: dict[str, Any] = {"user_metadata": parse_conditions(topic_metadata or [])}
    if sequence is not None:
        on_sequence["name"] = {"$match": sequence}
    if topic is not None:
        on_topic["name"] = {"$match": topic}
    if tag is not None:
        on_topic["ontology_tag"] = {"$eq": tag}
    return {"sequence": on_sequence, "topic": on_topic, "ontology": parse_conditions(where or [])}


def _read_request(text: str) -> dict[str, Any]:
    from lakehouse.catalog.errors import BadRequestError

    if text == "-":
        text = sys.stdin.read()
    elif not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text()
        except (OSError, ValueError):
            raise BadRequestError("--request is neither a JSON object nor a file that can be read") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequestError("the query is not a JSON object")
    return value


def _as_dict(found: "list[MatchingSequence]", explanation: "Explanation | None") -> dict[str, Any]:
    items = [{"sequence": each.name, "topics": [_topic_as_dict(topic) for topic in each.topics]} for each in found]
    return {"items": items} | ({} if explanation is None else {"explanation": explanation.to_json()})


def _audit_as_dict(findings: "list[AuditFinding] | None") -> dict[str, Any]:
    if findings is None:
        return {}
    return {
        "audit": [{"file": each.path, "row_group": each.row_group, "spared_by": _spared_by(each)} for each in findings]
    }


def _spared_by(finding: "AuditFinding") -> str:
    return "statistics of the row group" if finding.excluded_by is None else f"bounds of {finding.excluded_by.path}"


def _topic_as_dict(topic: "MatchingTopic") -> dict[str, Any]:
    shown: dict[str, Any] = {"locator": str(topic.locator), "ontology_tag": topic.ontology_tag}
    if topic.interval is not None:
        shown |= {"start_ns": topic.interval.start_ns, "end_ns": topic.interval.end_ns}
    return shown


def _print_found(found: "list[MatchingSequence]") -> None:
    if not found:
        wide_console().print("Nothing matches.")
        return
    has_intervals = any(topic.interval is not None for each in found for topic in each.topics)
    columns = [
        "sequence",
        "topic",
        "type",
        *(["first match (UTC)", "last match (UTC)", "span"] if has_intervals else []),
    ]
    table = Table(*columns, box=None, header_style="bold")
    for each in found:
        for topic in each.topics:
            cells = [each.name, topic.locator.path, topic.ontology_tag]
            if topic.interval is not None:
                interval = topic.interval
                cells += [human_time(interval.start_ns), human_time(interval.end_ns), human_span(interval)]
            table.add_row(*cells)
    wide_console().print(table)


def _print_explanation(explanation: "Explanation") -> None:
    from lakehouse.cli.conditions import in_words

    table = Table("looked at", "count", box=None, header_style="bold")
    for name, value in explanation.to_json().items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            for condition, count in value.items():
                table.add_row(f"{label} by {in_words(condition)}", f"{count:,}")
        else:
            table.add_row(label, f"{value:,}")
    wide_console().print()
    wide_console().print(table)


def _print_findings(findings: "list[AuditFinding]") -> None:
    if not findings:
        typer.echo("\nAudit: no file that was read again should have been opened.")
        return
    typer.echo("\nAudit: these hold matching rows, and should not have been spared:")
    for each in findings:
        typer.echo(f"{each.path}, row group {each.row_group}, by {_spared_by(each)}")
