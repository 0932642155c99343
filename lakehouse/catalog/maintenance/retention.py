"""Retention: what policies say is too old or too much is deleted, the oldest first.

Deletion is the catalog's own: atomic, and in the audit log one by one. What an open session needs is kept. A policy
that would delete rows which a tag or branch of a table pins is refused as a whole, or keeps them if it says so.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Row, func, select

from lakehouse.catalog import audit
from lakehouse.catalog.commits.deletion import Deletion
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.errors import LakehouseError, NotFoundError, StateError, quoted
from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.maintenance.leases import Lease
from lakehouse.catalog.maintenance.pins import Pins
from lakehouse.catalog.maintenance.retention_choice import Candidate, Doomed, choose
from lakehouse.catalog.maintenance.retention_policies import AgeOf, Pinned, RetentionPolicy, read_policies
from lakehouse.catalog.records import SessionState
from lakehouse.catalog.settings import Settings

RETENTION_LEASE = "retention"
LEASE_DURATION_S = 600.0
EARLIEST_RECORDING_NS = 1_262_304_000_000_000_000  # 2010-01-01
# Clocks may differ by a time zone; a recording from further in the future was not made then.
CLOCK_DIFFERENCE_NS = 86_400 * 10**9


@dataclass(frozen=True)
class RetentionCounts:
    """Size of the lake, open sessions included; bytes as uploaded."""

    sequences: int = 0
    topics: int = 0
    bytes: int = 0


@dataclass
class PolicyOutcome:
    """What came of one policy.

    Attributes:
        policy: Its name.
        candidates, candidate_bytes: What it is about.
        doubted: Of these, how many count from their arrival because the times in them cannot be right.
        deleted: What went, or in a dry run would go: name, reason, bytes.
        deleted_bytes: Their sum.
        kept: What was due, but needed by an open session or pinned.
        refused: Why the policy was not carried out; empty if it was.
        failed: What could not be deleted, with the reason.
    """

    policy: str
    candidates: int = 0
    candidate_bytes: int = 0
    doubted: int = 0
    deleted: list[tuple[str, str, int]] = field(default_factory=list)
    deleted_bytes: int = 0
    kept: list[str] = field(default_factory=list)
    refused: str = ""
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class RetentionReport:
    """What one run did; in a dry run, `after` is what would be left."""

    dry_run: bool
    before: RetentionCounts = field(default_factory=RetentionCounts)
    after: RetentionCounts = field(default_factory=RetentionCounts)
    policies: list[PolicyOutcome] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every policy could be carried out."""
        return not any(outcome.refused or outcome.failed for outcome in self.policies)


Progress = Callable[[str, int, int], None]


def run_retention(
    database: Database,
    files: TableFiles,
    deletion: Deletion,
    settings: Settings,
    dry_run: bool = False,
    progress: Progress = lambda _policy, _done, _total: None,
    now_ns: Callable[[], int] = time.time_ns,
) -> RetentionReport | None:
    """Carry out the policies of `settings.retention_path`, one after another.

    Args:
        database: Control plane and table pointers.
        files: Reads table metadata.
        deletion: Of this process.
        settings: Name the file.
        dry_run: Report only.
        progress: Told the policy at work, and deletions done of all.
        now_ns: The clock.

    Returns:
        None if another process is at it.

    Raises:
        ConfigurationError: If the file is wrong; nothing is deleted then.
        StorageError: If database or warehouse fail.
    """
    policies = read_policies(settings.retention_path)
    lease = Lease(database, RETENTION_LEASE, LEASE_DURATION_S)
    if not lease.hold():
        return None
    try:
        run = _Retention(database, files, deletion, lease, progress, now_ns)
        report = RetentionReport(dry_run, before=run.count())
        for policy in policies:
            report.policies.append(run.carry_out(policy, dry_run))
        report.after = run.foreseen(report.before) if dry_run else run.count()
        return report
    finally:
        lease.release()


class _NeededError(StateError):
    """A session was opened on what was to be deleted."""


class _Retention:
    def __init__(
        self,
        database: Database,
        files: TableFiles,
        deletion: Deletion,
        lease: Lease,
        progress: Progress,
        now_ns: Callable[[], int],
    ) -> None:
        self._database = database
        self._files = files
        self._deletion = deletion
        self._lease = lease
        self._progress = progress
        self._now_ns = now_ns
        # What would go in a dry run; several policies may be about the same.
        self._would_go: dict[str, Candidate] = {}

    def count(self) -> RetentionCounts:
        with self._database.snapshot() as connection:
            found = connection.scalar(select(func.count()).select_from(sequences)) or 0
            query = select(func.count(), func.coalesce(func.sum(topics.c.total_bytes), 0)).select_from(topics)
            number, size = connection.execute(query).one()
        return RetentionCounts(found, number, int(size))

    def foreseen(self, counts: RetentionCounts) -> RetentionCounts:
        """What a dry run would leave of these."""
        whole = {each.name for each in self._would_go.values() if each.kind == "sequence"}
        gone = [each for each in self._would_go.values() if each.kind == "sequence" or each.sequence not in whole]
        return RetentionCounts(
            counts.sequences - len(whole),
            counts.topics - sum(each.topics for each in gone),
            counts.bytes - sum(each.size for each in gone),
        )

    def carry_out(self, policy: RetentionPolicy, dry_run: bool) -> PolicyOutcome:
        candidates = self._candidates(policy)
        outcome = PolicyOutcome(policy.name, len(candidates), sum(each.size for each in candidates))
        outcome.doubted = sum(each.is_doubted for each in candidates)
        pins = Pins(self._database, self._files)
        choice = choose(policy, candidates, self._now_ns())
        pinned = {each.candidate.name: _pin_text(pins, each.candidate) for each in choice.doomed}
        protected = frozenset(name for name, text in pinned.items() if text)
        while protected and policy.pinned is Pinned.KEEP:
            # Younger ones go in place of the pinned; these may be pinned as well.
            choice = choose(policy, candidates, self._now_ns(), protected)
            new = {each.candidate.name for each in choice.doomed if _pin_text(pins, each.candidate)}
            if not new:
                break
            protected |= new
        if protected and policy.pinned is Pinned.REFUSE:
            first = next(text for text in pinned.values() if text)
            others = f"; so are {len(protected) - 1} more" if len(protected) > 1 else ""
            outcome.refused = f"{first}{others}. Remove it there, or write 'pinned: keep' into the policy"
            return outcome
        outcome.kept = [each.candidate.name for each in choice.kept]
        self._delete(policy, choice.doomed, outcome, dry_run)
        return outcome

    def _delete(self, policy: RetentionPolicy, doomed: Sequence[Doomed], outcome: PolicyOutcome, dry_run: bool) -> None:
        asking = f"{audit.current_actor().name}, retention policy {quoted(policy.name)}"
        for number, each in enumerate(doomed):
            candidate = each.candidate
            try:
                if dry_run:
                    self._would_go[candidate.name] = candidate
                else:
                    if not self._lease.hold():
                        outcome.refused = "another process has taken over"
                        return
                    with audit.acting_as(asking):
                        self._delete_one(candidate)
            except NotFoundError:
                continue  # somebody else was faster
            except _NeededError:
                outcome.kept.append(candidate.name)
                continue
            except LakehouseError as error:
                outcome.failed[candidate.name] = error.message
                continue
            outcome.deleted.append((candidate.name, each.reason, candidate.size))
            outcome.deleted_bytes += candidate.size
            self._progress(policy.name, number + 1, len(doomed))

    def _delete_one(self, candidate: Candidate) -> None:
        def check(connection: Connection) -> None:
            _check_unchanged(connection, candidate)

        if candidate.kind == "topic":
            self._deletion.delete_topic(TopicLocator.parse(candidate.name), check=check)
        else:
            self._deletion.delete_sequence(candidate.name, check=check)

    def _candidates(self, policy: RetentionPolicy) -> list[Candidate]:
        with self._database.snapshot() as connection:
            found = connection.execute(select(sequences)).all()
            members: dict[int, list[Any]] = {}
            columns = (topics.c.id, topics.c.sequence_id, topics.c.path, topics.c.ontology_tag, topics.c.created_at_ns)
            others = (topics.c.total_bytes, topics.c.table_identifier, sessions.c.state)
            times = (topics.c.end_ns, topics.c.completed_at_ns)
            for row in connection.execute(select(*columns, *others, *times).join_from(topics, sessions)):
                members.setdefault(row.sequence_id, []).append(row)
            is_open = select(sessions.c.sequence_id).where(sessions.c.state != SessionState.FINALIZED)
            open_sequences = set(connection.scalars(is_open))
        candidates: list[Candidate] = []
        for sequence in found:
            if (bucket := _bucket(policy, sequence)) is None:
                continue
            of_sequence = members.get(sequence.id, [])
            if policy.tag is None:
                candidates.append(_sequence(policy, sequence, of_sequence, bucket, sequence.id in open_sequences))
            else:
                tagged = [each for each in of_sequence if each.ontology_tag == policy.tag]
                candidates += [_topic(policy, sequence.name, each, bucket) for each in tagged]
        return candidates


def _bucket(policy: RetentionPolicy, sequence: Row[Any]) -> str | None:
    """The bucket a sequence belongs to; None if the policy is not about it."""
    if not fnmatchcase(sequence.name, policy.sequences):
        return None
    if not policy.metadata and policy.each is None:
        return ""
    metadata = json.loads(sequence.user_metadata)
    if any(_lookup(metadata, path) != wanted for path, wanted in policy.metadata.items()):
        return None
    if policy.each is None:
        return ""
    label = _lookup(metadata, policy.each)
    return None if label is None else json.dumps(label)


def _lookup(metadata: Any, path: str) -> Any:
    for key in path.split("."):
        metadata = metadata.get(key) if isinstance(metadata, dict) else None
    return metadata


def _sequence(
    policy: RetentionPolicy, row: Row[Any], members: Sequence[Row[Any]], bucket: str, is_open: bool
) -> Candidate:
    ends = [each.end_ns for each in members if each.end_ns is not None] if policy.age_of is AgeOf.RECORDING else []
    believed = [each.end_ns for each in members if ends and each.end_ns is not None and _is_plausible(each)]
    return Candidate(
        "sequence",
        row.name,
        row.id,
        row.name,
        bucket,
        max(believed, default=row.created_at_ns),
        sum(each.total_bytes for each in members),
        frozenset(each.table_identifier for each in members if each.table_identifier),
        is_open,
        bool(ends) and not believed,
        len(members),
    )


def _topic(policy: RetentionPolicy, sequence: str, row: Row[Any], bucket: str) -> Candidate:
    has_time = policy.age_of is AgeOf.RECORDING and row.end_ns is not None
    is_believed = has_time and _is_plausible(row)
    return Candidate(
        "topic",
        str(TopicLocator(sequence, row.path)),
        row.id,
        sequence,
        bucket,
        row.end_ns if is_believed else row.created_at_ns,
        row.total_bytes,
        frozenset([row.table_identifier] if row.table_identifier else []),
        row.state != SessionState.FINALIZED,
        has_time and not is_believed,
    )


def _is_plausible(topic: Row[Any]) -> bool:
    """Whether a topic's last time can be when it was recorded: clocks that nobody set begin in 1970 or 2000."""
    arrived_ns = topic.completed_at_ns or topic.created_at_ns
    return bool(EARLIEST_RECORDING_NS <= topic.end_ns <= arrived_ns + CLOCK_DIFFERENCE_NS)


def _pin_text(pins: Pins, candidate: Candidate) -> str:
    """Why a candidate may not go; empty if no tag or branch holds on to it."""
    for identifier in sorted(candidate.tables):
        if names := pins.of(identifier, candidate.sequence):
            return f"{candidate.kind} {quoted(candidate.name)} is pinned by {names[0]} of table {identifier}"
    return ""


def _check_unchanged(connection: Connection, candidate: Candidate) -> None:
    """In the transaction of the deletion: the name still means what was looked at, and no session is open.

    Raises:
        NotFoundError: If it was deleted, and perhaps made again, meanwhile.
        _NeededError: If a session was opened on it.
    """
    table = topics if candidate.kind == "topic" else sequences
    # Whoever opens a session locks the sequence first.
    held = connection.scalar(select(table.c.id).where(table.c.id == candidate.row_id).with_for_update())
    if held is None:
        raise NotFoundError(candidate.kind, candidate.name)
    if candidate.kind == "sequence":
        opened = select(sessions.c.id).where(
            sessions.c.sequence_id == candidate.row_id, sessions.c.state != SessionState.FINALIZED
        )
        if connection.scalar(opened.limit(1)) is not None:
            raise _NeededError(f"an open session needs sequence {quoted(candidate.name)}")
