"""What this process has done since it began: plain counters that only grow, for whoever watches it."""

import threading
from dataclasses import dataclass, field, fields


@dataclass
class Activity:
    """Counters; any thread may add to them.

    Attributes:
        commits: Commits carried out, each over any number of tables and plans.
        commit_conflicts: Commits staged in vain, because another process was faster; each was tried again.
        commit_turns_waited_for: Turns to commit that came only when other processes had had theirs, or not at all.
        commit_turns_missed: Those that did not come in time: what went on without was left to the guards.
        query_files_considered: Data files whose bounds were compared with the conditions of a query.
        query_files_opened: Data files that a query looked into.
        cleanup_cycles: Whole cleanup cycles that this process ran.
        expired_snapshots: Snapshots expired by this process.
        purged_files: Orphans and metadata files removed by this process.
        maintenance_failures: Steps of maintenance that failed and will be tried again.
    """

    commits: int = 0
    commit_conflicts: int = 0
    commit_turns_waited_for: int = 0
    commit_turns_missed: int = 0
    query_files_considered: int = 0
    query_files_opened: int = 0
    cleanup_cycles: int = 0
    expired_snapshots: int = 0
    purged_files: int = 0
    maintenance_failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **counts: int) -> None:
        """Add to counters by name."""
        with self._lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def counts(self) -> dict[str, int]:
        """All counters as of one moment."""
        with self._lock:
            return {each.name: getattr(self, each.name) for each in fields(self) if not each.name.startswith("_")}
