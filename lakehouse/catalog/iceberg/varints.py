"""Avro's variable-length integers, read at many places of a buffer at once."""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

_LONGEST = 10
_MORE = 0x80


def read_longs(data: Bytes, positions: Longs) -> tuple[Longs, Longs]:
    """The zigzag integers that begin at `positions`, and the positions behind them.

    Raises:
        ValueError: If one is longer than any 64-bit integer.
        IndexError: If one lies outside the buffer.
    """
    byte = data[positions]
    going_on = byte >= _MORE
    if not going_on.any():
        # Nearly everything in a manifest: keys of fields, lengths of bounds, counts of nulls.
        small = byte.astype(np.int64)
        return (small >> 1) ^ -(small & 1), positions + 1
    unsigned = (byte & 0x7F).astype(np.uint64)
    following = positions + 1
    longer = np.flatnonzero(going_on)
    for place in range(1, _LONGEST):
        byte = data[following[longer]]
        following[longer] += 1
        unsigned[longer] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
        longer = longer[byte >= _MORE]
        if len(longer) == 0:
            return _unzigzag(unsigned), following
    raise ValueError("an integer is longer than 64 bits")


def _unzigzag(unsigned: npt.NDArray[np.uint64]) -> Longs:
    return (unsigned >> np.uint64(1)).view(np.int64) ^ -(unsigned & np.uint64(1)).view(np.int64)


class Varints:
    """Every byte that may end an integer, so that any number of integers in a row is skipped in one step.

    Args:
        data: The bytes, the first one below 128; only where nothing but integers lie are the answers of use.
    """

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._ends = np.flatnonzero(data < _MORE)

    def numbered(self, positions: Longs) -> Longs:
        """The numbers of the integers that begin at `positions`, none of them at the first byte."""
        return np.searchsorted(self._ends, positions).astype(np.int64)

    def starts(self, numbers: Longs) -> Longs:
        """Where the integers of these numbers begin.

        Raises:
            IndexError: If there are not as many.
        """
        return self._ends[numbers - 1] + 1

    def values(self, numbers: Longs) -> Longs:
        """The integers of these numbers."""
        return read_longs(self._data, self.starts(numbers))[0]
