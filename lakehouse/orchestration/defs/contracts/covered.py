"""Which sessions are judged already, or being judged, by a run that somebody launched."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import dagster as dg

from lakehouse.catalog.history import Change
from lakehouse.catalog.locators import SessionLocator
from lakehouse.orchestration.defs.contracts.jobs import (
    ValidationConfig,
    validate_recordings,
    validation_of_what_is_named,
)

MAX_RUNS = 200
_NOT_DONE = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING)
_COUNTING = [status for status in dg.DagsterRunStatus if status not in _NOT_DONE]


def covered_by_runs(instance: dg.DagsterInstance, finalized: Sequence[Change]) -> set[str]:
    """Those of the sessions that runs cover which began when they were finalized; a run that failed covers none."""
    if not finalized:
        return set()
    since = datetime.fromtimestamp(min(change.at_ns for change in finalized) / 1e9, UTC)
    filters = dg.RunsFilter(job_name=validate_recordings.name, statuses=_COUNTING, created_after=since)
    records = instance.get_run_records(filters, limit=MAX_RUNS)
    covered: set[str] = set()
    for record in records:
        begun_ns = int(record.create_timestamp.timestamp() * 1e9)
        older = [change.resource for change in finalized if change.at_ns < begun_ns]
        covered.update(_named(record.dagster_run.run_config, older))
    return covered


def _named(run_config: Any, sessions: Iterable[str]) -> list[str]:
    """Those of the sessions that a run configuration names, one by one or by the pattern of their sequences."""
    try:
        config = ValidationConfig(**run_config["ops"][validation_of_what_is_named.name]["config"])
    except (KeyError, TypeError, ValueError):
        return []  # started by hand with something else
    return [
        name
        for name in sessions
        if name in config.sessions or fnmatchcase(SessionLocator.parse(name).sequence, config.sequences)
    ]
