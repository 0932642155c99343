"""Finding what compaction has to do in a table, from its manifests alone: all columns, no loop over files."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.control_plane.schema import sequences, sessions, topics
from lakehouse.catalog.iceberg.data_files import arrival_of
from lakehouse.catalog.iceberg.manifest_frames import ManifestFrame
from lakehouse.catalog.iceberg.staging import TOPIC_SPEC_ID
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.maintenance.compaction_groups import CompactionRule, PartitionFile, groups_to_compact
from lakehouse.catalog.maintenance.compaction_rewrite import CompactionGroup
from lakehouse.catalog.reading.skip_index import DELETE_CONTENT, SkipIndex
from lakehouse.catalog.records import SessionState
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

_NAMES_PER_QUERY = 400
_CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class CompactionCounts:
    """Size of the topic tables.

    Attributes:
        tables: Topic tables.
        data_files, bytes: What their current snapshots hold.
        small_files: Files far below the size that compaction aims at.
    """

    tables: int = 0
    data_files: int = 0
    small_files: int = 0
    bytes: int = 0

    def __add__(self, other: "CompactionCounts") -> "CompactionCounts":
        return CompactionCounts(
            self.tables + other.tables,
            self.data_files + other.data_files,
            self.small_files + other.small_files,
            self.bytes + other.bytes,
        )


class CompactionSearch:
    """Looks for small files.

    Args:
        database: Control plane and table pointers.
        files: Reads table metadata.
        rule: When compaction pays.
    """

    def __init__(self, database: Database, files: TableFiles, rule: CompactionRule) -> None:
        self._database = database
        self._rule = rule
        self._index = SkipIndex(files, _CACHE_BYTES)

    def count(self, identifier: str) -> CompactionCounts:
        """Count the files of a table.

        Raises:
            StorageError: If its metadata cannot be read.
        """
        document = self._document(identifier)
        if document is None:
            return CompactionCounts()
        data_files = small_files = size = 0
        for manifest in self._index.manifests(document):
            sizes = self._index.frame(manifest).file_sizes
            data_files += len(sizes)
            small_files += int((sizes < self._rule.small_bytes).sum())
            size += int(sizes.sum())
        return CompactionCounts(1, data_files, small_files, size)

    def groups(self, identifier: str) -> list[CompactionGroup]:
        """What is worth being rewritten in a table, by sequence and day.

        A table in which another engine deleted single rows, and files that another engine wrote, are left alone.

        Raises:
            ChangedTableError: If another engine has made it a table that we do not write to.
            StorageError: If database or warehouse fail.
        """
        document = self._document(identifier)
        if document is None or self._index.manifests(document, DELETE_CONTENT):
            return []
        document.check_writable()
        frames = list(self._frames(document))
        partitions = _partitions_with_small_files(frames, self._rule)
        topic_of = self._topics(identifier, {sequence for sequence, _ in partitions})
        timestamp_id = document.column_id(TIMESTAMP_COLUMN)
        found: dict[tuple[str, int], list[PartitionFile]] = {key: [] for key in partitions if key[0] in topic_of}
        for frame in frames:
            _collect(frame, timestamp_id, topic_of, found)
        return [
            CompactionGroup(sequence, day, topic_of[sequence], group)
            for (sequence, day), files in sorted(found.items())
            for group in groups_to_compact(files, self._rule)
        ]

    def live_paths(self, identifier: str, of_sequences: Collection[str]) -> set[str]:
        """URIs of the files that a table holds of some sequences now.

        Raises:
            StorageError: If its metadata cannot be read.
        """
        document = self._document(identifier)
        wanted = pa.array(sorted(of_sequences))
        return {
            path
            for frame in (self._frames(document) if document is not None else ())
            for path in frame.paths.filter(pc.is_in(frame.sequences, wanted)).to_pylist()
        }

    def _document(self, identifier: str) -> TableDocument | None:
        with self._database.snapshot() as connection:
            location = self._index.catalog.locations(connection, [identifier]).get(identifier)
        return None if location is None else self._index.document(location)

    def _frames(self, document: TableDocument) -> Iterator[ManifestFrame]:
        """Files in the partitioning we write; in others they are somebody else's."""
        for manifest in self._index.manifests(document):
            if manifest.record.spec_id == TOPIC_SPEC_ID:
                yield self._index.frame(manifest)

    def _topics(self, identifier: str, names: Collection[str]) -> dict[str, str]:
        """The UUID of the one topic that each sequence has in the table."""
        found: dict[str, str] = {}
        ordered = sorted(names)
        with self._database.snapshot() as connection:
            for start in range(0, len(ordered), _NAMES_PER_QUERY):
                rows = connection.execute(
                    select(sequences.c.name, topics.c.uuid)
                    .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
                    .join(sessions, topics.c.session_id == sessions.c.id)
                    .where(
                        topics.c.table_identifier == identifier,
                        sessions.c.state == SessionState.FINALIZED,
                        sequences.c.name.in_(ordered[start : start + _NAMES_PER_QUERY]),
                    )
                )
                found |= {row.name: row.uuid for row in rows}
        return found


def _partitions_with_small_files(frames: list[ManifestFrame], rule: CompactionRule) -> set[tuple[str, int]]:
    """(sequence, day) of those that hold enough of them."""
    pieces = []
    for frame in frames:
        small = np.flatnonzero(frame.file_sizes < rule.small_bytes)
        rows = pa.array(small)
        pieces.append(pa.table({"sequence": frame.sequences.take(rows), "day": frame.days.take(rows)}))
    if not pieces:
        return set()
    counts = pa.concat_tables(pieces).group_by(["sequence", "day"]).aggregate([([], "count_all")])
    enough = counts.filter(pc.greater_equal(counts["count_all"], rule.min_files)).drop_null()
    return set(zip(enough["sequence"].to_pylist(), enough["day"].to_pylist(), strict=True))


def _collect(
    frame: ManifestFrame, timestamp_id: int, topic_of: dict[str, str], found: dict[tuple[str, int], list[PartitionFile]]
) -> None:
    """Add the files of a manifest to those of the partitions that are looked for."""
    wanted = pc.is_in(frame.sequences, pa.array(sorted({sequence for sequence, _ in found}), pa.string()))
    rows = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        return
    starts, ends = frame.long_bounds(timestamp_id)
    with_nan = frame.metrics.fields_with_nan(rows)
    for row in rows.tolist():
        sequence, day = frame.sequences[row].as_py(), frame.days[row].as_py()
        if (files := found.get((sequence, day))) is not None:
            path = frame.paths[row].as_py()
            files.append(
                PartitionFile(
                    path,
                    int(frame.record_counts[row]),
                    int(frame.file_sizes[row]),
                    int(starts[row]),
                    int(ends[row]),
                    arrival_of(path, topic_of[sequence]),
                    with_nan.get(row, frozenset()),
                )
            )
