"""Which rules of data contracts fail now: the latest verdicts, kept beside sequences and topics.

`mosaico.validation_results` holds every verdict there ever was; what fails now would take reading all of it. Here each
judgement takes the place of the one before, and what is deleted takes its rows along, so that the answer costs what
there is to tell.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import failing_rules, sequences, sessions, topics
from lakehouse.catalog.errors import shorten

MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class FailedRule:
    """One verdict.

    Attributes:
        topic_id: None for a rule about the sequence as a whole.
        rule, contract: Their ids.
        expected, observed: In words.
        start_ns, end_ns: Of the first place where rows fail, both included; None if there is none.
    """

    topic_id: int | None
    rule: str
    contract: str
    expected: str
    observed: str
    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was judged of one sequence, and what of that fails.

    Attributes:
        topic_ids: The topics that were judged.
        is_whole: Whether rules about the sequence as a whole were.
        session_id: Of the session it was about, if that was not finalized; None otherwise.
        failed: The verdicts.
    """

    sequence_id: int
    topic_ids: frozenset[int]
    is_whole: bool
    session_id: int | None
    failed: Sequence[FailedRule]


@dataclass(frozen=True, slots=True)
class FailingRule:
    """A rule that fails now.

    Attributes:
        sequence, path: Where; without a path, as a whole.
        since_ns: When it was first found to fail, without having passed since then.
        is_committed: Whether the rows are in the tables. Those of a session that waits for its commit, or is in
            quarantine, are not.
        start_ns, end_ns: Of the first place where rows fail, both included.
    """

    sequence: str
    path: str | None
    rule: str
    contract: str
    expected: str
    observed: str
    start_ns: int | None
    end_ns: int | None
    since_ns: int
    is_committed: bool


@dataclass(frozen=True, slots=True)
class FailingCounts:
    """How much fails.

    Attributes:
        rules, sequences: Verdicts, and sequences they are about, but for what was accepted.
        accepted: Verdicts in spite of which an operator released the session.
        latest: Grows with every verdict; together with the others it tells whether anything has changed.
    """

    rules: int
    sequences: int
    accepted: int
    latest: int


@dataclass(frozen=True, slots=True)
class FailingAlike:
    """How many sequences fail by one rule."""

    rule: str
    contract: str
    sequences: int
    example: str


def replace(connection: Connection, judgements: Iterable[Judgement]) -> None:
    """Let judgements take the place of earlier ones. What was not judged stays as it was.

    What an operator accepted stays accepted while it fails; what was deleted meanwhile is passed over.
    """
    for judgement in sorted(judgements, key=lambda each: each.sequence_id):
        _replace(connection, judgement, time.time_ns())


def _replace(connection: Connection, judgement: Judgement, now_ns: int) -> None:
    # Locked in the order every writer takes: sequence, session, topic. None of them can be deleted from here on.
    present = select(sequences.c.id).where(sequences.c.id == judgement.sequence_id)
    if connection.scalar(_held(present)) is None:
        return
    session_id = judgement.session_id
    if session_id is not None:
        of_sequence = select(sessions.c.id).where(sessions.c.id == session_id)
        session_id = connection.scalar(_held(of_sequence))
    of_topics = select(topics.c.id).where(topics.c.sequence_id == judgement.sequence_id).order_by(topics.c.id)
    judged: set[int | None] = set(judgement.topic_ids.intersection(connection.scalars(_held(of_topics))))
    if judgement.is_whole and (judgement.session_id is None or session_id is not None):
        judged.add(None)
    before = connection.execute(select(failing_rules).where(failing_rules.c.sequence_id == judgement.sequence_id)).all()
    known = {(row.topic_id, row.rule): row for row in before}
    outdated = [row.id for row in before if row.topic_id in judged]
    if outdated:
        connection.execute(delete(failing_rules).where(failing_rules.c.id.in_(outdated)))
    rows = []
    for failed in judgement.failed:
        if failed.topic_id in judged:
            earlier = known.get((failed.topic_id, failed.rule))
            rows.append(
                {
                    "sequence_id": judgement.sequence_id,
                    "session_id": session_id,
                    "topic_id": failed.topic_id,
                    "rule": failed.rule,
                    "contract": failed.contract,
                    "expected": _storable(failed.expected),
                    "observed": _storable(failed.observed),
                    "start_ns": failed.start_ns,
                    "end_ns": failed.end_ns,
                    "since_ns": earlier.since_ns if earlier else now_ns,
                    # A session that is not committed has been accepted by nobody.
                    "accepted_at_ns": earlier.accepted_at_ns if earlier and session_id is None else None,
                }
            )
    if rows:
        connection.execute(insert(failing_rules), rows)


def accept(connection: Connection, session_id: int) -> None:
    """Take note that a session is committed in spite of what fails in it."""
    of_session = select(topics.c.id).where(topics.c.session_id == session_id)
    connection.execute(
        update(failing_rules)
        .where(failing_rules.c.topic_id.in_(of_session) | (failing_rules.c.session_id == session_id))
        .values(accepted_at_ns=time.time_ns())
    )


def count_failing(database: Database) -> FailingCounts:
    """How much fails now.

    Raises:
        StorageError: If the database fails.
    """
    is_open = failing_rules.c.accepted_at_ns.is_(None)
    query = select(
        func.count().filter(is_open),
        func.count(failing_rules.c.sequence_id.distinct()).filter(is_open),
        func.count().filter(~is_open),
        func.coalesce(func.max(failing_rules.c.id), 0),
    )
    with database.snapshot() as connection:
        return FailingCounts(*connection.execute(query).one())


def list_failing(database: Database, limit: int) -> list[FailingRule]:
    """What fails now and nobody accepted, the latest first.

    Raises:
        StorageError: If the database fails.
    """
    query = (
        select(failing_rules, sequences.c.name, topics.c.path, sessions.c.state)
        .join_from(failing_rules, sequences, failing_rules.c.sequence_id == sequences.c.id)
        .outerjoin(topics, failing_rules.c.topic_id == topics.c.id)
        .outerjoin(sessions, sessions.c.id == func.coalesce(topics.c.session_id, failing_rules.c.session_id))
        .where(failing_rules.c.accepted_at_ns.is_(None))
        .order_by(failing_rules.c.since_ns.desc(), failing_rules.c.id)
        .limit(limit)
    )
    with database.snapshot() as connection:
        return [
            FailingRule(
                row.name,
                row.path,
                row.rule,
                row.contract,
                row.expected,
                row.observed,
                row.start_ns,
                row.end_ns,
                row.since_ns,
                row.state in (None, "finalized"),
            )
            for row in connection.execute(query)
        ]


def failing_alike(database: Database, limit: int) -> list[FailingAlike]:
    """The rules that fail now, those that most sequences fail by first: many are more likely the contract's fault.

    Raises:
        StorageError: If the database fails.
    """
    count = func.count(failing_rules.c.sequence_id.distinct()).label("number")
    query = (
        select(failing_rules.c.rule, failing_rules.c.contract, count, func.min(sequences.c.name).label("example"))
        .join_from(failing_rules, sequences, failing_rules.c.sequence_id == sequences.c.id)
        .where(failing_rules.c.accepted_at_ns.is_(None))
        .group_by(failing_rules.c.rule, failing_rules.c.contract)
        .order_by(count.desc(), failing_rules.c.rule, failing_rules.c.contract)
        .limit(limit)
    )
    with database.snapshot() as connection:
        return [FailingAlike(row.rule, row.contract, row.number, row.example) for row in connection.execute(query)]


def _held(query: Select[int]) -> Select[int]:
    return query.with_for_update(read=True, key_share=True)


def _storable(text: str) -> str:
    # PostgreSQL refuses NUL, which a value of a recording may hold.
    return shorten(text.replace("\0", "\N{REPLACEMENT CHARACTER}"), MAX_TEXT)
