"""The two ways out of quarantine that are an operator's decision."""

from collections.abc import Callable

import dagster as dg

from lakehouse.catalog.errors import LakehouseError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import SessionLocator
from lakehouse.orchestration.resources import LakehouseResource


class QuarantinedSessions(dg.Config):
    """Which sessions."""

    sessions: list[str]
    """As the check `no_session_in_quarantine` lists them; the name of the sequence is enough where it has only one."""


@dg.op(description="Commit each session in spite of its contracts.")
def commit_in_spite_of_contracts(
    context: dg.OpExecutionContext, config: QuarantinedSessions, lakehouse: LakehouseResource
) -> None:
    _each(context, config, lakehouse, _release)


@dg.op(description="Delete each session with everything uploaded to it, and its sequence if that holds nothing else.")
def delete_from_quarantine(
    context: dg.OpExecutionContext, config: QuarantinedSessions, lakehouse: LakehouseResource
) -> None:
    _each(context, config, lakehouse, _discard)


@dg.job(description="Commit sessions that are in quarantine, in spite of the contracts they break.")
def release_sessions() -> None:
    commit_in_spite_of_contracts()


@dg.job(description="Delete sessions that are in quarantine, with everything uploaded to them.")
def discard_sessions() -> None:
    delete_from_quarantine()


def _release(lake: Lakehouse, locator: SessionLocator) -> str:
    lake.quarantine.release(locator)
    return "released, and committed"


def _discard(lake: Lakehouse, locator: SessionLocator) -> str:
    is_empty = lake.quarantine.discard(locator)
    return "discarded, and its sequence, which held nothing else" if is_empty else "discarded"


def _each(
    context: dg.OpExecutionContext,
    config: QuarantinedSessions,
    lakehouse: LakehouseResource,
    work: Callable[[Lakehouse, SessionLocator], str],
) -> None:
    """One that fails does not keep the others waiting.

    Raises:
        Failure: If there were such.
    """
    failed: dict[str, str] = {}
    # Not the actor of an ingestion, which reports its own commits: the sensor reports these.
    with lakehouse.open(actor=f"operator, in dagster run {context.run_id}") as lake:
        for name in config.sessions:
            try:
                done = work(lake, lake.quarantine.named(name))
            except LakehouseError as error:
                failed[name] = error.message
                context.log.error(f"{name}: {error.message}")
            else:
                context.log.info(f"{name}: {done}")
    if failed:
        raise dg.Failure("; ".join(f"{name}: {reason}" for name, reason in failed.items())[:2000])
