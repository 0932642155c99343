"""From a table's metadata file to the data files that matter.

Metadata files, manifest lists and manifests are immutable and uniquely named, so each is decoded once and kept in a
bounded cache under its location. Only the pointer to the current metadata file changes; it is read from SQL each time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.iceberg.column_history import ColumnHistory
from lakehouse.catalog.iceberg.manifest_decoding import ManifestFile, decode_frames
from lakehouse.catalog.iceberg.manifest_frames import ManifestFrame
from lakehouse.catalog.iceberg.manifest_lists import DATA_CONTENT, ManifestRecord, partition_may_contain
from lakehouse.catalog.iceberg.table_catalog import TableCatalog
from lakehouse.catalog.iceberg.table_documents import TableDocument, TableFiles
from lakehouse.catalog.reading.row_deletes import RowDeletion
from lakehouse.catalog.time_window import UNBOUNDED, TimeWindow
from lakehouse.ontology.storage_names import RECORDED_AT_COLUMN, SEQUENCE_COLUMN, TIMESTAMP_COLUMN

DELETE_CONTENT = 1
_POSITION_DELETES = 1
_PARQUET, _PUFFIN = "PARQUET", "PUFFIN"
# Reserved field id of `file_path` in position delete files (Iceberg spec, "Reserved Field IDs").
_DELETED_PATH_FIELD = 2147483546
DEFAULT_FRAME_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One data file as a reader needs it.

    Attributes:
        path: URI.
        record_count: Rows.
        file_size: Bytes.
        start_ns, end_ns: Bounds of `timestamp_ns`; the widest possible when the writer recorded none.
        sequence_number: Data sequence number; files of a smaller one were committed earlier.
        holds_other_sequences: Whether rows of other sequences may be among the rows (another engine changed the
            partitioning), so that they must be told apart row by row.
        deletions: What may tell of single rows of this file that another engine deleted.
        columns: By which names of the topic are found in the file; None where it has the same.
    """

    path: str
    record_count: int
    file_size: int
    start_ns: int
    end_ns: int
    sequence_number: int = 0
    holds_other_sequences: bool = False
    deletions: tuple[RowDeletion, ...] = ()
    columns: ColumnHistory | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class IndexedManifest:
    """One manifest of a table, and where its partition values are.

    Attributes:
        record: Its line in the manifest list.
        sequence_position, day_position: Where its partition spec keeps the sequence and the day; None if it does not.
    """

    record: ManifestRecord
    sequence_position: int | None
    day_position: int | None


@dataclass(frozen=True, slots=True)
class _Deletion:
    """A row deletion, and the data files it may concern: by their paths in byte order, and their commits."""

    stored: RowDeletion
    sequence_number: int
    first_path: bytes
    last_path: bytes | None

    def may_concern(self, path: str, sequence_number: int) -> bool:
        # Both kinds hold for files of their own and of earlier commits (Iceberg spec, "Scan Planning").
        return (
            sequence_number <= self.sequence_number
            and self.first_path <= path.encode()
            and (self.last_path is None or path.encode() <= self.last_path)
        )


class SkipIndex:
    """Decoded manifests of all tables, shared by every reader of a process.

    Args:
        files: Reads the metadata files of tables.
        frame_cache_bytes: Largest total size of decoded manifests kept in memory.
    """

    def __init__(self, files: TableFiles, frame_cache_bytes: int = DEFAULT_FRAME_CACHE_BYTES) -> None:
        self._files = files
        self._frames: BoundedCache[str, ManifestFrame] = BoundedCache(frame_cache_bytes, lambda frame: frame.nbytes)

    @property
    def catalog(self) -> TableCatalog:
        """Tells which metadata files are current."""
        return self._files.catalog

    @property
    def cached_bytes(self) -> int:
        """Size of the decoded manifests in memory."""
        return self._frames.weight

    def frames(
        self, metadata_location: str, sequence: str | None = None, content: int = DATA_CONTENT
    ) -> list[ManifestFrame]:
        """Decoded manifests of the current snapshot.

        Args:
            metadata_location: The state of the table.
            sequence: Leave out manifests which, by their partition summaries, hold no file of this sequence.
            content: Manifests of data files (`DATA_CONTENT`) or of delete files (`DELETE_CONTENT`).

        Raises:
            StorageError: If a metadata file cannot be read.
        """
        return self.decoded(
            manifest
            for manifest in self.manifests(self._files.document(metadata_location), content)
            if sequence is None
            or manifest.sequence_position is None
            or partition_may_contain(manifest.record, manifest.sequence_position, sequence.encode())
        )

    def document(self, metadata_location: str) -> TableDocument:
        """The state of a table.

        Raises:
            StorageError: If the metadata file cannot be read.
        """
        return self._files.document(metadata_location)

    def manifests(self, document: TableDocument, content: int = DATA_CONTENT) -> list[IndexedManifest]:
        """Manifests of the current snapshot that list any live file.

        Raises:
            StorageError: If the manifest list cannot be read.
        """
        snapshot = document.current_snapshot
        if snapshot is None:
            return []
        records = [
            record
            for record in self._files.manifest_list(snapshot["manifest-list"])
            if record.content == content and record.live_files > 0
        ]
        positions = {spec_id: _partition_positions(document, spec_id) for spec_id in {each.spec_id for each in records}}
        return [IndexedManifest(record, *positions[record.spec_id]) for record in records]

    def sequence_files(
        self, metadata_location: str, sequence: str, window: TimeWindow = UNBOUNDED
    ) -> list[IndexedFile]:
        """Data files that may hold rows of a sequence inside a window, in no particular order.

        Raises:
            ChangedTableError: If another engine took away the columns that tell whose a row is and of which time.
            StorageError: If a metadata file cannot be read, or another engine recorded row deletions of a kind that
                cannot be applied: rows that were deleted must never be returned.
        """
        deletions = self._deletions(metadata_location, sequence)
        document = self._files.document(metadata_location)
        timestamp_id = document.column_id(TIMESTAMP_COLUMN)
        document.column_id(SEQUENCE_COLUMN)
        found: list[IndexedFile] = []
        for frame in self.frames(metadata_location, sequence):
            starts, ends = frame.long_bounds(timestamp_id)
            is_candidate = _equals_or_null(frame.sequences, sequence)
            if window.start_ns is not None:
                is_candidate &= ends >= window.start_ns
            if window.end_ns is not None:
                is_candidate &= starts < window.end_ns
            for row in np.flatnonzero(is_candidate).tolist():
                if frame.formats[row].as_py() != _PARQUET:
                    raise StorageError("the table holds data files of another format than Parquet")
                path, sequence_number = frame.paths[row].as_py(), int(frame.sequence_numbers[row])
                found.append(
                    IndexedFile(
                        path=path,
                        record_count=int(frame.record_counts[row]),
                        file_size=int(frame.file_sizes[row]),
                        start_ns=int(starts[row]),
                        end_ns=int(ends[row]),
                        sequence_number=sequence_number,
                        holds_other_sequences=not frame.sequences[row].is_valid,
                        deletions=tuple(each.stored for each in deletions if each.may_concern(path, sequence_number)),
                        columns=document.columns,
                    )
                )
        return found

    def _deletions(self, metadata_location: str, sequence: str) -> list[_Deletion]:
        found = []
        for frame in self.frames(metadata_location, sequence, DELETE_CONTENT):
            deleted_paths = frame.metrics.of_field(_DELETED_PATH_FIELD)
            for row in np.flatnonzero(_equals_or_null(frame.sequences, sequence)).tolist():
                path, sequence_number = frame.paths[row].as_py(), int(frame.sequence_numbers[row])
                kind = frame.formats[row].as_py()
                data_file = None if frame.vectors is None else frame.vectors.data_files[row].as_py()
                if frame.contents[row] != _POSITION_DELETES or kind not in (_PARQUET, _PUFFIN):
                    raise StorageError(
                        "another engine deleted rows of the table by value; compact the table there to read it here"
                    )
                if kind == _PARQUET:
                    first, last = deleted_paths.lower[row].as_py() or b"", deleted_paths.upper[row].as_py()
                    found.append(_Deletion(RowDeletion(path), sequence_number, first, last))
                elif frame.vectors is not None and data_file is not None:
                    place = int(frame.vectors.offsets[row]), int(frame.vectors.sizes[row])
                    own = data_file.encode()
                    found.append(_Deletion(RowDeletion(path, place), sequence_number, own, own))
                else:
                    raise StorageError("what another engine deleted from the table is recorded in an unknown form")
        return found

    def decoded(self, manifests: Iterable[IndexedManifest]) -> list[ManifestFrame]:
        """The decoded manifests; those not in memory are read and decoded together.

        Raises:
            StorageError: If one cannot be read.
        """
        wanted = list(manifests)
        found = {each.record.path: self._frames.peek(each.record.path) for each in wanted}
        missing = [each for each in wanted if found[each.record.path] is None]
        contents = self._files.read_all([each.record.path for each in missing])
        for each, frame in zip(missing, _decode(missing, contents), strict=True):
            found[each.record.path] = self._frames.get(each.record.path, partial(_same, frame))
        return [known for each in wanted if (known := found[each.record.path]) is not None]

    def frame(self, manifest: IndexedManifest) -> ManifestFrame:
        """One decoded manifest; see `decoded`."""
        return self.decoded([manifest])[0]


def _same(frame: ManifestFrame) -> ManifestFrame:
    return frame


def _decode(manifests: Sequence[IndexedManifest], contents: Sequence[bytes]) -> list[ManifestFrame]:
    if any(len(content) < each.record.length for each, content in zip(manifests, contents, strict=True)):
        # Cut off between two blocks it would look whole, and list fewer files.
        raise StorageError("a manifest of the table is damaged: its end is missing")
    files = [
        ManifestFile(content, each.record.sequence_number, each.sequence_position, each.day_position)
        for each, content in zip(manifests, contents, strict=True)
    ]
    try:
        return decode_frames(files)
    except Exception as error:  # damaged bytes make a decoder fail in any way
        raise StorageError("a manifest of the table is damaged or of an unknown form") from error


def _partition_positions(document: TableDocument, spec_id: int) -> tuple[int | None, int | None]:
    """Where a partition spec keeps the sequence and the day."""
    spec = next(spec for spec in document.fields["partition-specs"] if spec["spec-id"] == spec_id)
    # The source column of an old spec may have been dropped since; then it is in an older schema.
    names = {column["id"]: column["name"] for schema in document.fields["schemas"] for column in schema["fields"]}
    sequence_position = day_position = None
    for position, partition in enumerate(spec["fields"]):
        source = (names.get(partition["source-id"]), partition["transform"])
        if source == (SEQUENCE_COLUMN, "identity"):
            sequence_position = position
        elif source == (RECORDED_AT_COLUMN, "day"):
            day_position = position
    return sequence_position, day_position


def _equals_or_null(values: pa.Array, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(values, value), True).to_numpy(zero_copy_only=False)
