"""Bounds of one leaf over all files of any number of tables, as columns that a condition is tested against at once.

Manifests never change, so what is taken from one is kept. What is taken from all manifests of a set of tables is kept
as long as none of them changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.iceberg.element_records import decode_records
from lakehouse.catalog.iceberg.manifest_frames import ManifestFrame
from lakehouse.catalog.iceberg.manifest_lists import partition_may_contain
from lakehouse.catalog.query.field_columns import ELEMENT, KEY, VALUE
from lakehouse.catalog.query.leaf_bounds import LeafBounds
from lakehouse.catalog.reading.skip_index import DELETE_CONTENT, IndexedManifest, SkipIndex
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

MIB = 1 << 20
DEFAULT_CACHE_BYTES = 256 * MIB
TABLES_KEPT = 20_000
_BYTES_PER_MANIFEST = 400

LeafPath = tuple[str, ...]
# Names in storage, and the type of the values there.
Leaf = tuple[LeafPath, pa.DataType]


@dataclass(frozen=True, slots=True)
class TableState:
    """What a query needs of one state of a table.

    Attributes:
        manifests: Manifests of data files.
        field_ids: Field id of each leaf.
        repeated: Those of leaves inside lists and maps.
        has_row_deletes: Whether another engine deleted single rows.
    """

    manifests: tuple[IndexedManifest, ...]
    field_ids: Mapping[LeafPath, int]
    repeated: frozenset[int]
    has_row_deletes: bool


@dataclass(frozen=True)
class ListedFiles:
    """The files of one manifest, without bounds.

    Attributes:
        starts_ns, ends_ns: Bounds of `timestamp_ns`; the widest possible where the writer recorded none.
        sequence_codes: Per file the number of its sequence in `sequences`; -1 where the file tells none.
        sequences: Names of sequences, each once.
    """

    paths: pa.Array
    formats: pa.Array
    sequence_codes: npt.NDArray[np.int32]
    sequences: tuple[str, ...]
    starts_ns: npt.NDArray[np.int64]
    ends_ns: npt.NDArray[np.int64]
    sequence_numbers: npt.NDArray[np.int64]
    record_counts: npt.NDArray[np.int64]
    file_sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def nbytes(self) -> int:
        """Size in memory."""
        counts = (self.sequence_numbers, self.record_counts, self.file_sizes)
        vectors = (self.sequence_codes, self.starts_ns, self.ends_ns, *counts)
        names = sum(len(name) + 60 for name in self.sequences)
        return int(self.paths.nbytes + sum(vector.nbytes for vector in vectors) + names)

    @classmethod
    def of(cls, frame: ManifestFrame, timestamp_id: int) -> "ListedFiles":
        """Take from a decoded manifest what does not depend on the question."""
        starts_ns, ends_ns = frame.long_bounds(timestamp_id)
        encoded = frame.sequences.dictionary_encode()
        return cls(
            frame.paths,
            frame.formats.dictionary_encode(),
            encoded.indices.fill_null(-1).to_numpy().astype(np.int32),
            tuple(encoded.dictionary.to_pylist()),
            starts_ns,
            ends_ns,
            frame.sequence_numbers,
            frame.record_counts,
            frame.file_sizes,
        )


@dataclass(frozen=True)
class FileSet:
    """All files of some tables, numbered through.

    Attributes:
        locations: Metadata locations, which name the states of the tables.
        is_whole: Whether these are all files, not only those in the manifests of some sequences.
        tables: Their states.
        manifests: Every manifest, with the number of its table.
        files: The files of each manifest.
        first_files: Number of the first file of each manifest, and behind the last the number of files.
    """

    locations: tuple[str, ...]
    is_whole: bool
    tables: tuple[TableState, ...]
    manifests: tuple[tuple[int, IndexedManifest], ...]
    files: tuple[ListedFiles, ...]
    first_files: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.first_files[-1])


class FileIndex:
    """Columns of bounds of all tables, shared by every query of a process.

    Args:
        skip_index: Decodes manifests.
        cache_bytes: Largest total size of what is kept in memory, beside the skip index's own share.
    """

    def __init__(self, skip_index: SkipIndex, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._skip_index = skip_index
        self._tables: BoundedCache[str, TableState] = BoundedCache(TABLES_KEPT)
        # Half for what single manifests say, half for what belongs to sets of tables.
        self._listed: BoundedCache[str, ListedFiles] = BoundedCache(cache_bytes // 4, lambda files: files.nbytes)
        self._bounds: BoundedCache[tuple[str, int, str], LeafBounds] = BoundedCache(
            cache_bytes // 4, lambda bounds: bounds.nbytes
        )
        self._sets: BoundedCache[tuple[str, ...], FileSet] = BoundedCache(
            cache_bytes // 4, lambda files: sum(_BYTES_PER_MANIFEST + each.nbytes for each in files.files)
        )
        self._joined: BoundedCache[tuple[tuple[str, ...], LeafPath, str], LeafBounds] = BoundedCache(
            cache_bytes // 4, lambda bounds: bounds.nbytes
        )

    @property
    def cached_bytes(self) -> int:
        """Size of what is kept in memory."""
        return self._listed.weight + self._bounds.weight + self._sets.weight + self._joined.weight

    def table(self, location: str) -> TableState:
        """One state of a table.

        Raises:
            StorageError: If a metadata file cannot be read.
        """
        return self._tables.get(location, lambda: self._load_table(location))

    def files(
        self, locations: Sequence[str], leaves: Sequence[Leaf] = (), sequences: Sequence[str] | None = None
    ) -> FileSet:
        """The files of the current snapshots of some tables.

        Args:
            locations: Metadata locations.
            leaves: Whose bounds will be asked for: taken from a manifest while it is decoded anyway.
            sequences: Leave out manifests that hold no file of these, by their partition summaries.

        Raises:
            StorageError: If a metadata file cannot be read.
        """
        key = tuple(locations)
        if sequences is None:
            return self._sets.get(key, lambda: self._load_files(key, leaves, None))
        return self._load_files(key, leaves, [name.encode() for name in sequences])

    def bounds(self, files: FileSet, leaf_path: LeafPath, kind: pa.DataType) -> LeafBounds:
        """What is known of a leaf in every file.

        Args:
            files: The files.
            leaf_path: Names in storage.
            kind: Type of the values in storage.

        Raises:
            StorageError: If a manifest cannot be read.
        """
        if not files.is_whole:
            return self._join(files, leaf_path, kind)
        return self._joined.get((files.locations, leaf_path, str(kind)), lambda: self._join(files, leaf_path, kind))

    def _load_files(
        self, locations: tuple[str, ...], leaves: Sequence[Leaf], sequences: Sequence[bytes] | None
    ) -> FileSet:
        tables = tuple(map(self.table, locations))
        manifests = tuple(
            (number, manifest)
            for number, table in enumerate(tables)
            for manifest in table.manifests
            if sequences is None or _may_contain(manifest, sequences)
        )
        files = tuple(self._load_manifest(tables[table], manifest, leaves) for table, manifest in manifests)
        first_files = np.cumsum([0, *(len(each) for each in files)], dtype=np.int64)
        return FileSet(locations, sequences is None, tables, manifests, files, first_files)

    def _load_table(self, location: str) -> TableState:
        document = self._skip_index.document(location)
        leaves = _leaf_ids(document.schema.fields, ())
        return TableState(
            tuple(self._skip_index.manifests(document)),
            {path: field_id for path, field_id, _ in leaves},
            frozenset(field_id for _, field_id, is_repeated in leaves if is_repeated),
            bool(self._skip_index.manifests(document, DELETE_CONTENT)),
        )

    def _load_manifest(self, table: TableState, manifest: IndexedManifest, leaves: Sequence[Leaf]) -> ListedFiles:
        timestamp_id = table.field_ids[(TIMESTAMP_COLUMN,)]
        listed = self._listed.get(
            manifest.record.path, lambda: ListedFiles.of(self._skip_index.frame(manifest), timestamp_id)
        )
        for path, kind in leaves:
            field_id = table.field_ids.get(path)
            if field_id is not None:
                self._manifest_bounds(table, manifest, field_id, kind)
        return listed

    def _join(self, files: FileSet, leaf_path: LeafPath, kind: pa.DataType) -> LeafBounds:
        parts = []
        for (table, manifest), listed in zip(files.manifests, files.files, strict=True):
            field_id = files.tables[table].field_ids.get(leaf_path)
            if field_id is None:
                parts.append(LeafBounds.unknown(kind, len(listed)))
            else:
                parts.append(self._manifest_bounds(files.tables[table], manifest, field_id, kind))
        return LeafBounds.joined(parts) if parts else LeafBounds.unknown(kind, 0)

    def _manifest_bounds(
        self, table: TableState, manifest: IndexedManifest, field_id: int, kind: pa.DataType
    ) -> LeafBounds:
        def load() -> LeafBounds:
            frame = self._skip_index.frame(manifest)
            columns = [known.column(field_id) for known in frame.metrics]
            records = decode_records(frame.elements, frame.paths.to_pylist()) if field_id in table.repeated else None
            if records is not None:
                columns = list(map(pc.coalesce, records.columns(field_id, len(frame)), columns))
            return LeafBounds.decode(kind, *columns)

        return self._bounds.get((manifest.record.path, field_id, str(kind)), load)


def _may_contain(manifest: IndexedManifest, sequences: Sequence[bytes]) -> bool:
    position = manifest.sequence_position
    return position is None or any(partition_may_contain(manifest.record, position, name) for name in sequences)


def _leaf_ids(
    fields: Sequence[NestedField], parent: LeafPath, is_repeated: bool = False
) -> list[tuple[LeafPath, int, bool]]:
    return [
        leaf
        for field in fields
        for leaf in _leaves(field.field_id, field.field_type, (*parent, field.name), is_repeated)
    ]


def _leaves(field_id: int, kind: IcebergType, path: LeafPath, is_repeated: bool) -> list[tuple[LeafPath, int, bool]]:
    if isinstance(kind, StructType):
        return _leaf_ids(kind.fields, path, is_repeated)
    if isinstance(kind, ListType):
        return _leaves(kind.element_id, kind.element_type, (*path, ELEMENT), True)
    if isinstance(kind, MapType):
        return [
            *_leaves(kind.key_id, kind.key_type, (*path, KEY), True),
            *_leaves(kind.value_id, kind.value_type, (*path, VALUE), True),
        ]
    return [(path, field_id, is_repeated)]
