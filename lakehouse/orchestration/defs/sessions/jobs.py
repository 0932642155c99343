"""Sessions that somebody began and did not end."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from lakehouse.catalog.errors import LakehouseError, NotFoundError, StateError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionRecord
from lakehouse.orchestration.defs.sessions.assets import unfinished_sessions
from lakehouse.orchestration.resources import LakehouseResource

FINISHED = "finalized"
WAITS = "could not be finalized before; tried again after a pause"


class RecoveryConfig(dg.Config):
    """What to finish."""

    interrupted: list[str] | None = Field(None)
    """Locators of interrupted sessions to try; the others are only listed. Left out: all."""


@dg.op(description="Carry interrupted sessions through; report stale open ones, or discard them if that is the policy.")
def end_unfinished_sessions(
    context: dg.OpExecutionContext, config: RecoveryConfig, lakehouse: LakehouseResource
) -> None:
    settings = lakehouse.settings()
    discards = settings.stale_session_policy == "discard"
    rows: list[dg.TableRecord] = []
    failed = 0
    with lakehouse.open(actor=f"dagster run {context.run_id}") as lake:
        for session in lake.recovery.interrupted():
            if config.interrupted is None or str(session.locator) in config.interrupted:
                outcome = _resume(lake, session)
                failed += outcome != FINISHED
            else:
                outcome = WAITS
            rows.append(_row(session, "interrupted while it was finalized", outcome))
        for session in lake.recovery.stale(settings.stale_session_age):
            outcome = _discard(lake, session) if discards else "left open: see LAKEHOUSE_STALE_SESSION_POLICY"
            rows.append(_row(session, f"open, nothing happened for {settings.stale_session_age:,} s", outcome))
    for row in rows:
        context.log.warning(f"session {row.data['session']}: {row.data['state']}; {row.data['outcome']}")
    context.log_event(
        dg.AssetMaterialization(
            unfinished_sessions.key,
            metadata={"count": len(rows), "sessions": dg.MetadataValue.table(rows)} if rows else {"count": 0},
        )
    )
    if failed:
        raise dg.Failure(f"{failed} interrupted sessions could not be finalized; the next run tries again")


@dg.job(description="Finish sessions whose commit was interrupted; report or discard stale open ones.")
def recover_sessions() -> None:
    end_unfinished_sessions()


def recover_config(interrupted: Sequence[str]) -> dg.RunConfig:
    """The run configuration that tries to finish only certain interrupted sessions."""
    return dg.RunConfig(ops={end_unfinished_sessions.name: RecoveryConfig(interrupted=list(interrupted))})


def _resume(lake: Lakehouse, session: SessionRecord) -> str:
    try:
        lake.recovery.resume(session)
    except LakehouseError as error:
        return error.message
    return FINISHED


def _discard(lake: Lakehouse, session: SessionRecord) -> str:
    try:
        lake.recovery.discard(session)
    except (NotFoundError, StateError) as error:
        return error.message
    return "discarded with everything uploaded to it"


def _row(session: SessionRecord, state: str, outcome: str) -> dg.TableRecord:
    return dg.TableRecord({"session": str(session.locator), "state": state, "outcome": outcome})
