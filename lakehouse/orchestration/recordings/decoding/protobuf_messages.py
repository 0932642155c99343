"""Protobuf messages to columns, through the descriptors that a recording carries.

| protobuf                              | Arrow                                                              |
|---------------------------------------|--------------------------------------------------------------------|
| numbers, `bool`, `string`, `bytes`    | the same                                                           |
| an enum                               | `int32`; the names are in the field's metadata                     |
| a message                             | `struct`, null where unset                                         |
| `repeated T`, `map<K, V>`             | `list<T>`, `map<K, V>`                                             |
| a field with presence (`oneof`, `optional`, proto2) | null where unset                                     |
| `google.protobuf.Timestamp`, `Duration`, `Any`, wrappers, ... | `struct` of their own fields               |
| `google.protobuf.Struct`, `Value`, `ListValue` | `string`: the JSON text they stand for                    |
| a message without fields              | `bool`: whether it is set                                          |
| a message inside itself               | `binary`: the serialized message                                   |

Apart from the last three, which have no finite columns, this is what the MCAP bridge of the official SDK derives.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock
from lakehouse.orchestration.recordings.errors import MessageDefinitionError

_SCALARS: dict[int, pa.DataType] = {
    FieldDescriptor.TYPE_DOUBLE: pa.float64(),
    FieldDescriptor.TYPE_FLOAT: pa.float32(),
    FieldDescriptor.TYPE_INT32: pa.int32(),
    FieldDescriptor.TYPE_SFIXED32: pa.int32(),
    FieldDescriptor.TYPE_SINT32: pa.int32(),
    FieldDescriptor.TYPE_INT64: pa.int64(),
    FieldDescriptor.TYPE_SFIXED64: pa.int64(),
    FieldDescriptor.TYPE_SINT64: pa.int64(),
    FieldDescriptor.TYPE_UINT32: pa.uint32(),
    FieldDescriptor.TYPE_FIXED32: pa.uint32(),
    FieldDescriptor.TYPE_UINT64: pa.uint64(),
    FieldDescriptor.TYPE_FIXED64: pa.uint64(),
    FieldDescriptor.TYPE_BOOL: pa.bool_(),
    FieldDescriptor.TYPE_STRING: pa.string(),
    FieldDescriptor.TYPE_BYTES: pa.binary(),
    FieldDescriptor.TYPE_ENUM: pa.int32(),
}
_JSON_LIKE = frozenset({"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"})
_WELL_KNOWN = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
_MOST_FIELDS = 20_000


class ProtobufDecoder:
    """Decodes the messages of one protobuf type.

    Args:
        message_type: Full name of the type.
        descriptors: A serialized `FileDescriptorSet` that defines it.

    Raises:
        MessageDefinitionError: If the descriptors are malformed or do not define the type.
    """

    def __init__(self, message_type: str, descriptors: bytes) -> None:
        descriptor = _find_type(message_type, descriptors)
        self._class = GetMessageClass(descriptor)
        self._root = _MessageColumns(descriptor, frozenset(), [_MOST_FIELDS])
        self.schema = pa.schema(self._root.fields)

    def decode(self, payloads: Sequence[bytes]) -> DecodedBlock:
        """Decode a block; a message that cannot be parsed gets no row."""
        messages: list[Message] = []
        rows: list[int] = []
        failures: Counter[str] = Counter()
        for position, payload in enumerate(payloads):
            try:
                messages.append(self._class.FromString(payload))
            except (DecodeError, ValueError, RecursionError):
                failures["it is not a valid message of its protobuf type"] += 1
            else:
                rows.append(position)
        columns = self._root.columns(messages)
        batch = (
            pa.RecordBatch.from_arrays(columns, schema=self.schema)
            if columns
            else pa.RecordBatch.from_struct_array(pa.array([{}] * len(messages), pa.struct([])))
        )
        return DecodedBlock(batch, np.array(rows, dtype=np.int64), failures)


class _MessageColumns:
    """The fields of one message type as columns."""

    def __init__(self, descriptor: Descriptor, outer: frozenset[str], budget: list[int]) -> None:
        budget[0] -= len(descriptor.fields)
        if budget[0] < 0:
            raise MessageDefinitionError(descriptor.full_name, f"it has more than {_MOST_FIELDS:,} fields")
        inside = outer | {descriptor.full_name}
        self._columns = [_FieldColumn(field, inside, budget) for field in descriptor.fields]
        self.fields: list[pa.Field] = [column.field for column in self._columns]

    def columns(self, messages: Sequence[Message]) -> list[pa.Array]:
        return [column.of_messages(messages) for column in self._columns]

    def structs(self, messages: Sequence[Message], mask: pa.Array | None) -> pa.Array:
        return pa.StructArray.from_arrays(self.columns(messages), fields=self.fields, mask=mask)


class _FieldColumn:
    """One field of a message type."""

    def __init__(self, descriptor: FieldDescriptor, outer: frozenset[str], budget: list[int]) -> None:
        self._name = descriptor.name
        self._key: _Values | None = None
        message_type = descriptor.message_type
        is_map = message_type is not None and message_type.GetOptions().map_entry
        self._is_repeated = bool(descriptor.is_repeated)
        self._has_presence = bool(descriptor.has_presence)
        if is_map:
            self._key = _Values(message_type.fields_by_name["key"], outer, budget)
            self._values = _Values(message_type.fields_by_name["value"], outer, budget)
            arrow_type = pa.map_(self._key.arrow_type, self._values.arrow_type)
        else:
            self._values = _Values(descriptor, outer, budget)
            arrow_type = pa.list_(self._values.arrow_type) if self._is_repeated else self._values.arrow_type
        self._arrow_type = arrow_type
        self.field = pa.field(self._name, arrow_type, metadata=_enum_names(descriptor))

    def of_messages(self, messages: Sequence[Message]) -> pa.Array:
        name = self._name
        if self._key is not None:
            maps = [getattr(message, name) for message in messages]
            keys = list(chain.from_iterable(maps))
            values = [one[key] for one in maps for key in one]
            return pa.MapArray.from_arrays(
                _offsets(maps), self._key.array(keys), self._values.array(values), self._arrow_type
            )
        if self._is_repeated:
            lists = [getattr(message, name) for message in messages]
            return pa.ListArray.from_arrays(
                _offsets(lists), self._values.array(list(chain.from_iterable(lists))), type=self._arrow_type
            )
        unset = [not message.HasField(name) for message in messages] if self._has_presence else None
        return self._values.array([getattr(message, name) for message in messages], unset)


class _Values:
    """Single values of one type, wherever they occur."""

    def __init__(self, descriptor: FieldDescriptor, outer: frozenset[str], budget: list[int]) -> None:
        self._kind = "scalar"
        self._message: _MessageColumns | None = None
        message_type = descriptor.message_type
        if message_type is None:
            self.arrow_type = _SCALARS[descriptor.type]
        elif message_type.full_name in _JSON_LIKE:
            self._kind, self.arrow_type = "json", pa.string()
        elif not message_type.fields:
            self._kind, self.arrow_type = "presence", pa.bool_()
        elif message_type.full_name in outer:
            self._kind, self.arrow_type = "serialized", pa.binary()
        else:
            self._kind = "message"
            self._message = _MessageColumns(message_type, outer, budget)
            self.arrow_type = pa.struct(self._message.fields)

    def array(self, values: list[Any], unset: list[bool] | None = None) -> pa.Array:
        if self._message is not None:
            return self._message.structs(values, None if unset is None else pa.array(unset, pa.bool_()))
        if self._kind == "json":
            values = [MessageToJson(value, indent=None) for value in values]
        elif self._kind == "presence":
            values, unset = [True] * len(values) if unset is None else [not missing for missing in unset], None
        elif self._kind == "serialized":
            values = [value.SerializeToString(deterministic=True) for value in values]
        mask = np.array(unset, dtype=np.bool_) if unset is not None else None
        return pa.array(values, self.arrow_type, mask=mask)


def _offsets(collections: Sequence[Any]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, collections)]), pa.int32())


def _enum_names(descriptor: FieldDescriptor) -> dict[str, str] | None:
    if descriptor.enum_type is None:
        return None
    return {"enum": json.dumps({value.name: value.number for value in descriptor.enum_type.values})}


def _find_type(message_type: str, descriptors: bytes) -> Descriptor:
    try:
        waiting = {file.name: file for file in FileDescriptorSet.FromString(descriptors).file}
        for module in _WELL_KNOWN:
            known = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
            waiting.setdefault(known.name, known)
        pool = DescriptorPool()
        added: set[str] = set()
        while ready := [file for file in waiting.values() if added.issuperset(file.dependency)]:
            for file in ready:
                pool.Add(file)
                added.add(file.name)
                del waiting[file.name]
        return pool.FindMessageTypeByName(message_type.removeprefix("."))
    except (DecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MessageDefinitionError(message_type, "its protobuf descriptors are malformed or incomplete") from error
