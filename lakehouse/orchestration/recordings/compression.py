"""Decompression of chunks that never grows beyond what the chunk announces and what is plausible."""

import bz2
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import zstandard

_PIECE = 1 << 20
_ALWAYS_ALLOWED = 64 << 20
_LARGEST_RATIO = 1000
_LARGEST_CHUNK = 2 << 30


class BrokenChunkError(ValueError):
    """Compressed data that is damaged, not of the announced size, or implausible."""


class UnknownCompressionError(ValueError):
    """A compression we have no decoder for."""


def decompress(compression: str, data: bytes, size: int) -> bytes:
    """Expand one chunk.

    Args:
        compression: `zstd`, `lz4`, `bz2`, or empty or `none`.
        data: The compressed bytes.
        size: Bytes the container announces.

    Raises:
        BrokenChunkError: If the result would not have exactly the announced, plausible size.
        UnknownCompressionError: For any other compression.
    """
    if compression in ("", "none"):
        if len(data) != size:
            raise BrokenChunkError("a chunk is not as long as announced")
        return data
    if compression not in _PIECES:
        raise UnknownCompressionError(compression)
    if size > min(max(_ALWAYS_ALLOWED, _LARGEST_RATIO * len(data)), _LARGEST_CHUNK):
        raise BrokenChunkError("a chunk announces an implausible size")
    try:
        return _PIECES[compression](data, size)
    except (OSError, EOFError, ValueError, RuntimeError, zstandard.ZstdError) as error:
        if isinstance(error, BrokenChunkError):
            raise
        raise BrokenChunkError("a chunk cannot be decompressed") from error


def expand_zstd(data: bytes) -> bytes:
    """Expand data of which nothing announces the size but itself.

    Raises:
        BrokenChunkError: If it is damaged or implausibly large.
    """
    try:
        size = zstandard.frame_content_size(data)
        limit = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * len(data))
        if size > limit:
            raise BrokenChunkError("compressed data announces an implausible size")
        if size >= 0:
            return _zstd(data, size)
        pieces = []
        total = 0
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            while piece := reader.read(_PIECE):
                total += len(piece)
                if total > limit:
                    raise BrokenChunkError("compressed data is implausibly large")
                pieces.append(piece)
        return b"".join(pieces)
    except zstandard.ZstdError as error:
        raise BrokenChunkError("compressed data is damaged") from error


def expand_zstd_file(source: Path, target: Path) -> None:
    """Expand a file into another one, up to a plausible size.

    Raises:
        BrokenChunkError: If it is damaged or implausibly large; the target may be there in part.
    """
    limit = max(_ALWAYS_ALLOWED, _LARGEST_RATIO * source.stat().st_size)
    total = 0
    try:
        with (
            source.open("rb") as compressed,
            zstandard.ZstdDecompressor().stream_reader(compressed, read_across_frames=True) as reader,
            target.open("wb") as expanded,
        ):
            while piece := reader.read(_PIECE):
                total += len(piece)
                if total > limit:
                    raise BrokenChunkError("compressed data is implausibly large")
                expanded.write(piece)
    except zstandard.ZstdError as error:
        raise BrokenChunkError("compressed data is damaged") from error


def _collect(read: Callable[[int], bytes], size: int) -> bytes:
    pieces = []
    missing = size + 1  # one more, to notice data beyond the announced size
    while missing and (piece := read(min(missing, _PIECE))):
        pieces.append(piece)
        missing -= len(piece)
    if missing != 1:
        raise BrokenChunkError("a chunk is not as long as announced")
    return b"".join(pieces)


def _zstd(data: bytes, size: int) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return _collect(reader.read, size)


def _stateful(decompressor: Any, data: bytes, size: int) -> bytes:
    waiting = [data]

    def read(length: int) -> bytes:
        if decompressor.eof:
            return b""
        return bytes(decompressor.decompress(waiting.pop() if waiting else b"", length))

    result = _collect(read, size)
    if not decompressor.eof:
        raise BrokenChunkError("a chunk ends too early")
    return result


def _lz4(data: bytes, size: int) -> bytes:
    return _stateful(lz4.frame.LZ4FrameDecompressor(), data, size)


def _bz2(data: bytes, size: int) -> bytes:
    return _stateful(bz2.BZ2Decompressor(), data, size)


_PIECES: dict[str, Callable[[bytes, int], bytes]] = {"zstd": _zstd, "lz4": _lz4, "bz2": _bz2}
