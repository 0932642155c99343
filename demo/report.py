"""Reads the ingested sequence back through two independent doors, and tells what is there."""

from collections import deque
from dataclasses import dataclass

import polars as pl
from mosaicolabs import MosaicoClient
from mosaicolabs.models.sensors import IMU
from pyiceberg.catalog.sql import SqlCatalog
from rich.console import Console
from rich.table import Table

from demo.services import HOST, DemoError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.sequences import SequenceDescription
from lakehouse.catalog.settings import Settings
from lakehouse.cli.formatting import human_bytes, human_span, human_time

IMU_TOPIC = "imu/front"
SLICE_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Swerve:
    """The moment of the greatest lateral acceleration: Unix ns and m/s²."""

    timestamp_ns: int
    lateral_acceleration: float


def find_swerve(table_identifier: str, sequence: str) -> tuple[Swerve, pl.DataFrame]:
    """Find the hardest lateral acceleration with Polars, straight from the Iceberg table.

    Returns:
        The moment, and all rows of the sequence as (timestamp_ns, lateral) in time order.
    """
    rows = (
        _iceberg_rows(table_identifier)
        .filter(pl.col("sequence") == sequence)
        .select("timestamp_ns", pl.col("acceleration").struct.field("y").alias("lateral"))
        .sort("timestamp_ns")
        .collect()
    )
    hardest = rows[rows["lateral"].abs().arg_max() or 0]
    return Swerve(hardest["timestamp_ns"][0], hardest["lateral"][0]), rows


def read_with_sdk(port: int, sequence: str, swerve: Swerve) -> tuple[list[str], list[IMU], list[int]]:
    """List the sequences and stream two seconds around the swerve with the official SDK."""
    start_ns, end_ns = swerve.timestamp_ns - SLICE_NS // 2, swerve.timestamp_ns + SLICE_NS // 2
    with MosaicoClient.connect(host=HOST, port=port) as client:
        names = client.list_sequences()
        handler = client.topic_handler(sequence, IMU_TOPIC)
        if handler is None:
            raise DemoError(f"the SDK does not find topic {sequence}/{IMU_TOPIC}")
        messages = list(handler.get_data_streamer(start_timestamp_ns=start_ns, end_timestamp_ns=end_ns))
    samples = [message.get_data(IMU) for message in messages]
    return names, [sample for sample in samples if sample is not None], [message.timestamp_ns for message in messages]


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What two readers found of one sequence.

    Attributes:
        description: The sequence as the lake describes it.
        imu_table: Identifier of the table the IMU's rows are in.
        swerve: What Polars found.
        names: Sequences that the SDK lists.
        lateral: Lateral acceleration of the rows around the swerve that both readers returned, m/s².
    """

    description: SequenceDescription
    imu_table: str
    swerve: Swerve
    names: list[str]
    lateral: list[float]


def read_back(sequence: str, gateway_port: int) -> ReadBack:
    """Read the sequence through both doors, and compare.

    Raises:
        DemoError: If the readers disagree.
    """
    with Lakehouse.open(Settings.load()) as lake:
        description = lake.sequences.describe(sequence)
        imu_table = lake.topics.get(TopicLocator(sequence, IMU_TOPIC)).table_identifier
    if imu_table is None:
        raise DemoError(f"topic {IMU_TOPIC} holds no rows")
    swerve, rows = find_swerve(imu_table, sequence)
    names, samples, timestamps = read_with_sdk(gateway_port, sequence, swerve)
    in_slice = rows.filter(
        pl.col("timestamp_ns").is_between(
            swerve.timestamp_ns - SLICE_NS // 2, swerve.timestamp_ns + SLICE_NS // 2, closed="left"
        )
    )
    lateral = [sample.acceleration.y for sample in samples]
    if in_slice["timestamp_ns"].to_list() != timestamps or in_slice["lateral"].to_list() != lateral:
        raise DemoError("the SDK and Polars read different rows")
    return ReadBack(description, imu_table, swerve, names, [value or 0.0 for value in lateral])


def print_report(console: Console, read: ReadBack) -> None:
    """Print what is in the lake now, and what was read back."""
    console.rule(f"sequence {read.description.sequence.name}")
    table = Table("topic", "type", "rows", "span", "size", "files", "Iceberg table", box=None, header_style="bold")
    for topic in read.description.topics:
        table.add_row(
            topic.locator.path,
            topic.ontology_tag,
            f"{topic.row_count:,}",
            human_span(topic.interval),
            human_bytes(topic.total_bytes),
            str(topic.chunk_count),
            f"lake.{topic.table_identifier}",
        )
    console.print(table)
    console.rule("read back")
    console.print(f"official SDK      lists {read.names}")
    console.print(f"Polars            finds the hardest lateral acceleration of {read.imu_table}:")
    swerve = read.swerve
    console.print(f"                  {swerve.lateral_acceleration:+.2f} m/s² at {human_time(swerve.timestamp_ns)} UTC")
    console.print(f"both              read the same {len(read.lateral)} IMU rows in the 2 s around it, value for value")
    console.print(_sparkline(read.lateral))


def print_verdict(console: Console, sequence: str, run_id: str) -> None:
    """Print what the data contracts say of the sequence, from the table of verdicts.

    Raises:
        DemoError: If the run left no verdict.
    """
    rows = _iceberg_rows("mosaico.validation_results").filter(
        pl.col("run_id") == run_id, pl.col("sequence") == sequence
    )
    verdicts = rows.select("topic", "rule", "verdict", "observed", "rows_checked").collect()
    if verdicts.is_empty():
        raise DemoError("the validation left no verdict")
    counts = verdicts.group_by("verdict").len().sort("verdict")
    console.rule("data contracts")
    for verdict, count in counts.iter_rows():
        console.print(f"{verdict:<17} {count} rules")
    for topic, rule, verdict, observed in (
        verdicts.filter(pl.col("verdict") != "passed").drop("rows_checked").iter_rows()
    ):
        console.print(f"{verdict:<17} {topic}, rule {rule}: {observed}")
    checked, topics = verdicts["rows_checked"].sum(), verdicts["topic"].drop_nulls().n_unique()
    console.print(f"                  {checked:,} values of {topics} topics, judged by Great Expectations")
    console.print("                  every verdict is a row of mosaico.validation_results")


def print_next_steps(console: Console, gateway_port: int, dagster_port: int, run_id: str) -> None:
    """Where to go from here."""
    console.rule("try next")
    console.print(f"Dagster UI        http://{HOST}:{dagster_port}")
    console.print(f"this ingestion    http://{HOST}:{dagster_port}/runs/{run_id}")
    console.print(f"gateway           grpc://{HOST}:{gateway_port}   (MosaicoClient.connect(host, port))")
    console.print(f"drop a recording  cp FILE {Settings.load().drop_path}")
    console.print("look around       .venv/bin/lakehouse sequences [NAME], .venv/bin/lakehouse --help")
    console.print(f"open with SQL     catalog 'lake' at {Settings.load().database_url}")


def _iceberg_rows(table_identifier: str) -> pl.LazyFrame:
    settings = Settings.load()
    catalog = SqlCatalog("lake", uri=settings.database_url, warehouse=settings.warehouse_uri)
    return pl.scan_iceberg(catalog.load_table(table_identifier))


def _sparkline(values: list[float], width: int = 72) -> str:
    """Lateral acceleration over the slice, one character per bucket mean."""
    blocks = " ▁▂▃▄▅▆▇█"
    size = max(1, len(values) // width)
    means = deque(sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size))
    low, high = min(means), max(means)
    scale = (len(blocks) - 1) / ((high - low) or 1.0)
    line = "".join(blocks[round((mean - low) * scale)] for mean in means)
    return f"lateral m/s²      {low:+.1f} {line} {high:+.1f}"
