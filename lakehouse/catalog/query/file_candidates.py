"""Which data files of which topics may hold matching rows, by bounds over all files of all their tables at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Connection, select

from lakehouse.catalog.activity import Activity
from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import data_files, sessions
from lakehouse.catalog.control_plane.schema import topics as topic_rows
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.column_history import ColumnHistory
from lakehouse.catalog.iceberg.data_files import DataFileEntry
from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.element_bounds import ElementBounds
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.file_index import FileIndex, FileSet, ListedFiles, TableState
from lakehouse.catalog.query.leaf_bounds import UNKNOWN, LeafBounds, decode_bound
from lakehouse.catalog.query.predicates import RowCondition, RowPredicate
from lakehouse.catalog.query.pruning import can_exclude, may_match
from lakehouse.catalog.reading.skip_index import IndexedFile, SkipIndex
from lakehouse.catalog.records import SessionState, TopicRecord
from lakehouse.ontology.arrow_iceberg import storage_plan

# Up to so many topics are looked up in the manifests of their own sequences; more, in columns of all files.
FEW_TOPICS = 4
_IDS_PER_LOOKUP = 500
_KEPT = -1
_PARQUET = "PARQUET"

Reasons = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class CandidateFile:
    """A data file to scan for a topic.

    Attributes:
        file: The file.
        predicate: The conditions, compiled for the topic's schema.
        excluded_by: The condition whose bounds say that no row matches; None if none does.
    """

    file: IndexedFile
    predicate: RowPredicate
    excluded_by: FieldCondition | None = None


@dataclass(slots=True)
class _Located:
    """Topics and where their files are, in one consistent view of the database."""

    pointers: Mapping[str, str]
    published: list[TopicRecord] = field(default_factory=list)
    recorded: list[tuple[TopicRecord, list[DataFileEntry]]] = field(default_factory=list)


class CandidateFinder:
    """Finds the files that have to be scanned.

    Args:
        database: Control plane, which also holds the table pointers.
        skip_index: Decoded manifests.
        index: Columns of bounds.
        elements: Bounds of lists and maps in files that were opened before.
        is_pruning: Whether bounds are believed.
        activity: Counts what was looked at.
    """

    def __init__(
        self,
        database: Database,
        skip_index: SkipIndex,
        index: FileIndex,
        elements: ElementBounds,
        *,
        is_pruning: bool = True,
        activity: Activity | None = None,
    ) -> None:
        self._activity = activity or Activity()
        self._database = database
        self._skip_index = skip_index
        self._index = index
        self._elements = elements
        self._is_pruning = is_pruning

    def find(
        self,
        topics: Sequence[TopicRecord],
        conditions: Sequence[FieldCondition],
        explanation: Explanation | None = None,
    ) -> dict[int, list[CandidateFile]]:
        """Files that may hold matching rows, by id of the topic.

        Raises:
            BadRequestError: If a condition does not fit the list it is about.
            StorageError: If database or warehouse cannot be read.
        """
        return self._collect(topics, conditions, explanation, wants_excluded=False)

    def excluded(
        self, topics: Sequence[TopicRecord], conditions: Sequence[FieldCondition]
    ) -> dict[int, list[CandidateFile]]:
        """Files that `find` leaves out because of their bounds, by id of the topic; see `find`."""
        return self._collect(topics, conditions, None, wants_excluded=True)

    def _collect(
        self,
        topics: Sequence[TopicRecord],
        conditions: Sequence[FieldCondition],
        explanation: Explanation | None,
        *,
        wants_excluded: bool,
    ) -> dict[int, list[CandidateFile]]:
        predicates = [
            (RowPredicate.compile(conditions, storage_plan(schema)), members) for schema, members in _by_schema(topics)
        ]
        found: dict[int, list[CandidateFile]] = defaultdict(list)
        for predicate, members in predicates:
            if predicate.is_never:
                continue
            try:
                located = self._locate(members)
                candidates = list(self._candidates(located, predicate, explanation, wants_excluded=wants_excluded))
            except StorageError:
                # Maintenance may have removed metadata between the look at the pointers and the read. Not twice.
                located = self._locate(members)
                candidates = list(self._candidates(located, predicate, explanation, wants_excluded=wants_excluded))
            for topic_id, candidate in candidates:
                found[topic_id].append(candidate)
        return found

    def _locate(self, topics: Sequence[TopicRecord]) -> _Located:
        with self._database.snapshot() as connection:
            published = [topic for topic in topics if topic.session_is_finalized]
            recorded = []
            for topic, is_finalized, table_identifier in _current_states(
                connection, [topic for topic in topics if not topic.session_is_finalized]
            ):
                topic = replace(topic, table_identifier=table_identifier, session_is_finalized=is_finalized)
                if is_finalized:
                    published.append(topic)
                else:
                    recorded.append(topic)
            entries = _entries(connection, recorded)
            identifiers = {
                topic.table_identifier for topic in (*published, *recorded) if topic.table_identifier is not None
            }
            pointers = self._skip_index.catalog.locations(connection, identifiers)
        return _Located(pointers, published, [(topic, entries[topic.id]) for topic in recorded])

    def _candidates(
        self, located: _Located, predicate: RowPredicate, explanation: Explanation | None, *, wants_excluded: bool
    ) -> Iterator[tuple[int, CandidateFile]]:
        yield from self._published(located, predicate, explanation, wants_excluded=wants_excluded)
        for topic, entries in located.recorded:
            location = None if topic.table_identifier is None else located.pointers.get(topic.table_identifier)
            self._activity.add(query_files_considered=len(entries))
            reasons = self._reasons_of_entries(entries, location, predicate)
            if explanation is not None:
                _explain(explanation, predicate, reasons)
            for entry, reason in zip(entries, reasons.tolist(), strict=True):
                if (reason != _KEPT) == wants_excluded:
                    file = IndexedFile(entry.path, entry.record_count, entry.file_size, entry.start_ns, entry.end_ns)
                    yield topic.id, CandidateFile(file, predicate, _condition(predicate, reason))

    def _published(
        self, located: _Located, predicate: RowPredicate, explanation: Explanation | None, *, wants_excluded: bool
    ) -> Iterator[tuple[int, CandidateFile]]:
        by_table: dict[str, list[TopicRecord]] = {}
        for topic in located.published:
            # A table without pointer was dropped with the last of its topics.
            if topic.table_identifier is not None and topic.table_identifier in located.pointers:
                by_table.setdefault(topic.table_identifier, []).append(topic)
        if not by_table:
            return
        tables = sorted(by_table)
        members = [by_table[identifier] for identifier in tables]
        sequences = None
        if sum(map(len, members)) <= FEW_TOPICS:
            sequences = sorted({topic.locator.sequence for topics in members for topic in topics})
        leaves = [(each.column.leaf_path, each.column.storage_kind) for _, each in self._excluding(predicate)]
        files = self._index.files([located.pointers[identifier] for identifier in tables], leaves, sequences)
        self._activity.add(query_files_considered=len(files))
        reasons = self._reasons(files, predicate)
        columns = [
            self._columns(location, table, predicate)
            for location, table in zip(files.locations, files.tables, strict=True)
        ]
        wanted = np.ones(len(files), np.bool_)
        if explanation is None and not wants_excluded:
            wanted = reasons == _KEPT
        by_sequence: dict[int, dict[str, TopicRecord]] = {}
        for number, positions in _by_manifest(files, wanted):
            table, listed = files.manifests[number][0], files.files[number]
            of_table = by_sequence.get(table)
            if of_table is None:
                of_table = by_sequence[table] = {topic.locator.sequence: topic for topic in members[table]}
            owners = [of_table.get(name) for name in listed.sequences]
            codes = listed.sequence_codes[positions]
            # The last entry answers for code -1: files that may hold any sequence.
            is_candidate = np.array([*(owner is not None for owner in owners), True])[codes]
            numbers = positions[is_candidate] + files.first_files[number]
            self._exclude_by_elements(reasons, numbers, listed, positions[is_candidate], predicate)
            if explanation is not None:
                _explain(explanation, predicate, reasons[numbers])
            for position, file_number in zip(positions[is_candidate].tolist(), numbers.tolist(), strict=True):
                reason = int(reasons[file_number])
                if (reason != _KEPT) != wants_excluded:
                    continue
                code = int(listed.sequence_codes[position])
                owner = owners[code] if code >= 0 else None
                for topic in of_table.values() if owner is None else (owner,):
                    file = IndexedFile(
                        path=listed.paths[position].as_py(),
                        record_count=int(listed.record_counts[position]),
                        file_size=int(listed.file_sizes[position]),
                        start_ns=int(listed.starts_ns[position]),
                        end_ns=int(listed.ends_ns[position]),
                        sequence_number=int(listed.sequence_numbers[position]),
                        holds_other_sequences=code < 0,
                        columns=columns[table],
                    )
                    if listed.formats[position].as_py() != _PARQUET:
                        raise StorageError("the table holds data files of another format than Parquet")
                    if files.tables[table].has_row_deletes:
                        file = self._with_row_deletes(files.locations[table], topic, file)
                    yield topic.id, CandidateFile(file, predicate, _condition(predicate, reason))

    def _columns(self, location: str, table: TableState, predicate: RowPredicate) -> ColumnHistory | None:
        """What leads from names of topics to the columns of files; None where their names do."""
        if table.columns is not None:
            return table.columns
        leaves = (leaf for each in predicate.conditions for leaf in each.column.leaf_paths)
        if all(leaf in table.field_ids for leaf in leaves):
            return None
        return self._skip_index.document(location).columns

    def _with_row_deletes(self, location: str, topic: TopicRecord, file: IndexedFile) -> IndexedFile:
        for known in self._skip_index.sequence_files(location, topic.locator.sequence):
            if known.path == file.path:
                return replace(file, deletions=known.deletions)
        return file

    def _reasons(self, files: FileSet, predicate: RowPredicate) -> Reasons:
        """Per file the number of the condition that excludes it first, or `_KEPT`."""
        reasons = np.full(len(files), _KEPT, np.int16)
        for number, condition in self._excluding(predicate):
            bounds = self._index.bounds(files, condition.column.leaf_path, condition.column.storage_kind)
            _exclude(reasons, number, condition, bounds)
        return reasons

    def _exclude_by_elements(
        self,
        reasons: Reasons,
        numbers: npt.NDArray[np.int64],
        listed: ListedFiles,
        positions: npt.NDArray[np.int64],
        predicate: RowPredicate,
    ) -> None:
        for number, condition in self._excluding(predicate):
            column = condition.column
            kept = reasons[numbers] == _KEPT
            if column.is_repeated and kept.any():
                paths = listed.paths.take(pa.array(positions[kept])).to_pylist()
                bounds = self._elements.bounds(paths, column.leaf_path, column.storage_kind)
                reasons[numbers[kept][~may_match(condition, bounds)]] = number

    def _reasons_of_entries(
        self, entries: Sequence[DataFileEntry], location: str | None, predicate: RowPredicate
    ) -> Reasons:
        reasons = np.full(len(entries), _KEPT, np.int16)
        if location is None or not entries:
            return reasons
        field_ids = self._index.table(location).field_ids
        for number, condition in self._excluding(predicate):
            field_id = field_ids.get(condition.column.leaf_path)
            if field_id is not None:
                _exclude(reasons, number, condition, _entry_bounds(entries, field_id, condition))
        return reasons

    def _excluding(self, predicate: RowPredicate) -> list[tuple[int, RowCondition]]:
        if not self._is_pruning:
            return []
        return [(number, each) for number, each in enumerate(predicate.conditions) if can_exclude(each)]


def _by_schema(topics: Iterable[TopicRecord]) -> list[tuple[bytes, list[TopicRecord]]]:
    """Topics with rows, by schema. Most have the same: comparing with the last one is cheaper than hashing each."""
    groups: dict[bytes, list[TopicRecord]] = {}
    last, members = b"", None
    for topic in topics:
        schema = topic.arrow_schema
        if schema is None:
            continue
        if members is None or schema != last:
            last, members = schema, groups.setdefault(schema, [])
        members.append(topic)
    return list(groups.items())


def _current_states(
    connection: Connection, topics: Sequence[TopicRecord]
) -> Iterator[tuple[TopicRecord, bool, str | None]]:
    """What has become of topics whose session was open; those that are gone are left out."""
    by_id = {topic.id: topic for topic in topics}
    for ids in _chunks(list(by_id)):
        query = (
            select(topic_rows.c.id, topic_rows.c.uuid, topic_rows.c.table_identifier, sessions.c.state)
            .join_from(topic_rows, sessions, topic_rows.c.session_id == sessions.c.id)
            .where(topic_rows.c.id.in_(ids))
        )
        for row in connection.execute(query):
            if row.uuid == by_id[row.id].uuid:
                yield by_id[row.id], row.state == SessionState.FINALIZED, row.table_identifier


def _entries(connection: Connection, topics: Sequence[TopicRecord]) -> dict[int, list[DataFileEntry]]:
    found: dict[int, list[DataFileEntry]] = defaultdict(list)
    for ids in _chunks([topic.id for topic in topics]):
        query = select(data_files.c.topic_id, data_files.c.entry).where(data_files.c.topic_id.in_(ids))
        for topic_id, entry in connection.execute(query):
            found[topic_id].append(DataFileEntry.from_bytes(entry))
    return found


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _IDS_PER_LOOKUP):
        yield ids[start : start + _IDS_PER_LOOKUP]


def _by_manifest(files: FileSet, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Numbers of manifests with wanted files, and their positions inside."""
    numbers = np.flatnonzero(wanted)
    owners = np.searchsorted(files.first_files, numbers, side="right") - 1
    manifests, starts = np.unique(owners, return_index=True)
    for manifest, positions in zip(manifests.tolist(), np.split(numbers, starts[1:]), strict=False):
        yield manifest, positions - files.first_files[manifest]


def _exclude(reasons: Reasons, number: int, condition: RowCondition, bounds: LeafBounds) -> None:
    reasons[(reasons == _KEPT) & ~may_match(condition, bounds)] = number


def _condition(predicate: RowPredicate, reason: int) -> FieldCondition | None:
    return None if reason == _KEPT else predicate.conditions[reason].source


def _explain(explanation: Explanation, predicate: RowPredicate, reasons: Reasons) -> None:
    explanation.add(files_considered=len(reasons))
    for number, condition in enumerate(predicate.conditions):
        explanation.exclude_files(condition.source, int(np.count_nonzero(reasons == number)))


def _entry_bounds(entries: Sequence[DataFileEntry], field_id: int, condition: RowCondition) -> LeafBounds:
    """Bounds recorded with files that are not published yet."""
    kind = condition.column.storage_kind
    rows = []
    for entry in entries:
        if condition.column.is_repeated:
            known = entry.element_bounds.get(field_id)
            if known is None:
                rows.append((None, None, UNKNOWN, UNKNOWN, UNKNOWN))
                continue
            nans = UNKNOWN if known.nan_count is None else known.nan_count
            lower, upper = decode_bound(kind, known.lower), decode_bound(kind, known.upper)
            rows.append((lower, upper, known.value_count, known.null_count, nans))
        else:
            rows.append(
                (
                    decode_bound(kind, entry.lower_bounds.get(field_id)),
                    decode_bound(kind, entry.upper_bounds.get(field_id)),
                    entry.value_counts.get(field_id, UNKNOWN),
                    entry.null_value_counts.get(field_id, UNKNOWN),
                    entry.nan_value_counts.get(field_id, UNKNOWN),
                )
            )
    return LeafBounds.of_values(kind, rows)
