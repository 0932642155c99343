"""Tables found by listing the warehouse, each in the state that its catalog pointed to, as far as files can tell.

A commit that a crash interrupted leaves metadata files nobody ever pointed to. What was current follows from three
facts. A file that another one names as its predecessor was current once, and so was everything it tells of. All tables
of one commit moved together: one of them proven, all are. And a commit whose files are there for every one of its
tables had been asked for and made durable: it is carried through rather than undone, as recovery would. Anything else
was staged in part, and the state before it counts.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lakehouse.catalog.commits.plan_staging import COMMIT_ID, COMMIT_TABLES
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles

_METADATA_DIRECTORY = "metadata"
_METADATA_FILE = re.compile(r"/(\d+)-[^/]+\.metadata\.json$")
_DEEPEST_NAMESPACE = 5
_LISTING_THREADS = 16


@dataclass
class FoundTables:
    """What the warehouse holds.

    Attributes:
        documents: The current state of each table by its identifier.
        undone: Identifiers of tables whose newest state belongs to a commit that never happened.
        damaged: Identifiers of tables of which no state can be read.
    """

    documents: dict[str, TableDocument] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Candidates:
    """The possible states of one table.

    Attributes:
        tips: Those of the highest version; several when commits raced or a crash left one behind.
        base: What all of them were built on, and which was therefore current; None for a table that was just created,
            or where it was purged.
    """

    identifier: str
    tips: tuple[TableDocument, ...]
    base: TableDocument | None

    @property
    def is_past_base(self) -> bool:
        """Whether the base was purged, which happens only after it has been left behind."""
        return self.base is None and all(_log(tip) for tip in self.tips)

    def at_rest(self) -> TableDocument | None:
        """The state if no commit over several tables is believed: changes of this table alone harm nobody."""
        alone = [tip for tip in self.tips if self.is_past_base or _commit(tip) is None]
        return max(alone, key=_age) if alone else self.base


def find_tables(files: TableFiles, on_progress: Callable[[int], None] = lambda _found: None) -> FoundTables:
    """List the warehouse and decide on the state of each table.

    Args:
        files: Reads table metadata.
        on_progress: Told how many tables have been looked at.

    Raises:
        StorageError: If the warehouse cannot be listed.
    """
    candidates: list[_Candidates] = []
    found = FoundTables()
    with ThreadPoolExecutor(_LISTING_THREADS, thread_name_prefix="rebuild") as pool:
        locations = dict(_table_locations(files))
        for identifier, table in zip(
            locations, pool.map(lambda each: _look_at(files, *each), locations.items()), strict=True
        ):
            if table is not None:
                candidates.append(table)
            else:
                found.damaged.append(identifier)
            on_progress(len(candidates))
    chosen = choose(candidates)
    for table in candidates:
        document = chosen.get(table.identifier)
        if document is not None:
            found.documents[table.identifier] = document
        if document is None or document.metadata_location not in {tip.metadata_location for tip in table.tips}:
            found.undone.append(table.identifier)
    return found


def _table_locations(files: TableFiles) -> Iterator[tuple[str, str]]:
    """Identifier and root URI of every directory that has table metadata, in order."""
    root = files.warehouse.uri
    pending: list[tuple[tuple[str, ...], str]] = [((), root)]
    while pending:
        names, uri = pending.pop()
        children = sorted(files.warehouse.list_directories(uri))
        if f"{uri}/{_METADATA_DIRECTORY}" in children and names:
            # Stock PyIceberg gives the directories of namespaces a suffix.
            yield ".".join((*(name.removesuffix(".db") for name in names[:-1]), names[-1])), uri
        elif len(names) <= _DEEPEST_NAMESPACE:
            pending += [((*names, child.rpartition("/")[2]), child) for child in reversed(children)]


def _look_at(files: TableFiles, identifier: str, location: str) -> _Candidates | None:
    by_version: dict[int, list[str]] = defaultdict(list)
    for stored in files.warehouse.list_files(f"{location}/{_METADATA_DIRECTORY}"):
        if match := _METADATA_FILE.search(stored.uri):
            by_version[int(match.group(1))].append(stored.uri)
    unfilled: _Candidates | None = None
    seen: set[str] = set()
    for version in sorted(by_version, reverse=True):
        tips = tuple(_readable(files, [uri for uri in sorted(by_version[version]) if uri not in seen]))
        if not tips:
            continue
        # A table that was dropped unfilled may have reached a higher version than the one that took its place.
        filled = tuple(tip for tip in tips if tip.snapshots)
        if filled:
            return _Candidates(identifier, filled, _base(files, filled))
        unfilled = unfilled or _Candidates(identifier, tips, _base(files, tips))
        seen.update(uri for tip in tips for uri in _log(tip))
    return unfilled


def _readable(files: TableFiles, uris: Iterable[str]) -> Iterator[TableDocument]:
    for uri in uris:
        try:
            document = files.document(uri)
        except StorageError:
            continue  # cut off while it was written: nobody ever pointed to it
        if "format-version" in document.fields and "table-uuid" in document.fields:
            yield document


def _base(files: TableFiles, tips: Iterable[TableDocument]) -> TableDocument | None:
    return next(_readable(files, {log[-1] for tip in tips if (log := _log(tip))}), None)


def _log(tip: TableDocument) -> list[str]:
    return [entry["metadata-file"] for entry in tip.fields.get("metadata-log") or []]


def choose(candidates: Iterable[_Candidates]) -> dict[str, TableDocument]:
    """The state of each table; one that was never current at all is absent."""
    tables = list(candidates)
    proven = {commit for table in tables for tip in table.tips for commit in _proven_commits(table, tip)}
    tips_of: dict[str, dict[str, TableDocument]] = defaultdict(dict)
    for table in tables:
        for tip in table.tips:
            if (commit := _commit(tip)) is not None:
                tips_of[commit][table.identifier] = tip
    chosen: dict[str, TableDocument] = {}
    # What is proven first; of the others the latest: an earlier one on the same base would have been its base.
    for commit, tips in sorted(
        tips_of.items(), key=lambda each: (each[0] not in proven, -max(map(_age, each[1].values())))
    ):
        if commit in proven or (_is_complete(tips) and chosen.keys().isdisjoint(tips)):
            chosen |= tips
    for table in tables:
        if table.identifier not in chosen and (state := table.at_rest()) is not None:
            chosen[table.identifier] = state
    return chosen


def _is_complete(tips: dict[str, TableDocument]) -> bool:
    snapshot = next(iter(tips.values())).current_snapshot or {}
    return len(tips) == int(snapshot["summary"].get(COMMIT_TABLES, 1))


def _commit(tip: TableDocument) -> str | None:
    """The commit over several tables that made this state; None if something else did."""
    snapshot = tip.current_snapshot
    # Maintenance that adds no snapshot is younger than the current one.
    if snapshot is None or snapshot["timestamp-ms"] != _age(tip):
        return None
    commit: str | None = (snapshot.get("summary") or {}).get(COMMIT_ID)
    return commit


def _proven_commits(table: _Candidates, tip: TableDocument) -> Iterator[str]:
    is_new = _commit(tip) is not None and not table.is_past_base
    newest = tip.current_snapshot if is_new else None
    for snapshot in tip.snapshots:
        commit = (snapshot.get("summary") or {}).get(COMMIT_ID)
        if commit is not None and snapshot is not newest:
            yield commit


def _age(document: TableDocument) -> int:
    """Time of the change that made it, Unix milliseconds."""
    return int(document.fields["last-updated-ms"])
