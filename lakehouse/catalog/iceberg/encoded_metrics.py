"""Bounds and counts of some fields, read from the encoded entries of any number of manifests at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lakehouse.catalog.iceberg.avro_encoding import Decoder
from lakehouse.catalog.iceberg.encoded_bounds import DamagedEntryError, FoundBounds, find_bounds
from lakehouse.catalog.iceberg.entry_groups import EntryGroup, entry_groups, gathered, union_branch
from lakehouse.catalog.iceberg.manifest_frames import UNKNOWN_COUNT, LeafMetrics, ManifestFrame
from lakehouse.catalog.iceberg.varints import Longs, Varints

# No field has this id.
NO_FIELD = -1
_COUNT_MAPS = 4  # column sizes, values, nulls, NaNs


@dataclass(frozen=True, slots=True)
class EncodedMetrics:
    """Bounds and counts of the files of one manifest, where the manifest has them.

    Attributes:
        content: The bytes.
        begins, ends: Per file, where its counts begin and its entry ends.
    """

    content: bytes
    begins: Longs
    ends: Longs

    @property
    def nbytes(self) -> int:
        return len(self.content) + self.begins.nbytes + self.ends.nbytes

    def of_field(self, field_id: int) -> LeafMetrics:
        return read_encoded_metrics([self], [[field_id]])[0]

    def fields_with_nan(self, rows: np.ndarray) -> dict[int, frozenset[int]]:
        found = {row: self._fields_with_nan(int(self.begins[row])) for row in rows.tolist()}
        return {row: field_ids for row, field_ids in found.items() if field_ids}

    def _fields_with_nan(self, begin: int) -> frozenset[int]:
        decoder = Decoder(self.content, begin)
        counts: list[tuple[int, int]] = []
        for _ in range(_COUNT_MAPS):
            counts = []
            if decoder.is_present():
                while size := decoder.long():
                    counts += [(decoder.long(), decoder.long()) for _ in range(size)]
        return frozenset(field_id for field_id, count in counts if count > 0)


def read_metrics(frames: Sequence[ManifestFrame], field_ids: Sequence[Sequence[int]]) -> list[LeafMetrics]:
    """Bounds and counts of some fields in the files of all frames, one after another.

    Args:
        frames: At least one.
        field_ids: For each of the fields asked for, its id in each frame; `NO_FIELD` is found nowhere.
    """
    parts: list[list[LeafMetrics]] = []
    run: list[EncodedMetrics] = []
    for number, frame in enumerate(frames):
        if isinstance(frame.metrics, EncodedMetrics):
            run.append(frame.metrics)
            continue
        if run:
            parts.append(read_encoded_metrics(run, [ids[number - len(run) : number] for ids in field_ids]))
            run = []
        parts.append([frame.metrics.of_field(ids[number]) for ids in field_ids])
    if run:
        parts.append(read_encoded_metrics(run, [ids[len(frames) - len(run) :] for ids in field_ids]))
    return [LeafMetrics.joined(of_field) for of_field in zip(*parts, strict=True)]


def read_encoded_metrics(sources: Sequence[EncodedMetrics], field_ids: Sequence[Sequence[int]]) -> list[LeafMetrics]:
    """`read_metrics` of manifests whose entries are encoded."""
    found: list[list[LeafMetrics]] = [[] for _ in field_ids]
    groups = entry_groups(
        [source.content for source in sources],
        [source.begins for source in sources],
        [source.ends for source in sources],
    )
    for group in groups:
        wanted = [
            np.repeat(np.array([ids[owner] for owner in group.owners], np.int64), group.counts) for ids in field_ids
        ]
        for parts, metrics in zip(found, _metrics_of_group(group, wanted), strict=True):
            parts.append(metrics)
    return [LeafMetrics.joined(parts) if parts else _no_metrics() for parts in found]


def _no_metrics() -> LeafMetrics:
    nothing = np.zeros(0, np.int64)
    return LeafMetrics(pa.array([], pa.binary()), pa.array([], pa.binary()), nothing, nothing, nothing)


def _metrics_of_group(group: EntryGroup, wanted: Sequence[Longs]) -> list[LeafMetrics]:
    counts, position = _read_counts(group, wanted)
    if (position >= group.ends).any():
        raise DamagedEntryError("an entry of a manifest ends too early")
    lower, position = find_bounds(group.content, group.data, position, group.ends, wanted)
    upper, _ = find_bounds(group.content, group.data, position, group.ends, wanted)
    return [
        LeafMetrics(_bounds(group, low), _bounds(group, high), *known)
        for low, high, known in zip(lower, upper, counts, strict=True)
    ]


def _bounds(group: EntryGroup, found: FoundBounds) -> pa.Array:
    is_present = found.lengths >= 0
    return gathered(group, (found.begins, np.maximum(found.lengths, 0)), pa.binary(), is_present)


def _read_counts(group: EntryGroup, wanted: Sequence[Longs]) -> tuple[list[tuple[Longs, Longs, Longs]], Longs]:
    """Values, nulls and NaNs of each wanted field, and where the counts end."""
    integers = Varints(group.data)
    number = integers.numbered(group.begins)
    found: list[list[Longs]] = [[] for _ in wanted]
    for number_of_map in range(_COUNT_MAPS):
        is_present, _ = union_branch(group.data, integers.starts(number))
        sizes = np.where(is_present, integers.values(number + is_present), 0)
        if len(sizes) and sizes.min() < 0:
            raise DamagedEntryError("counts of a manifest lie in several blocks")
        first = number + 2
        # The branch; if it is not null: the size, the pairs, and another size of zero unless the first one is that.
        number = number + 1 + is_present + 2 * sizes + (sizes > 0)
        if (group.data[integers.starts(number - 1)] != 0).any():
            raise DamagedEntryError("counts of a manifest lie in several blocks")
        if number_of_map:
            for counts, ids in zip(found, wanted, strict=True):
                counts.append(_find_counts(integers, first, sizes, ids))
    return [(values, nulls, nans) for values, nulls, nans in found], integers.starts(number)


def _find_counts(integers: Varints, first: Longs, sizes: Longs, ids: Longs) -> Longs:
    """The counts of one field in maps of so many pairs."""
    result = np.full(len(first), UNKNOWN_COUNT, np.int64)
    searched = np.flatnonzero(sizes > 0)
    for place in range(int(sizes.max(initial=0))):
        keys = integers.values(first[searched] + 2 * place)
        is_found = keys == ids[searched]
        if is_found.any():
            rows = searched[is_found]
            result[rows] = integers.values(first[rows] + 2 * place + 1)
        searched = searched[~is_found & (sizes[searched] > place + 1)]
        if len(searched) == 0:
            break
    return result
