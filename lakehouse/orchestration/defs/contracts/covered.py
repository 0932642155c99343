"""Which sessions are judged already, or being judged, by a run that somebody launched."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import dagster as dg

from lakehouse.catalog.locators import SessionLocator
from lakehouse.orchestration.defs.contracts.jobs import (
    ValidationConfig,
    validate_recordings,
    validation_of_what_is_named,
)

MAX_RUNS = 200
_NOT_DONE = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING)
_COUNTING = [status for status in dg.DagsterRunStatus if status not in _NOT_DONE]


@dataclass(frozen=True, slots=True)
class Covered:
    """Locators of sessions.

    Attributes:
        judged: By a run that has succeeded.
        awaited: By a run that has not ended; it may yet fail, or be cancelled.
    """

    judged: frozenset[str]
    awaited: frozenset[str]


def covered_by_runs(instance: dg.DagsterInstance, finalized: Mapping[str, int]) -> Covered:
    """The sessions that runs cover which began when these were finalized; a run that failed covers none.

    Args:
        instance: Knows the runs.
        finalized: When each session was, Unix ns by locator.
    """
    if not finalized:
        return Covered(frozenset(), frozenset())
    since = datetime.fromtimestamp(min(finalized.values()) / 1e9, UTC)
    filters = dg.RunsFilter(job_name=validate_recordings.name, statuses=_COUNTING, created_after=since)
    judged: set[str] = set()
    awaited: set[str] = set()
    for record in instance.get_run_records(filters, limit=MAX_RUNS):
        begun_ns = int(record.create_timestamp.timestamp() * 1e9)
        older = [session for session, at_ns in finalized.items() if at_ns < begun_ns]
        is_done = record.dagster_run.status is dg.DagsterRunStatus.SUCCESS
        (judged if is_done else awaited).update(_named(record.dagster_run.run_config, older))
    return Covered(frozenset(judged), frozenset(awaited - judged))


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
