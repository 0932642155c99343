"""Whether the entries of a manifest lie in its bytes as our own do, and where each of them begins.

Our writer, PyIceberg and the Java implementation share one order of fields in format version 2; our writer besides
gives every entry an Avro block of its own, as others do for a file committed alone. Then an entry is found without
decoding the one before it, and all are decoded at once (`encoded_entries`). Anything else goes entry by entry
(`manifest_decoding`).
"""

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pyiceberg.manifest import data_file_with_partition, manifest_entry_schema_with_data_file
from pyiceberg.types import StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse.catalog.iceberg.avro_encoding import SYNC_SIZE, ContainerFile
from lakehouse.catalog.iceberg.varints import Longs

_FORMAT_VERSION: Literal[2] = 2
_DATA_FILE, _PARTITION = 2, 102
_TEXT = "string"
_INTEGERS = ("int", "long")
_ONE_ENTRY = b"\x02"


@dataclass(frozen=True, slots=True)
class EntryBytes:
    """The encoded entries of one manifest.

    Attributes:
        content: Holds them, decompressed.
        begins, ends: Where each lies.
        partition: For each partition field whether it is text; it is an integer otherwise.
    """

    content: bytes
    begins: Longs
    ends: Longs
    partition: tuple[bool, ...]


def find_entries(container: ContainerFile) -> EntryBytes | None:
    """Where the entries of a manifest are; None if they do not lie as ours do."""
    partition = _partition_layout(container.metadata.get("avro.schema", b""))
    if partition is None or container.codec not in ("null", "deflate"):
        return None
    found = _blocks_of_one(container.data, container.first_block)
    if found is None:
        return None
    begins, ends = found
    if container.codec == "null":
        return EntryBytes(container.data, np.array(begins, np.int64), np.array(ends, np.int64), partition)
    data = container.data
    parts = [zlib.decompress(data[begin:end], -15) for begin, end in zip(begins, ends, strict=True)]
    bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return EntryBytes(b"".join(parts), bounds[:-1], bounds[1:], partition)


def _blocks_of_one(data: bytes, position: int) -> tuple[list[int], list[int]] | None:
    """Begin and end of the content of every block; None if one holds several entries or the file is damaged."""
    sync = data[position - SYNC_SIZE : position]
    begins: list[int] = []
    ends: list[int] = []
    last = len(data)
    while position < last:
        if data[position : position + 1] != _ONE_ENTRY:
            return None
        unsigned = shift = 0
        byte = 0x80
        while byte & 0x80:
            position += 1
            if position >= last:
                return None
            byte = data[position]
            unsigned |= (byte & 0x7F) << shift
            shift += 7
        begin = position + 1
        end = begin + (unsigned >> 1)
        position = end + SYNC_SIZE
        if data[end:position] != sync:
            return None
        begins.append(begin)
        ends.append(end)
    return begins, ends


@lru_cache(maxsize=256)
def _partition_layout(avro_schema: bytes) -> tuple[bool, ...] | None:
    try:
        shape = _shape(json.loads(avro_schema))
        entry = dict(shape)
        partition = dict(entry[_DATA_FILE])[_PARTITION]
    except (ValueError, KeyError, TypeError):
        return None
    if _without_partition(shape) != _our_shape():
        return None
    kinds: list[bool] = []
    for _, kind in partition:
        if kind not in [("union", "null", name) for name in (_TEXT, *_INTEGERS)]:
            return None
        kinds.append(kind[-1] == _TEXT)
    return tuple(kinds)


@lru_cache(maxsize=1)
def _our_shape() -> Any:
    schema = manifest_entry_schema_with_data_file(
        _FORMAT_VERSION, data_file_with_partition(StructType(), _FORMAT_VERSION)
    )
    return _without_partition(_shape(AvroSchemaConversion().iceberg_to_avro(schema, schema_name="manifest_entry")))


def _shape(kind: Any) -> Any:
    """What decides how values are encoded; names, documentation and logical types do not."""
    if isinstance(kind, list):
        return ("union", *map(_shape, kind))
    if not isinstance(kind, dict):
        return kind
    if kind["type"] == "record":
        return tuple((field["field-id"], _shape(field["type"])) for field in kind["fields"])
    if kind["type"] == "array":
        return ("array", _shape(kind["items"]))
    if kind["type"] in ("map", "fixed", "enum"):
        return (kind["type"], json.dumps(kind, sort_keys=True))
    return _shape(kind["type"])


def _without_partition(shape: Any) -> Any:
    return tuple(
        (field_id, tuple((inner, () if inner == _PARTITION else each) for inner, each in kind))
        if field_id == _DATA_FILE
        else (field_id, kind)
        for field_id, kind in shape
    )
