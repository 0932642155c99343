"""Entries of many manifests, put together in groups of bounded size so that each step works on a whole group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lakehouse.catalog.iceberg.encoded_bounds import DamagedEntryError
from lakehouse.catalog.iceberg.varints import Bytes, Longs

# What is derived from so many bytes nearly fits the processor's cache.
_GROUP_BYTES = 1 << 20
_PRESENT = 2  # byte of a union's second branch, the first being null
_LONG_TEXT = 32

Mask = npt.NDArray[np.bool_]
Slices = tuple[Longs, Longs]  # begins and lengths


@dataclass(frozen=True, slots=True)
class EntryGroup:
    """Entries worked on together.

    Attributes:
        owners: Numbers of the manifests they are from.
        counts: How many are from each.
        content, data: Their bytes.
        begins, ends: Where each lies in them.
        shifts: Per entry, how much further back it lies in its own manifest.
    """

    owners: list[int]
    counts: list[int]
    content: bytes
    data: Bytes
    begins: Longs
    ends: Longs
    shifts: Longs


def entry_groups(contents: Sequence[bytes], begins: Sequence[Longs], ends: Sequence[Longs]) -> Iterator[EntryGroup]:
    """Entries in groups of bounded size; a large manifest makes several, small ones share one."""
    pending: list[tuple[int, int, int]] = []
    size = 0
    for owner, (first_bytes, last_bytes) in enumerate(zip(begins, ends, strict=True)):
        start = 0
        while start < len(first_bytes):
            room = first_bytes[start] + max(_GROUP_BYTES - size, 0)
            stop = max(int(np.searchsorted(last_bytes, room, side="right")), start + (not pending))
            if stop > start:
                pending.append((owner, start, stop))
                size += int(last_bytes[stop - 1] - first_bytes[start])
                start = stop
            if start < len(first_bytes):
                yield _group(pending, contents, begins, ends)
                pending, size = [], 0
    if pending:
        yield _group(pending, contents, begins, ends)


def _group(
    members: list[tuple[int, int, int]], contents: Sequence[bytes], begins: Sequence[Longs], ends: Sequence[Longs]
) -> EntryGroup:
    # A byte in front, because `Varints` looks at the one before.
    parts: list[bytes | memoryview] = [b"\0"]
    shifts, offset = [], 1
    for owner, start, stop in members:
        first, last = int(begins[owner][start]), int(ends[owner][stop - 1])
        parts.append(memoryview(contents[owner])[first:last])
        shifts.append(first - offset)
        offset += last - first
    counts = [stop - start for _, start, stop in members]
    content = b"".join(parts)
    each = np.repeat(np.array(shifts, np.int64), counts)
    return EntryGroup(
        [owner for owner, _, _ in members],
        counts,
        content,
        np.frombuffer(content, np.uint8),
        np.concatenate([begins[owner][start:stop] for owner, start, stop in members]) - each,
        np.concatenate([ends[owner][start:stop] for owner, start, stop in members]) - each,
        each,
    )


def union_branch(data: Bytes, position: Longs) -> tuple[Mask, Longs]:
    """Which branch of a union with null is taken: the second, which is there, or the first."""
    branch = data[position]
    if not ((branch == 0) | (branch == _PRESENT)).all():
        raise DamagedEntryError("an optional field of a manifest is of no known type")
    return branch == _PRESENT, position + 1


def gathered(group: EntryGroup, slices: Slices, kind: pa.DataType, is_present: Mask | None = None) -> pa.Array:
    """Slices of the group's bytes as an array of text or bytes."""
    begins, lengths = slices
    offsets = np.zeros(len(begins) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    if int(offsets[-1]) > _LONG_TEXT * len(begins):
        content = group.content
        pairs = zip(begins.tolist(), (begins + lengths).tolist(), strict=True)
        gathered = pa.py_buffer(b"".join([content[begin:end] for begin, end in pairs]))
    else:
        places = np.repeat(begins - offsets[:-1], lengths) + np.arange(offsets[-1])
        gathered = pa.py_buffer(group.data[places])
    validity = None
    if is_present is not None and not is_present.all():
        validity = pa.py_buffer(np.packbits(is_present, bitorder="little"))
    return pa.Array.from_buffers(kind, len(begins), [validity, pa.py_buffer(offsets), gathered])
