"""Bounds of one leaf over all files of any number of tables, as columns that a condition is tested against at once.

Manifests never change, so what is taken from one is kept. What is taken from all manifests of a set of tables is kept
as long as none of them changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.catalog.bounded_cache import BoundedCache
from lakehouse.catalog.iceberg.column_history import ColumnHistory, walk_columns
from lakehouse.catalog.iceberg.element_records import decode_records
from lakehouse.catalog.iceberg.encoded_metrics import NO_FIELD, read_metrics
from lakehouse.catalog.iceberg.manifest_frames import LeafMetrics, ManifestFrame, long_bounds
from lakehouse.catalog.iceberg.manifest_lists import partition_may_contain
from lakehouse.catalog.iceberg.table_catalog import TableCatalog
from lakehouse.catalog.query.leaf_bounds import LeafBounds
from lakehouse.catalog.reading.skip_index import DELETE_CONTENT, IndexedManifest, SkipIndex
from lakehouse.ontology.storage_names import SEQUENCE_COLUMN, TIMESTAMP_COLUMN

MIB = 1 << 20
DEFAULT_CACHE_BYTES = 256 * MIB
TABLES_KEPT = 20_000
_BYTES_PER_MANIFEST = 400

# Manifests read and decoded at a time, in bytes.
_DECODED_BYTES = 32 * MIB

LeafPath = tuple[str, ...]
# Names in storage, and the type of the values there.
Leaf = tuple[LeafPath, pa.DataType]
# The number of a table among others, and a manifest of it.
TableManifest = tuple[int, IndexedManifest]


@dataclass(frozen=True, slots=True)
class TableState:
    """What a query needs of one state of a table.

    Attributes:
        manifests: Manifests of data files.
        columns: Its columns by all names they ever had; None, which saves memory, if each has had one all the time.
        field_ids: Field id of each leaf by its path in topics; leaves that were dropped are absent.
        repeated: Those of leaves inside lists and maps.
        has_row_deletes: Whether another engine deleted single rows.
    """

    manifests: tuple[IndexedManifest, ...]
    columns: ColumnHistory | None
    field_ids: Mapping[LeafPath, int]
    repeated: frozenset[int]
    has_row_deletes: bool

    def is_repeated(self, field_id: int) -> bool:
        """Whether a leaf is inside a list or a map."""
        return field_id in self.repeated


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
    def of(
        cls, frame: ManifestFrame, starts_ns: npt.NDArray[np.int64], ends_ns: npt.NDArray[np.int64]
    ) -> "ListedFiles":
        """Take from a decoded manifest what does not depend on the question."""
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
    manifests: tuple[TableManifest, ...]
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
    def catalog(self) -> TableCatalog:
        """Tells which metadata files are current."""
        return self._skip_index.catalog

    @property
    def cached_bytes(self) -> int:
        """Size of what is kept in memory."""
        return self._listed.weight + self._bounds.weight + self._sets.weight + self._joined.weight

    def table(self, location: str) -> TableState:
        """One state of a table.

        Raises:
            ChangedTableError: If another engine took away the columns that tell whose a row is and of which time.
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
        files = self._listed_files(tables, manifests, leaves)
        first_files = np.cumsum([0, *(len(each) for each in files)], dtype=np.int64)
        return FileSet(locations, sequences is None, tables, manifests, files, first_files)

    def _load_table(self, location: str) -> TableState:
        document = self._skip_index.document(location)
        for name in (TIMESTAMP_COLUMN, SEQUENCE_COLUMN):
            document.column_id(name)
        columns = document.columns
        schemas = [document.schema_fields] if columns.is_plain else document.fields["schemas"]
        leaves = [column for schema in schemas for column in walk_columns(schema) if column.is_leaf]
        field_ids = ((leaf.path, columns.field_id(leaf.path)) for leaf in leaves)
        return TableState(
            tuple(self._skip_index.manifests(document)),
            None if columns.is_plain else columns,
            {path: field_id for path, field_id in field_ids if field_id is not None},
            frozenset(leaf.field_id for leaf in leaves if leaf.is_repeated),
            bool(self._skip_index.manifests(document, DELETE_CONTENT)),
        )

    def _listed_files(
        self, tables: Sequence[TableState], manifests: Sequence[TableManifest], leaves: Sequence[Leaf]
    ) -> tuple[ListedFiles, ...]:
        found: list[ListedFiles | None] = [self._listed.peek(manifest.record.path) for _, manifest in manifests]
        missing = [
            number
            for number, listed in enumerate(found)
            if listed is None or any(self._lacks(tables, manifests[number], leaf) for leaf in leaves)
        ]
        decoded = self._decode(tables, [manifests[number] for number in missing], leaves)
        for number, (listed, _) in zip(missing, decoded, strict=True):
            found[number] = listed
        return tuple(listed for listed in found if listed is not None)

    def _join(self, files: FileSet, leaf_path: LeafPath, kind: pa.DataType) -> LeafBounds:
        leaf = (leaf_path, kind)
        found = [self._bounds.peek(_bounds_key(files.tables, each, leaf)) for each in files.manifests]
        missing = [number for number, bounds in enumerate(found) if bounds is None]
        decoded = self._decode(files.tables, [files.manifests[number] for number in missing], [leaf])
        for number, (_, (bounds,)) in zip(missing, decoded, strict=True):
            found[number] = bounds
        parts = [bounds for bounds in found if bounds is not None]
        return LeafBounds.joined(parts) if parts else LeafBounds.unknown(kind, 0)

    def _lacks(self, tables: Sequence[TableState], manifest: TableManifest, leaf: Leaf) -> bool:
        return self._bounds.peek(_bounds_key(tables, manifest, leaf)) is None

    def _decode(
        self, tables: Sequence[TableState], manifests: Sequence[TableManifest], leaves: Sequence[Leaf]
    ) -> Iterator[tuple[ListedFiles, list[LeafBounds]]]:
        """Read and decode manifests, in groups of bounded size, and keep what is found."""
        for group in _in_groups(manifests):
            frames = self._skip_index.decoded(manifest for _, manifest in group)
            offsets = np.cumsum([0, *map(len, frames)]).tolist()
            parts = list(pairwise(offsets))
            paths = [(TIMESTAMP_COLUMN,), *(path for path, _ in leaves)]
            field_ids = [[tables[table].field_ids.get(path, NO_FIELD) for table, _ in group] for path in paths]
            times, *metrics = read_metrics(frames, field_ids)
            starts_ns, ends_ns = long_bounds(times)
            bounds = []
            for (_, kind), known, ids in zip(leaves, metrics, field_ids[1:], strict=True):
                if any(tables[table].is_repeated(field_id) for (table, _), field_id in zip(group, ids, strict=True)):
                    known = _with_elements(known, frames, parts, ids)
                bounds.append(LeafBounds.decode(kind, known))
            for each, frame, (start, stop) in zip(group, frames, parts, strict=True):
                listed = ListedFiles.of(frame, starts_ns[start:stop].copy(), ends_ns[start:stop].copy())
                own = [of_leaf.part(start, stop) for of_leaf in bounds]
                self._listed.keep(each[1].record.path, listed)
                for leaf, of_leaf in zip(leaves, own, strict=True):
                    self._bounds.keep(_bounds_key(tables, each, leaf), of_leaf)
                yield listed, own


def _bounds_key(tables: Sequence[TableState], manifest: TableManifest, leaf: Leaf) -> tuple[str, int, str]:
    table, indexed = manifest
    path, kind = leaf
    return indexed.record.path, tables[table].field_ids.get(path, NO_FIELD), str(kind)


def _in_groups(manifests: Sequence[TableManifest]) -> Iterator[list[TableManifest]]:
    group: list[TableManifest] = []
    size = 0
    for each in manifests:
        if group and size + each[1].record.length > _DECODED_BYTES:
            yield group
            group, size = [], 0
        group.append(each)
        size += each[1].record.length
    if group:
        yield group


def _with_elements(
    known: LeafMetrics, frames: Sequence[ManifestFrame], parts: Sequence[tuple[int, int]], field_ids: Sequence[int]
) -> LeafMetrics:
    """Bounds of elements of lists and maps, which manifests of ours carry beside their entries."""
    overlaid = []
    for frame, (start, stop), field_id in zip(frames, parts, field_ids, strict=True):
        of_frame = known.part(start, stop)
        records = decode_records(frame.elements, frame.paths.to_pylist())
        overlaid.append(of_frame if records is None else of_frame.overlaid(*records.columns(field_id, len(frame))))
    return LeafMetrics.joined(overlaid)


def _may_contain(manifest: IndexedManifest, sequences: Sequence[bytes]) -> bool:
    position = manifest.sequence_position
    return position is None or any(partition_may_contain(manifest.record, position, name) for name in sequences)
