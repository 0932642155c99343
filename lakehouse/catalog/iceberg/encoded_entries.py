"""All entries of any number of manifests, decoded at once, field by field instead of entry by entry.

Every step reads one field of all entries: a few operations on whole arrays, whatever their number. Bounds and counts
are not decoded but left where they are, until one field of them is asked for (`encoded_metrics`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.catalog.iceberg.encoded_bounds import DamagedEntryError
from lakehouse.catalog.iceberg.encoded_metrics import EncodedMetrics
from lakehouse.catalog.iceberg.entry_groups import EntryGroup, Mask, Slices, entry_groups, gathered, union_branch
from lakehouse.catalog.iceberg.entry_layout import EntryBytes
from lakehouse.catalog.iceberg.manifest_frames import ManifestFrame
from lakehouse.catalog.iceberg.varints import Bytes, Longs, read_longs

_DELETED = 2
_PARQUET = b"PARQUET"


@dataclass(frozen=True, slots=True)
class EncodedManifest:
    """What it takes to decode one manifest.

    Attributes:
        entries: Its entries.
        sequence_number: Its own, which entries inherit.
        sequence_position, day_position: Where its partition spec keeps the sequence and the day; None if it does not.
        elements: Bounds of elements of lists and maps as its header carries them.
    """

    entries: EntryBytes
    sequence_number: int
    sequence_position: int | None
    day_position: int | None
    elements: bytes = b""


def decode_entries(manifests: Sequence[EncodedManifest]) -> list[ManifestFrame]:
    """Frames of the live entries of each manifest.

    Raises:
        DamagedEntryError, ValueError, IndexError: If the bytes are no such entries.
    """
    parts: list[list[_Columns]] = [[] for _ in manifests]
    # Manifests of one partition layout go together; a lake has one, if nobody changed it.
    layouts: dict[tuple[tuple[bool, ...], int | None, int | None], list[int]] = {}
    for number, each in enumerate(manifests):
        key = (each.entries.partition, each.sequence_position, each.day_position)
        layouts.setdefault(key, []).append(number)
    for (partition, sequence_position, day_position), numbers in layouts.items():
        encoded = [manifests[number].entries for number in numbers]
        contents, begins = [each.content for each in encoded], [each.begins for each in encoded]
        for group in entry_groups(contents, begins, [each.ends for each in encoded]):
            columns = _decode_group(group, partition, sequence_position, day_position)
            offset = 0
            for owner, count in zip(group.owners, group.counts, strict=True):
                parts[numbers[owner]].append(columns.part(offset, offset + count))
                offset += count
    return [_frame(each, columns) for each, columns in zip(manifests, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Decoded fields of some entries, deleted ones included."""

    are_live: Mask
    sequence_numbers: Longs
    are_inherited: Mask
    contents: Longs
    record_counts: Longs
    file_sizes: Longs
    metrics_begins: Longs
    ends: Longs
    paths: pa.Array
    formats: pa.Array
    sequences: pa.Array
    days: pa.Array

    @classmethod
    def nothing(cls) -> "_Columns":
        none, false, texts = np.zeros(0, np.int64), np.zeros(0, np.bool_), pa.array([], pa.string())
        days = pa.array([], pa.int32())
        return cls(false, none, false, none, none, none, none, none, texts, texts, texts, days)

    def part(self, start: int, stop: int) -> "_Columns":
        if start == 0 and stop == len(self.are_live):
            return self
        return _Columns(*(getattr(self, name)[start:stop] for name in self.__slots__))


def _frame(manifest: EncodedManifest, parts: list[_Columns]) -> ManifestFrame:
    parts = parts or [_Columns.nothing()]

    def vector(name: str) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = np.concatenate([getattr(part, name) for part in parts])
        return found if is_whole else found[live]

    def array(name: str) -> pa.Array:
        # Copied even if it is one: a slice would keep the columns of all manifests decoded with this one in memory.
        found = pa.concat_arrays([getattr(part, name) for part in parts])
        return found if is_whole else found.filter(pa.array(live))

    live = np.concatenate([part.are_live for part in parts])
    is_whole = bool(live.all())
    # Iceberg spec, "Sequence Number Inheritance": null means "that of the manifest".
    sequence_numbers = np.where(vector("are_inherited"), manifest.sequence_number, vector("sequence_numbers"))
    return ManifestFrame(
        paths=array("paths"),
        sequences=array("sequences"),
        days=array("days"),
        sequence_numbers=sequence_numbers,
        contents=vector("contents").astype(np.int8),
        record_counts=vector("record_counts"),
        file_sizes=vector("file_sizes"),
        formats=array("formats"),
        metrics=EncodedMetrics(manifest.entries.content, vector("metrics_begins"), vector("ends")),
        elements=manifest.elements,
    )


def _decode_group(
    group: EntryGroup, partition: Sequence[bool], sequence_position: int | None, day_position: int | None
) -> _Columns:
    data, count = group.data, len(group.begins)
    status, position = read_longs(data, group.begins)
    _, _, position = _optional_longs(data, position)  # snapshot
    sequence_numbers, has_number, position = _optional_longs(data, position)
    _, _, position = _optional_longs(data, position)  # file sequence number
    contents, position = read_longs(data, position)
    paths, position = _texts(data, position)
    formats, position = _texts(data, position)
    sequences, days = pa.nulls(count, pa.string()), pa.nulls(count, pa.int32())
    for number, is_text in enumerate(partition):
        is_present, position = union_branch(data, position)
        if is_text:
            slices, position = _texts(data, position, is_present)
            if number == sequence_position:
                sequences = _strings(group, slices, is_present)
        else:
            values, position = _longs_where(data, position, is_present)
            if number == day_position:
                days = pa.array(values, mask=~is_present).cast(pa.int32())
    record_counts, position = read_longs(data, position)
    file_sizes, position = read_longs(data, position)
    if (position >= group.ends).any():
        raise DamagedEntryError("an entry of a manifest ends too early")
    return _Columns(
        are_live=status != _DELETED,
        sequence_numbers=sequence_numbers,
        are_inherited=~has_number,
        contents=contents,
        record_counts=record_counts,
        file_sizes=file_sizes,
        metrics_begins=position + group.shifts,
        ends=group.ends + group.shifts,
        paths=_strings(group, paths),
        formats=_formats(group, formats),
        sequences=sequences,
        days=days,
    )


def _optional_longs(data: Bytes, position: Longs) -> tuple[Longs, Mask, Longs]:
    is_present, position = union_branch(data, position)
    values, position = _longs_where(data, position, is_present)
    return values, is_present, position


def _longs_where(data: Bytes, position: Longs, is_present: Mask) -> tuple[Longs, Longs]:
    """Integers of some entries; 0 for the others, where nothing lies."""
    if is_present.all():
        return read_longs(data, position)
    values, following = np.zeros(len(position), np.int64), position.copy()
    values[is_present], following[is_present] = read_longs(data, position[is_present])
    return values, following


def _texts(data: Bytes, position: Longs, is_present: Mask | None = None) -> tuple[Slices, Longs]:
    """Where texts or bytes lie, and what follows them."""
    lengths, begins = read_longs(data, position) if is_present is None else _longs_where(data, position, is_present)
    ends = begins + lengths
    if len(lengths) and (lengths.min() < 0 or ends.max() > len(data)):
        raise DamagedEntryError("a text of a manifest has an impossible length")
    return (begins, lengths), ends


def _strings(group: EntryGroup, slices: Slices, is_present: Mask | None = None) -> pa.Array:
    found = gathered(group, slices, pa.string(), is_present)
    found.validate(full=True)
    return found


def _formats(group: EntryGroup, slices: Slices) -> pa.Array:
    begins, lengths = slices
    if (lengths == len(_PARQUET)).all():
        names = group.data[begins[:, None] + np.arange(len(_PARQUET))]
        if (names == np.frombuffer(_PARQUET, np.uint8)).all():
            return pa.repeat(pa.scalar(_PARQUET.decode()), len(begins))
    return pc.utf8_upper(_strings(group, slices))
