"""The few Avro primitives that Iceberg manifests are made of (Avro specification 1.11, binary encoding).

PyIceberg writes and reads Avro value by value through a tree of Python objects; a commit that touches thirty tables
spends most of its time there. Manifests have one fixed shape, so encoding them directly is ten times cheaper, and an
entry which is only carried over is never decoded at all.
"""

import os
import zlib
from collections.abc import Iterator, Mapping

from pyiceberg.avro.codecs import KNOWN_CODECS

MAGIC = b"Obj\x01"
SYNC_SIZE = 16


def encode_long(value: int) -> bytes:
    """Zigzag variable-length integer."""
    if 0 <= value < _SMALL_COUNT:
        return _SMALL[value]
    return _encode_varint((value << 1) ^ (value >> 63))


def _encode_varint(unsigned: int) -> bytes:
    encoded = bytearray()
    while unsigned > 0x7F:
        encoded.append(0x80 | (unsigned & 0x7F))
        unsigned >>= 7
    encoded.append(unsigned)
    return bytes(encoded)


_SMALL_COUNT = 4096
_SMALL = [_encode_varint(value << 1) for value in range(_SMALL_COUNT)]


def encode_bytes(value: bytes) -> bytes:
    return encode_long(len(value)) + value


def encode_text(value: str) -> bytes:
    return encode_bytes(value.encode())


def encode_optional_long(value: int | None) -> bytes:
    """Union of null and long, null first, as Iceberg writes every optional field."""
    return b"\x00" if value is None else b"\x02" + encode_long(value)


class Decoder:
    """Reads primitives one after another from bytes."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def long(self) -> int:
        data, position = self.data, self.position
        byte = data[position]
        position += 1
        unsigned, shift = byte & 0x7F, 7
        while byte & 0x80:
            byte = data[position]
            position += 1
            unsigned |= (byte & 0x7F) << shift
            shift += 7
        self.position = position
        return (unsigned >> 1) ^ -(unsigned & 1)

    def blob(self) -> bytes:
        length = self.long()
        start = self.position
        self.position = start + length
        return self.data[start : self.position]

    def text(self) -> str:
        return self.blob().decode()

    def boolean(self) -> bool:
        self.position += 1
        return self.data[self.position - 1] == 1

    def is_present(self) -> bool:
        """Read the branch of a union of null and something."""
        return self.long() == 1

    def optional_long(self) -> int | None:
        return self.long() if self.is_present() else None

    def optional_bytes(self) -> bytes | None:
        return self.blob() if self.is_present() else None


def encode_header(metadata: Mapping[str, str | bytes]) -> bytes:
    """An object container file's header up to, but not including, the sync marker."""
    items = b"".join(
        encode_text(key) + (encode_text(value) if isinstance(value, str) else encode_bytes(value))
        for key, value in metadata.items()
    )
    return MAGIC + encode_long(len(metadata)) + items + b"\x00"


def new_sync_marker() -> bytes:
    return os.urandom(SYNC_SIZE)


def encode_block(content: bytes, count: int, sync: bytes, *, deflate: bool) -> bytes:
    """One block of `count` encoded objects."""
    if deflate:
        compressor = zlib.compressobj(level=3, wbits=-15)
        content = compressor.compress(content) + compressor.flush()
    return encode_long(count) + encode_bytes(content) + sync


class ContainerFile:
    """An object container file in memory: its metadata, and its blocks decompressed one by one.

    Attributes:
        data: The whole file.
        metadata: From its header.
        first_block: Where the first block begins, right behind a sync marker.
    """

    def __init__(self, data: bytes) -> None:
        if not data.startswith(MAGIC):
            raise ValueError("not an Avro object container file")
        decoder = Decoder(data, len(MAGIC))
        self.metadata: dict[str, bytes] = {}
        while (count := decoder.long()) != 0:
            if count < 0:
                decoder.long()  # the block's size in bytes, only useful for skipping it
                count = -count
            for _ in range(count):
                key = decoder.text()
                self.metadata[key] = decoder.blob()
        self.data = data
        self.first_block = decoder.position + SYNC_SIZE

    @property
    def codec(self) -> str:
        return self.metadata.get("avro.codec", b"null").decode()

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Number of objects and decompressed content of each block.

        Raises:
            ValueError: If the compression is one that no Iceberg writer uses, or a block is damaged.
        """
        codec = self.codec
        if codec not in KNOWN_CODECS:
            raise ValueError(f"unsupported Avro codec {codec!r}")
        known = KNOWN_CODECS[codec]
        decoder = Decoder(self.data, self.first_block)
        while decoder.position < len(self.data):
            count = decoder.long()
            content = decoder.blob()
            marker = self.data[decoder.position : decoder.position + SYNC_SIZE]
            if marker != self.data[self.first_block - SYNC_SIZE : self.first_block]:
                raise ValueError("a block of the Avro file is damaged or its end is missing")
            decoder.position += SYNC_SIZE
            yield count, content if known is None else known.decompress(content)
