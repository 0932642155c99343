"""Which sequences a condition on rows leaves over, before any of their topics is looked up.

A lake may hold a hundred thousand topics of a tag, and a condition a handful of matches. The bounds of all files of the
tag's tables, in columns, name those few sequences faster than the control plane can list the topics. The answer never
lacks a sequence that has a match; it is only worth having when it is short.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select, text

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.errors import BadRequestError, StorageError
from lakehouse.catalog.query.conditions import FieldCondition
from lakehouse.catalog.query.explain import Explanation
from lakehouse.catalog.query.file_index import FileIndex, FileSet
from lakehouse.catalog.query.predicates import RowCondition, RowPredicate
from lakehouse.catalog.query.pruning import can_exclude, may_match
from lakehouse.catalog.query.sql_dialect import dialect_of
from lakehouse.catalog.records import SessionState, TopicState
from lakehouse.ontology.arrow_iceberg import storage_plan

MOST_SEQUENCES = 10_000
MOST_FILES = 100_000
_SCHEMAS_KEPT = 10_000

# From each table and schema of a tag to the next one, by a few steps into an index, however many topics share them.
_NEXT = """
    SELECT COALESCE(
        (SELECT CAST({column} AS TEXT) FROM topics WHERE ontology_tag = :tag
            AND table_identifier = found.table_identifier AND arrow_schema_digest > found.digest
            ORDER BY arrow_schema_digest LIMIT 1),
        (SELECT CAST({column} AS TEXT) FROM topics WHERE ontology_tag = :tag
            AND table_identifier > found.table_identifier ORDER BY table_identifier, arrow_schema_digest LIMIT 1)
    )
"""
_TABLES_AND_SCHEMAS = text(
    f"""
    WITH RECURSIVE found (table_identifier, digest) AS (
        SELECT CAST('' AS TEXT), CAST('' AS TEXT)
        UNION ALL
        SELECT ({_NEXT.format(column="table_identifier")}), ({_NEXT.format(column="arrow_schema_digest")})
        FROM found WHERE table_identifier IS NOT NULL
    )
    SELECT table_identifier, digest FROM found WHERE table_identifier <> ''
    """
)


@dataclass(frozen=True, slots=True)
class TaggedTables:
    """Where rows of a tag are, as of one moment.

    Attributes:
        by_schema: Metadata locations of the tables that hold topics of each Arrow schema (IPC bytes).
        unpublished: Names of sequences with uploaded topics in open sessions, whose files are in no manifest yet.
        is_complete: Whether every topic is accounted for.
    """

    by_schema: Mapping[bytes, Sequence[str]]
    unpublished: frozenset[str]
    is_complete: bool


class SequencePrefilter:
    """Names the sequences that may have a match, by bounds of files alone.

    Args:
        index: Columns of bounds.
    """

    def __init__(self, index: FileIndex) -> None:
        self._index = index
        self._schemas: BoundedCache[str, bytes] = BoundedCache(_SCHEMAS_KEPT)

    def locate(self, connection: Connection, tag: str) -> TaggedTables:
        """Find the tables of a tag, in one snapshot."""
        tables: dict[str, list[str]] = defaultdict(list)
        for row in connection.execute(_TABLES_AND_SCHEMAS, {"tag": tag}):
            tables[row.digest].append(row.table_identifier)
        every = {identifier for group in tables.values() for identifier in group}
        pointers = self._index.catalog.locations(connection, every)
        by_schema = {
            self._schema(connection, tag, digest): [pointers[each] for each in identifiers if each in pointers]
            for digest, identifiers in tables.items()
            if digest
        }
        return TaggedTables(by_schema, self._unpublished(connection, tag), is_complete="" not in tables)

    def surviving(
        self, tables: TaggedTables, conditions: Sequence[FieldCondition], explanation: Explanation | None = None
    ) -> set[str] | None:
        """Names of sequences that may have a topic with a row that satisfies all conditions.

        A topic that was there when the tables were located and still is there does so under a name given here.

        Args:
            explanation: Is told how many files were compared.

        Returns:
            None if bounds cannot tell, or leave over too many.
        """
        if not tables.is_complete:
            return None
        found = set(tables.unpublished)
        for schema, locations in tables.by_schema.items():
            try:
                predicate = RowPredicate.compile(conditions, storage_plan(schema))
                if predicate.is_never:
                    continue
                excluding = [condition for condition in predicate.conditions if can_exclude(condition)]
                names = self._in_tables(locations, excluding, explanation) if excluding else None
            except (BadRequestError, StorageError):
                # Whoever looks at the topics themselves finds out whether that matters.
                return None
            if names is None:
                return None
            found |= names
            if len(found) > MOST_SEQUENCES:
                return None
        return found

    def _in_tables(
        self, locations: Sequence[str], excluding: Sequence[RowCondition], explanation: Explanation | None
    ) -> set[str] | None:
        leaves = [(each.column.leaf_path, each.column.storage_kind) for each in excluding]
        files = self._index.files(locations, leaves)
        may_hold = np.ones(len(files), np.bool_)
        excluded: list[tuple[FieldCondition, int]] = []
        for condition, (leaf_path, kind) in zip(excluding, leaves, strict=True):
            before = np.count_nonzero(may_hold)
            may_hold &= may_match(condition, self._index.bounds(files, leaf_path, kind))
            excluded.append((condition.source, int(before - np.count_nonzero(may_hold))))
        if explanation is not None:
            explanation.compare_first(excluded, len(files))
        return _sequences_of(files, np.flatnonzero(may_hold))

    def _schema(self, connection: Connection, tag: str, digest: str) -> bytes:
        def load() -> bytes:
            query = select(topics.c.arrow_schema).where(
                topics.c.ontology_tag == tag, topics.c.arrow_schema_digest == digest
            )
            return bytes(connection.execute(query.limit(1)).scalar_one())

        return self._schemas.get(digest, load)

    def _unpublished(self, connection: Connection, tag: str) -> frozenset[str]:
        is_open = topics.c.session_id.in_(select(sessions.c.id).where(sessions.c.state != SessionState.FINALIZED))
        # Open sessions are few, topics of the tag are not.
        tags = dialect_of(connection).without_index(topics.c.ontology_tag)
        query = (
            select(sequences.c.name)
            .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
            .where(is_open, tags == tag, topics.c.state == TopicState.FINALIZED)
        )
        return frozenset(connection.scalars(query))


def _sequences_of(files: FileSet, numbers: npt.NDArray[np.int64]) -> set[str] | None:
    """Names of the sequences of some files; None if a file may hold rows of any."""
    if len(numbers) > MOST_FILES:
        return None
    found: set[str] = set()
    owners = np.searchsorted(files.first_files, numbers, side="right") - 1
    for manifest in np.unique(owners).tolist():
        listed = files.files[manifest]
        codes = np.unique(listed.sequence_codes[numbers[owners == manifest] - files.first_files[manifest]])
        if codes[0] < 0:
            return None
        found.update(listed.sequences[code] for code in codes.tolist())
    return found
