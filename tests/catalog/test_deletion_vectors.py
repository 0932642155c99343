"""Deletion vectors of format version 3 are decoded exactly, and damaged ones are refused."""

import random
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from lakehouse.catalog.reading.row_deletes import decode_vector

# Of rows in one file; the high halves of numbers beyond 2^32 are apart in the bitmap.
POSITIONS = st.sets(st.one_of(st.integers(0, 300), st.integers(0, 2**20), st.integers(2**32 - 3, 2**33)), max_size=60)


def vector(positions: set[int]) -> bytes:
    """As the Puffin specification has it."""
    content = bytes([0xD1, 0xD3, 0x39, 0x64]) + BitMap64(sorted(positions)).serialize()
    return len(content).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


@given(POSITIONS)
def test_positions_come_back_in_order(positions: set[int]) -> None:
    decoded = decode_vector(vector(positions))
    assert decoded.dtype == np.int64
    assert decoded.tolist() == sorted(positions)


@given(POSITIONS, st.randoms(use_true_random=False))
def test_whatever_is_cut_off_or_changed_is_refused(positions: set[int], generator: random.Random) -> None:
    whole = bytearray(vector(positions))
    with pytest.raises(ValueError, match="deletion vector"):
        decode_vector(bytes(whole[: generator.randrange(len(whole))]))
    whole[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
    with pytest.raises(ValueError, match="deletion vector"):
        decode_vector(bytes(whole))
