"""Launches jobs in the running Dagster instance, as the button in its UI does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster import DagsterRunStatus
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

from demo.services import HOST, DemoError

REPOSITORY = "__repository__"
LOCATION = "lakehouse"

_LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"


class DagsterInstance:
    """The Dagster webserver of the demo."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: DagsterGraphQLClient | None = None

    def is_ready(self) -> bool:
        """Whether the webserver answers and the code location is loaded."""
        try:
            self._client = DagsterGraphQLClient(HOST, port_number=self._port, use_https=False)
            answer = self._client._execute(_LOCATIONS)  # the client has no public call for this
        except (DagsterGraphQLClientError, OSError):
            return False
        entries = answer["workspaceOrError"].get("locationEntries", [])
        return any(entry["name"] == LOCATION and entry["loadStatus"] == "LOADED" for entry in entries)

    def launch_ingestion(self, recording: Path) -> str:
        """Launch the ingestion of one recording; returns the run id."""
        return self._launch("ingest_recordings", {"ingestion": {"config": {"recordings": [str(recording)]}}})

    def launch_validation(self, sequence: str) -> str:
        """Launch the validation of one sequence against its data contracts; returns the run id."""
        return self._launch("validate_recordings", {"validation_of_what_is_named": {"config": {"sequences": sequence}}})

    def wait_for(self, run_id: str, on_status: Callable[[str], None], timeout_s: float = 300.0) -> None:
        """Wait for the run to succeed, reporting each status.

        Raises:
            DemoError: If it fails or takes too long.
        """
        client = self._connected()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = client.get_run_status(run_id)
            on_status(status.value)
            if status is DagsterRunStatus.SUCCESS:
                return
            if status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
                raise DemoError(f"the run ended as {status.value}: http://{HOST}:{self._port}/runs/{run_id}")
            time.sleep(0.5)
        raise DemoError(f"the run did not end within {timeout_s:.0f} s")

    def _launch(self, job: str, ops: dict[str, Any]) -> str:
        return self._connected().submit_job_execution(
            job, repository_location_name=LOCATION, repository_name=REPOSITORY, run_config={"ops": ops}
        )

    def _connected(self) -> DagsterGraphQLClient:
        if self._client is None:
            raise DemoError("Dagster is not ready yet")
        return self._client
