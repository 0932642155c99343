"""`lakehouse ingest`: recordings from the command line, through the same code as Dagster."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn
from rich.table import Table
from rich.text import Text

from lakehouse.catalog.errors import BadRequestError, LakehouseError, shorten
from lakehouse.catalog.time_window import TimeInterval
from lakehouse.cli.formatting import bold, error_console, human_bytes, human_span, wide_console
from lakehouse.cli.progress import progress_bar

if TYPE_CHECKING:
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.orchestration.recordings.report import IngestReport, TopicReport


def ingest(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="MCAP files, ROS 1 bags, rosbag2 directories or their .db3 and .mcap files.", metavar="FILE"
        ),
    ],
    sequence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the sequence; by default made from the file name.")
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Take only recorded topics of this name or glob pattern; repeatable."),
    ] = None,
    metadata: Annotated[str, typer.Option(metavar="JSON", help="User metadata of the sequence, a JSON object.")] = "{}",
) -> None:
    """Ingest recordings, each as one sequence.

    Every message is accounted for: counts are compared with the recording's own index, and what could not be decoded is
    listed with the reason. A recording that fails leaves nothing behind and does not stop the others; the exit status
    is 1 if one failed, or is in quarantine (LAKEHOUSE_CONTRACT_POLICY).

    Examples:

    - `lakehouse ingest monday.mcap tuesday.bag`
    - `lakehouse ingest run_17 --sequence run_17_imu --topic '/imu/*' --metadata '{"vehicle": "v7"}'`
    """
    # Imported when the command runs: the libraries behind it take a second, `--help` should not.
    from lakehouse.catalog.lakehouse import Lakehouse
    from lakehouse.catalog.settings import Settings

    if sequence is not None and len(files) > 1:
        raise BadRequestError("--sequence names one sequence, but several recordings are given")
    user_metadata = _parse_metadata(metadata)
    console, errors = wide_console(), error_console()
    failed = 0
    with Lakehouse.open(Settings.load()) as lake:
        if lake.settings.contract_policy != "report":
            from lakehouse.contracts.gate import guard

            guard(lake, lake.settings.contract_policy)
        for path in files:
            try:
                report = _ingest_with_progress(errors, lake, path, sequence, user_metadata, topic)
            except LakehouseError as error:
                failed += 1
                errors.print(Text(f"{path.name}:", style="bold red"), _reason(error))
            else:
                print_report(console, path, report)
        lake.maintenance.run_pending()
    if failed:
        raise typer.Exit(1)


def _reason(error: LakehouseError) -> str:
    """Why a recording is refused, without its name, which stands in front already."""
    from lakehouse.orchestration.recordings.errors import RecordingError

    return shorten(error.reason) if isinstance(error, RecordingError) else error.plain_message


def _parse_metadata(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRequestError(f"--metadata is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequestError("--metadata must be a JSON object")
    return value


def _ingest_with_progress(
    console: Console,
    lake: "Lakehouse",
    path: Path,
    sequence: str | None,
    user_metadata: dict[str, object],
    topics: list[str] | None,
) -> "IngestReport":
    from lakehouse.orchestration.recordings.ingest import ingest_recording

    with progress_bar(console, path.name, MofNCompleteColumn(), TextColumn("messages")) as progress:
        return ingest_recording(
            lake,
            path,
            sequence_name=sequence,
            user_metadata=user_metadata,
            topics=topics,
            progress=lambda done, total: progress(path.name, done, total),
        )


def print_report(console: Console, path: Path, report: "IngestReport") -> None:
    """Show what came of one recording, a line per topic."""
    if report.already_ingested:
        console.print(bold(path.name), f"is in sequence {report.sequence} already; nothing done")
        return
    rows = f"{report.rows:,} rows in {report.duration_s:.1f} s" if report.session else "the recording holds no messages"
    console.print(bold(path.name), "-> sequence", bold(f"{report.sequence}:"), rows)
    if report.session is None:
        return
    table = Table("topic", "type", "in recording", "rows", "span", "size", "files", box=None, header_style="bold")
    for topic in [*report.topics, *report.extra_topics]:
        table.add_row(
            topic.topic,
            topic.ontology_tag or topic.message_type,
            "-" if topic.expected is None else f"{topic.expected:,}",
            f"{topic.rows:,}",
            human_span(_interval(topic)),
            human_bytes(topic.total_bytes),
            str(topic.files),
        )
    console.print(table)
    for topic in report.topics:
        for reason, count in topic.reasons.items():
            console.print(f"{topic.topic}: {count:,} messages not stored: {reason}", style="yellow")
        for note in topic.notes:
            console.print(f"{topic.topic}: {note}")
    for damage in report.damages:
        console.print(f"damaged: {damage}", style="yellow")


def _interval(topic: "TopicReport") -> TimeInterval | None:
    if topic.start_ns is None or topic.end_ns is None:
        return None
    return TimeInterval(topic.start_ns, topic.end_ns)
