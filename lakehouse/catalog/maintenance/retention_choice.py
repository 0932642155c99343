"""Which of the candidates of a policy have to go: the oldest first, bucket by bucket. Pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lakehouse.catalog.maintenance.retention_policies import RetentionPolicy

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sequence, or a topic where the policy is about a tag.

    Attributes:
        kind: "sequence" or "topic".
        name: Its locator.
        row_id: Of the control plane; a name that is used again has another.
        sequence: Name of the sequence.
        bucket: The value of the label, empty without one.
        at_ns: What its age is counted from.
        size: Bytes as uploaded.
        tables: Iceberg tables that hold its rows.
        is_open: Whether a session that is not finalized needs it.
        is_doubted: Whether its age should count from times in it that cannot be right, and counts from its arrival.
        topics: How many topics go with it, itself included.
    """

    kind: str
    name: str
    row_id: int
    sequence: str
    bucket: str
    at_ns: int
    size: int
    tables: frozenset[str] = frozenset()
    is_open: bool = False
    is_doubted: bool = False
    topics: int = 1


@dataclass(frozen=True, slots=True)
class Doomed:
    """A candidate that has to go, and why."""

    candidate: Candidate
    reason: str


@dataclass
class Choice:
    """What a policy wants to go, and what it may not touch though it is due.

    Attributes:
        doomed: Oldest first within each bucket.
        kept: Due, but protected.
    """

    doomed: list[Doomed] = field(default_factory=list)
    kept: list[Doomed] = field(default_factory=list)


def choose(
    policy: RetentionPolicy, candidates: Iterable[Candidate], now_ns: int, protected: frozenset[str] = frozenset()
) -> Choice:
    """Apply a policy.

    What is protected counts towards the size of its bucket, but something younger has to go in its place.

    Args:
        policy: The policy.
        candidates: All that it is about.
        now_ns: The time.
        protected: Names of candidates that may not go, besides those that are open.
    """
    buckets: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        buckets.setdefault(candidate.bucket, []).append(candidate)
    choice = Choice()
    for bucket in sorted(buckets):
        _choose_in(policy, buckets[bucket], now_ns, protected, choice)
    return choice


def _choose_in(
    policy: RetentionPolicy, bucket: Sequence[Candidate], now_ns: int, protected: frozenset[str], choice: Choice
) -> None:
    remaining = sum(candidate.size for candidate in bucket)
    for candidate in sorted(bucket, key=lambda each: (each.at_ns, each.name)):
        is_old = policy.max_age_s is not None and now_ns - candidate.at_ns > policy.max_age_s * NANOSECONDS
        is_too_much = policy.max_bytes is not None and remaining > policy.max_bytes
        if not is_old and not is_too_much:
            # Everything behind it is younger.
            return
        if not is_old and candidate.size == 0:
            # Its going would make no room.
            continue
        reason = "too old" if is_old else "the bucket is too full"
        if candidate.is_doubted:
            reason += ", counted from its arrival: the times in it cannot be right"
        doomed = Doomed(candidate, reason)
        if candidate.is_open or candidate.name in protected:
            choice.kept.append(doomed)
        else:
            choice.doomed.append(doomed)
            remaining -= candidate.size
