"""`lakehouse sequences`: what is in the lake."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lakehouse.catalog.errors import shorten
from lakehouse.cli.formatting import human_bytes, human_span, human_time, wide_console

if TYPE_CHECKING:
    from lakehouse.catalog.records import TopicRecord
    from lakehouse.catalog.sequences import SequenceDescription


def sequences(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the topics of this sequence; without it, list all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the sequences, or the topics of one.

    Each topic is a slice of the Iceberg table in the last column, which any engine can open: `WHERE sequence = 'NAME'`.
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    with Lakehouse.open(Settings.load()) as lake:
        if name is None:
            descriptions = [lake.sequences.describe(found) for found in lake.sequences.names()]
        else:
            descriptions = [lake.sequences.describe(name)]
    if as_json:
        typer.echo(json.dumps([_as_dict(description) for description in descriptions], indent=2))
    elif name is None:
        _print_sequences(descriptions)
    else:
        _print_topics(descriptions[0])


def _as_dict(description: "SequenceDescription") -> dict[str, object]:
    return {
        "sequence": description.sequence.name,
        "created_at_ns": description.sequence.created_at_ns,
        "user_metadata": description.sequence.user_metadata,
        "sessions": [
            {"locator": str(s.locator), "state": s.state, "quarantine_reason": s.quarantine_reason}
            for s in description.sessions
        ],
        "remarks": _remarks(description),
        "topics": [_topic_as_dict(topic) for topic in description.topics],
    }


def _remarks(description: "SequenceDescription") -> list[str]:
    """What people should know before they use the sequence."""
    from lakehouse.catalog.recording_losses import losses_of

    losses = losses_of(description.sequence.user_metadata, description.topics)
    remarks = [f"recording incomplete: {losses}"] if losses is not None and losses.count else []
    kept_back = [each for each in description.sessions if each.quarantine_reason is not None]
    return remarks + [f"in quarantine: {each.locator} {each.quarantine_reason}" for each in kept_back]


def _topic_as_dict(topic: "TopicRecord") -> dict[str, object]:
    return {
        "locator": str(topic.locator),
        "ontology_tag": topic.ontology_tag,
        "state": topic.state,
        "rows": topic.row_count,
        "bytes": topic.total_bytes,
        "files": topic.chunk_count,
        "table": topic.table_identifier,
        "start_ns": topic.interval.start_ns if topic.interval else None,
        "end_ns": topic.interval.end_ns if topic.interval else None,
    }


def _print_sequences(descriptions: "list[SequenceDescription]") -> None:
    table = Table(
        "sequence", "created (UTC)", "sessions", "topics", "rows", "size", "remarks", box=None, header_style="bold"
    )
    for each in descriptions:
        table.add_row(
            each.sequence.name,
            human_time(each.sequence.created_at_ns),
            ", ".join(session.state for session in each.sessions) or "none",
            str(len(each.topics)),
            f"{sum(topic.row_count for topic in each.topics):,}",
            human_bytes(sum(topic.total_bytes for topic in each.topics)),
            "; ".join(shorten(remark, 120) for remark in _remarks(each)),
        )
    wide_console().print(table if descriptions else "No sequences yet: try `lakehouse ingest FILE`.")


def _print_topics(description: "SequenceDescription") -> None:
    table = Table("topic", "type", "rows", "span", "size", "files", "table", box=None, header_style="bold")
    for topic in description.topics:
        table.add_row(
            topic.locator.path,
            topic.ontology_tag,
            f"{topic.row_count:,}",
            human_span(topic.interval),
            human_bytes(topic.total_bytes),
            str(topic.chunk_count),
            topic.table_identifier or "-",
        )
    console = wide_console()
    console.print(table)
    for remark in _remarks(description):
        console.print(remark, style="yellow")
