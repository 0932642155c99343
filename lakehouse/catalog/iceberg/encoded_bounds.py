"""Where the bounds of some fields lie in the encoded maps of bounds of many entries.

Files of one table mostly have bounds for the same fields, of the same lengths. So the map of one entry is decoded, and
every other one that has the same keys and lengths at the same places is known to be alike. What is left after some
rounds, because its texts are of many lengths, is decoded pair by pair, each step for all maps together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lakehouse.catalog.iceberg.avro_encoding import Decoder
from lakehouse.catalog.iceberg.varints import Bytes, Longs, read_longs

_SHAPES_TRIED = 4
_WORTH_A_SHAPE = 8
_PRESENT = 2

Rows = npt.NDArray[np.intp]


class DamagedEntryError(ValueError):
    """The bytes are not what the schema of their manifest says."""


@dataclass(slots=True)
class FoundBounds:
    """Bounds of one field, one per entry.

    Attributes:
        begins: Where each lies.
        lengths: Its bytes; -1 where there is none.
    """

    begins: Longs
    lengths: Longs

    @classmethod
    def none(cls, count: int) -> "FoundBounds":
        return cls(np.zeros(count, np.int64), np.full(count, -1, np.int64))

    def put(self, rows: Rows, begins: Longs | int, lengths: Longs | int) -> None:
        self.begins[rows] = begins
        self.lengths[rows] = lengths


@dataclass(slots=True)
class _Shape:
    """Where things are in a map of bounds, counted from its begin.

    Attributes:
        places: Bytes that say what follows: the branch, sizes, keys and lengths.
        values: By field id, where its bound is and how long.
        size: Bytes in all.
    """

    places: list[int] = field(default_factory=list)
    values: dict[int, tuple[int, int]] = field(default_factory=dict)
    size: int = 0


def find_bounds(
    content: bytes, data: Bytes, begins: Longs, ends: Longs, wanted: Sequence[Longs]
) -> tuple[list[FoundBounds], Longs]:
    """Find the bounds of fields in the maps that begin at `begins`.

    Args:
        content, data: The bytes, as they are and as an array.
        begins: Where the maps begin.
        ends: What they cannot exceed.
        wanted: For each field asked for, its id in every entry.

    Returns:
        The bounds of each field, and where the maps end.

    Raises:
        DamagedEntryError, ValueError, IndexError: If these are no such maps.
    """
    found = [FoundBounds.none(len(begins)) for _ in wanted]
    after = begins.copy()
    rows: Rows = np.arange(len(begins))
    for _ in range(_SHAPES_TRIED):
        if len(rows) < _WORTH_A_SHAPE:
            break
        shape = _shape_at(content, int(begins[rows[0]]))
        alike = _are_alike(data, shape, begins[rows], ends[rows])
        members = rows[alike]
        for bounds, ids in zip(found, wanted, strict=True):
            _put(bounds, members, ids[members], begins[members], shape)
        after[members] += shape.size
        rows = rows[~alike]
    if len(rows):
        after[rows] = _find_pair_by_pair(data, begins, rows, found, wanted)
    if (after > ends).any():
        raise DamagedEntryError("an entry of a manifest ends too early")
    return found, after


def _shape_at(content: bytes, begin: int) -> _Shape:
    shape = _Shape()
    decoder = Decoder(content, begin)

    def integer() -> int:
        start = decoder.position
        value = decoder.long()
        shape.places.extend(range(start - begin, decoder.position - begin))
        return value

    if integer() != 0:
        for _ in range(_checked(size := integer())):
            key, length = integer(), _checked(integer())
            shape.values[key] = (decoder.position - begin, length)
            decoder.position += length
        if size and integer() != 0:
            raise DamagedEntryError("bounds of a manifest lie in several blocks")
    shape.size = decoder.position - begin
    return shape


def _checked(size: int) -> int:
    if size < 0:
        raise DamagedEntryError("bounds of a manifest lie in several blocks")
    return size


def _are_alike(data: Bytes, shape: _Shape, begins: Longs, ends: Longs) -> npt.NDArray[np.bool_]:
    alike = begins + shape.size <= ends
    places = np.array(shape.places)
    tested = begins[alike]
    if len(tested):
        alike[alike] = (data[tested[:, None] + places] == data[begins[0] + places]).all(axis=1)
    if not alike[0]:
        raise DamagedEntryError("an entry of a manifest ends too early")
    return alike


def _put(found: FoundBounds, rows: Rows, ids: Longs, begins: Longs, shape: _Shape) -> None:
    for field_id in np.unique(ids).tolist():
        place = shape.values.get(field_id)
        if place is not None:
            is_it = ids == field_id
            found.put(rows[is_it], begins[is_it] + place[0], place[1])


def _find_pair_by_pair(
    data: Bytes, begins: Longs, rows: Rows, found: Sequence[FoundBounds], wanted: Sequence[Longs]
) -> Longs:
    """Find bounds in the maps of some entries; returns where these end."""
    after = begins[rows]
    branch = data[after]
    if not ((branch == 0) | (branch == _PRESENT)).all():
        raise DamagedEntryError("an optional field of a manifest is of no known type")
    after += 1
    sizes = np.zeros(len(rows), np.int64)
    current: Rows = np.flatnonzero(branch == _PRESENT)
    sizes[current], after[current] = read_longs(data, after[current])
    if len(sizes) and sizes.min() < 0:
        raise DamagedEntryError("bounds of a manifest lie in several blocks")
    current = np.flatnonzero(sizes)
    for place in range(int(sizes.max(initial=0))):
        keys, position = read_longs(data, after[current])
        lengths, position = read_longs(data, position)
        if lengths.min() < 0:
            raise DamagedEntryError("a bound of a manifest has an impossible length")
        for bounds, ids in zip(found, wanted, strict=True):
            is_wanted = keys == ids[rows[current]]
            if is_wanted.any():
                bounds.put(rows[current[is_wanted]], position[is_wanted], lengths[is_wanted])
        after[current] = position + lengths
        current = current[sizes[current] > place + 1]
    filled = np.flatnonzero(sizes)
    if (data[after[filled]] != 0).any():
        raise DamagedEntryError("bounds of a manifest lie in several blocks")
    after[filled] += 1
    return after
