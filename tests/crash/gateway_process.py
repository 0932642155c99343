"""A gateway in a process of its own, which a crash point may kill, and the raw client calls the crash tests make."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from tests.forked import ForkedProgram
from tests.processes import free_port


class GatewayProcess:
    """`lakehouse run` over a home and a database."""

    def __init__(self, home: Path, database_url: str, **variables: str) -> None:
        self.port = free_port()
        self._crash_file = home / "crash-at"
        self._crash_file.unlink(missing_ok=True)
        self.log = home / f"gateway-{self.port}.log"
        environment = {
            **os.environ,
            "LAKEHOUSE_HOME": str(home),
            "MOSAICOD_DB_URL": database_url,
            "LAKEHOUSE_CRASH_FILE": str(self._crash_file),
            # Small chunks: an upload closes several files.
            "MOSAICOD_MAX_CHUNK_SIZE_IN_BYTES": str(256 * 1024),
            "MOSAICOD_PARQUET_IN_MEMORY_ENCODING_BUFFER_SIZE": str(1 << 20),
            **variables,
        }
        arguments = ("run", "--port", str(self.port))
        self.process = ForkedProgram("lakehouse.cli.main", *arguments, environment=environment, output=self.log)
        self.client = self._connect()

    def _connect(self) -> flight.FlightClient:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the gateway ended: {self.log.read_text()[-2000:]}"
            client = flight.FlightClient(f"grpc://127.0.0.1:{self.port}")
            try:
                list(client.do_action(flight.Action("info", b"{}")))
            except (flight.FlightUnavailableError, flight.FlightTimedOutError):
                client.close()
                time.sleep(0.05)
            else:
                return client
        raise AssertionError("the gateway did not answer within 60 s")

    def action(self, name: str, **body: Any) -> dict[str, Any] | None:
        results = list(self.client.do_action(flight.Action(name, json.dumps(body).encode())))
        return json.loads(results[0].body.to_pybytes())["response"] if results else None

    def upload(self, locator: str, topic_uuid: str, batches: list[pa.RecordBatch]) -> None:
        descriptor = flight.FlightDescriptor.for_command(
            json.dumps({"resource_locator": locator, "topic_uuid": topic_uuid}).encode()
        )
        writer, _ = self.client.do_put(descriptor, batches[0].schema)
        with writer:
            for batch in batches:
                writer.write_batch(batch)

    def crash_at(self, point: str) -> None:
        """From now on the process dies by SIGKILL when it reaches that point."""
        self._crash_file.write_text(point)

    def was_killed(self) -> bool:
        """Whether the process has died by SIGKILL within a few seconds."""
        try:
            return self.process.wait(timeout=10) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
