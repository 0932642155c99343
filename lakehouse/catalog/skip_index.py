"""From a table's metadata file to the data files that matter.

Metadata files, manifest lists and manifests are immutable and uniquely named, so each is decoded once and kept in a
bounded cache under its location. Only the pointer to the current metadata file changes; it is read from SQL each time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.serializers import FromByteStream
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import DayTransform, IdentityTransform

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.errors import StorageError
from lakehouse.catalog.manifest_frames import ManifestFrame, decode_manifest, decode_manifest_list
from lakehouse.catalog.storage import Warehouse
from lakehouse.catalog.time_window import UNBOUNDED, TimeWindow

DEFAULT_FRAME_CACHE_BYTES = 256 << 20
METADATA_FILES_KEPT = 512
MANIFEST_LISTS_KEPT = 512


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
    """

    path: str
    record_count: int
    file_size: int
    start_ns: int
    end_ns: int
    sequence_number: int = 0
    holds_other_sequences: bool = False


class SkipIndex:
    """Decoded manifests of all tables, shared by every reader of a process.

    Args:
        warehouse: Where the metadata files are.
        frame_cache_bytes: Largest total size of decoded manifests kept in memory.
    """

    def __init__(self, warehouse: Warehouse, frame_cache_bytes: int = DEFAULT_FRAME_CACHE_BYTES) -> None:
        self._warehouse = warehouse
        self._metadata: BoundedCache[str, TableMetadata] = BoundedCache(METADATA_FILES_KEPT)
        self._manifest_lists: BoundedCache[str, list[ManifestFile]] = BoundedCache(MANIFEST_LISTS_KEPT)
        self._frames: BoundedCache[str, ManifestFrame] = BoundedCache(frame_cache_bytes, lambda frame: frame.nbytes)

    def table_metadata(self, metadata_location: str) -> TableMetadata:
        """The parsed metadata file.

        Raises:
            StorageError: If it cannot be read.
        """
        return self._metadata.get(
            metadata_location, lambda: FromByteStream.table_metadata(self._content_stream(metadata_location))
        )

    def frames(
        self, metadata_location: str, sequence: str | None = None, content: ManifestContent = ManifestContent.DATA
    ) -> Iterator[ManifestFrame]:
        """Decoded manifests of the current snapshot.

        Args:
            metadata_location: The state of the table.
            sequence: Leave out manifests which, by their partition summaries, hold no file of this sequence.
            content: Data files or delete files.

        Raises:
            StorageError: If a metadata file cannot be read.
        """
        metadata = self.table_metadata(metadata_location)
        snapshot = metadata.current_snapshot()
        if snapshot is None:
            return
        manifests = self._manifest_lists.get(
            snapshot.manifest_list, lambda: decode_manifest_list(*self._located_content(snapshot.manifest_list))
        )
        specs = metadata.specs()
        for manifest in manifests:
            if manifest.content != content or not (manifest.has_added_files() or manifest.has_existing_files()):
                continue
            positions = _partition_positions(metadata, specs[manifest.partition_spec_id])
            if sequence is None or _may_hold(manifest, positions[0], sequence):
                yield self._frame(manifest, positions)

    def sequence_files(
        self, metadata_location: str, sequence: str, window: TimeWindow = UNBOUNDED
    ) -> list[IndexedFile]:
        """Data files that may hold rows of a sequence inside a window, in no particular order.

        Raises:
            StorageError: If a metadata file cannot be read, or another engine recorded row deletions of a kind that
                cannot be applied: rows that were deleted must never be returned.
        """
        if any(len(frame) for frame in self.frames(metadata_location, sequence, ManifestContent.DELETES)):
            raise StorageError("the table holds row-level deletes of another engine; compact it there to read it here")
        timestamp_id = self.table_metadata(metadata_location).schema().find_field("timestamp_ns").field_id
        found: list[IndexedFile] = []
        for frame in self.frames(metadata_location, sequence):
            starts, ends = frame.long_bounds(timestamp_id)
            is_candidate = _equals_or_null(frame.sequences, sequence)
            if window.start_ns is not None:
                is_candidate &= ends >= window.start_ns
            if window.end_ns is not None:
                is_candidate &= starts < window.end_ns
            for row in np.flatnonzero(is_candidate).tolist():
                if frame.formats[row].as_py() != "PARQUET":
                    raise StorageError("the table holds data files of another format than Parquet")
                found.append(
                    IndexedFile(
                        path=frame.paths[row].as_py(),
                        record_count=int(frame.record_counts[row]),
                        file_size=int(frame.file_sizes[row]),
                        start_ns=int(starts[row]),
                        end_ns=int(ends[row]),
                        sequence_number=int(frame.sequence_numbers[row]),
                        holds_other_sequences=not frame.sequences[row].is_valid,
                    )
                )
        return found

    def _frame(self, manifest: ManifestFile, positions: tuple[int | None, int | None]) -> ManifestFrame:
        def load() -> ManifestFrame:
            _, content = self._located_content(manifest.manifest_path)
            return decode_manifest(manifest, content, *positions)

        return self._frames.get(manifest.manifest_path, load)

    def _located_content(self, location: str) -> tuple[str, bytes]:
        with self._warehouse.open_input(location) as stream:
            return location, stream.read()

    def _content_stream(self, location: str) -> pa.BufferReader:
        return pa.BufferReader(self._located_content(location)[1])


def _partition_positions(metadata: TableMetadata, spec: PartitionSpec) -> tuple[int | None, int | None]:
    """Where a partition spec keeps the sequence and the day."""
    # A source column of an old spec may have been dropped since; then it is in an older schema.
    names = {field.field_id: field.name for schema in metadata.schemas for field in schema.fields}
    sequence_position = day_position = None
    for position, field in enumerate(spec.fields):
        source = names.get(field.source_id)
        if source == "sequence" and isinstance(field.transform, IdentityTransform):
            sequence_position = position
        elif source == "recorded_at" and isinstance(field.transform, DayTransform):
            day_position = position
    return sequence_position, day_position


def _may_hold(manifest: ManifestFile, position: int | None, sequence: str) -> bool:
    if position is None or not manifest.partitions:
        return True
    summary = manifest.partitions[position]
    # Names are ASCII, so the bytes of the bounds (UTF-8) sort like the names.
    value = sequence.encode()
    return (summary.lower_bound is None or summary.lower_bound <= value) and (
        summary.upper_bound is None or value <= summary.upper_bound
    )


def _equals_or_null(values: pa.Array, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(values, value), True).to_numpy(zero_copy_only=False)
