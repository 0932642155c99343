"""`python -m bench.run`: run the benchmarks and write their results as Markdown."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import (
    batch_ingestion,
    candidates,
    compaction,
    contracts,
    doget,
    doput,
    engines,
    finalize,
    finalizers,
    ingest,
    list_leaves,
    memory,
    query,
    storage,
)
from bench.report import Section, markdown
from bench.runs import Run

RESULTS = Path(__file__).with_name("results.md")
BENCHMARKS: dict[str, Callable[[Run], Section]] = {
    "doput": doput.measure,
    "doget": doget.measure,
    "storage": storage.measure,
    "finalize": finalize.measure,
    "finalizers": finalizers.measure,
    "memory": memory.measure,
    "ingest": ingest.measure,
    "contracts": contracts.measure,
    "batch": batch_ingestion.measure,
    "query": query.measure,
    "list_leaves": list_leaves.measure,
    "candidates": candidates.measure,
    "compaction": compaction.measure,
    "engines": engines.measure,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Run the benchmarks.")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="one benchmark; repeatable")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it run at all?")
    parser.add_argument(
        "--output", type=Path, help="file to write; by default bench/results.md for a full run, else only the screen"
    )
    parser.add_argument(
        "--directory", type=Path, help="where to put up to 20 GB while it runs; by default in the temporary directory"
    )
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    console = Console()
    chosen = [name for name in BENCHMARKS if not arguments.only or name in arguments.only]
    load_before = os.getloadavg()[0]
    sections = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        for name in chosen:
            with tempfile.TemporaryDirectory(prefix="lakehouse-bench-", dir=arguments.directory) as directory:
                sections.append(BENCHMARKS[name](Run(Path(directory), arguments.quick, progress)))
    report = markdown(sections, quick=arguments.quick, loads=(load_before, os.getloadavg()[0]))
    console.print(report, markup=False, highlight=False, soft_wrap=True)
    console.print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    output = arguments.output or (None if arguments.quick or arguments.only else RESULTS)
    if output is not None:
        output.write_text(report)
        console.print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
