"""Recordings that are uploaded whole and not committed: refused for their contracts, or left so by a run."""

from collections.abc import Iterable
from dataclasses import dataclass

from lakehouse.catalog.errors import NotFoundError, StateError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.records import SessionRecord
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.contracts.findings import Verdict
from lakehouse.contracts.results import VALIDATION_RESULTS
from lakehouse.orchestration.recordings.present import Stage, find_ingested

SOON_S = 300.0
"""Between upload and commit a run judges the recording, if that is the policy."""
RULES_NAMED = 3
NOT_TRIED = "nobody has committed it: materialize `sequences` for this partition"


@dataclass(frozen=True, slots=True)
class WaitingSession:
    """One of them.

    Attributes:
        since_ns: When its session was opened, Unix ns.
        is_refused: Whether it was judged, and broke a rule.
        reason: Why it waits, for people.
    """

    sequence: str
    session: str
    since_ns: int
    is_refused: bool
    reason: str


def waiting_sessions(lake: Lakehouse) -> list[WaitingSession]:
    """Those refused, and those that nobody has touched for some minutes; oldest first.

    Raises:
        StorageError: If database or warehouse fail.
    """
    uploaded = [session for session in lake.recovery.stale(older_than_s=0) if _is_whole(lake, session)]
    broken = _broken_rules(lake, uploaded)
    untouched = {str(session.locator) for session in lake.recovery.stale(SOON_S)}
    return [
        WaitingSession(
            session.locator.sequence,
            str(session.locator),
            session.created_at_ns,
            is_refused=bool(rules := broken.get(str(session.locator), [])),
            reason=_reason(rules),
        )
        for session in uploaded
        if str(session.locator) in broken.keys() | untouched
    ]


def _is_whole(lake: Lakehouse, session: SessionRecord) -> bool:
    """Not those of clients: what they want to add to a session is not known."""
    try:
        present = find_ingested(lake, session.locator.sequence)
    except (NotFoundError, StateError):
        return False
    return present.stage is Stage.UPLOADED and present.session is not None and present.session.id == session.id


def _broken_rules(lake: Lakehouse, sessions: Iterable[SessionRecord]) -> dict[str, list[str]]:
    """What the latest verdicts hold against sessions, by locator; those with nothing are left out."""
    by_sequence = {session.locator.sequence: session for session in sessions}
    if not by_sequence:
        return {}
    # Verdicts are appended as they are given: this leaves out the files from before the oldest of the sessions.
    since_ns = min(session.created_at_ns for session in by_sequence.values())
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in by_sequence)
    sql = (
        "SELECT sequence, topic, rule, expected, observed, verdict, checked_at_ns, "
        "max(checked_at_ns) OVER (PARTITION BY sequence) AS latest_ns "
        f"FROM {VALIDATION_RESULTS.identifier} WHERE checked_at_ns >= {since_ns} AND sequence IN ({names})"
    )
    try:
        with LakeSql(lake).opened(sql) as statement:
            rows = statement.batches().read_all().to_pylist()
    except NotFoundError:
        return {}  # nothing was ever judged
    found: dict[str, list[str]] = {}
    for row in rows:
        session = by_sequence[row["sequence"]]
        is_latest = row["checked_at_ns"] == row["latest_ns"] and row["checked_at_ns"] >= session.created_at_ns
        if is_latest and row["verdict"] == Verdict.FAILED:
            text = f"{row['topic'] or row['sequence']}, rule {row['rule']} ({row['expected']}): {row['observed']}"
            found.setdefault(str(session.locator), []).append(text)
    return found


def _reason(rules: list[str]) -> str:
    if not rules:
        return NOT_TRIED
    more = f"; and {len(rules) - RULES_NAMED} more" if len(rules) > RULES_NAMED else ""
    return f"breaks its contracts: {'; '.join(sorted(rules)[:RULES_NAMED])}{more}"
