"""`make demo`: the whole product on one machine, from a recording to rows in two independent readers.

Starts the gateway and the Dagster UI on the embedded default, launches the ingestion of the shipped recording in
Dagster, reads it back with the official SDK and with Polars, prints what happened, and stays up until Ctrl-C.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo.services import HOST, PROJECT, DemoError, Services, require_free_port
from demo.steps import Steps
from lakehouse.cli.formatting import wide_console

RECORDING = PROJECT / "demo" / "recordings" / "city_drive.mcap"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="print the report and leave, stopping everything")
    parser.add_argument("--port", type=int, default=6726, help="port of the gateway")
    parser.add_argument("--ui-port", type=int, default=3000, help="port of the Dagster UI")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    console = wide_console()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    home = Path(os.environ.setdefault("LAKEHOUSE_HOME", ".lakehouse"))
    # Polars would otherwise recommend a plugin in the middle of the report.
    os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
    try:
        if arguments.port == arguments.ui_port:
            raise DemoError(f"PORT and UI_PORT are both {arguments.port}; each service needs a port of its own")
        require_free_port(arguments.port, "the gateway", "PORT")
        require_free_port(arguments.ui_port, "the Dagster UI", "UI_PORT")
        with Services(home) as services:
            _run(console, services, arguments)
    except DemoError as error:
        console.print(f"demo failed: {error}", style="bold red")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
    return 0


def _run(console: Console, services: Services, arguments: argparse.Namespace) -> None:
    # After the ports are checked: these imports take seconds, an error about ports should not.
    from mosaicolabs import MosaicoClient

    from demo.dagster_client import DagsterInstance
    from demo.report import print_next_steps, print_report, print_verdict, read_back
    from lakehouse.orchestration.recordings.naming import sequence_name_of

    def gateway_answers() -> bool:
        try:
            with MosaicoClient.connect(host=HOST, port=arguments.port, timeout=1):
                return True
        except Exception:  # whatever the client raises while nobody listens yet
            return False

    dagster = DagsterInstance(arguments.ui_port)
    sequence = sequence_name_of(RECORDING)
    with Steps(console) as steps:
        with steps.step("starting the gateway", f"gateway listens on grpc://{HOST}:{arguments.port}"):
            services.start_gateway(arguments.port)
            services.start_dagster(arguments.ui_port)
            services.wait_until("gateway", gateway_answers)
        with steps.step("starting the Dagster UI", f"Dagster UI on http://{HOST}:{arguments.ui_port}"):
            services.wait_until("dagster", dagster.is_ready)
        ingesting = f"ingesting {RECORDING.name} in Dagster"
        with steps.step(ingesting, f"ingested {RECORDING.name} in Dagster") as say:
            run_id = dagster.launch_ingestion(RECORDING)
            dagster.wait_for(run_id, lambda status: say(f"{ingesting}: {status.lower()}"))
        validating = f"validating {sequence} against its data contracts"
        with steps.step(validating, f"validated {sequence} against its data contracts") as say:
            validation_id = dagster.launch_validation(sequence)
            dagster.wait_for(validation_id, lambda status: say(f"{validating}: {status.lower()}"))
        with steps.step("reading it back with the SDK and Polars", "read it back with the SDK and Polars"):
            read = read_back(sequence, arguments.port)
    print_report(console, read)
    print_verdict(console, sequence, validation_id)
    print_next_steps(console, arguments.port, arguments.ui_port, run_id)
    if not arguments.once:
        console.print("\nRunning. Press Ctrl-C to stop.")
        services.wait_for_any_end()
        raise DemoError("a service ended by itself; see the logs folder below LAKEHOUSE_HOME")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
