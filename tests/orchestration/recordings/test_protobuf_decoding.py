"""Protobuf messages become columns through the descriptors in the recording."""

from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from lakehouse.orchestration.recordings.decoding.protobuf_messages import ProtobufDecoder
from lakehouse.orchestration.recordings.errors import MessageDefinitionError

F = FieldDescriptorProto
WELL_KNOWN = (timestamp_pb2, duration_pb2, struct_pb2, any_pb2, empty_pb2, wrappers_pb2)
SCALARS = {
    "double": (F.TYPE_DOUBLE, 0.25, pa.float64()),
    "float": (F.TYPE_FLOAT, 0.5, pa.float32()),
    "int32": (F.TYPE_INT32, -7, pa.int32()),
    "sint64": (F.TYPE_SINT64, -(2**62) - 1, pa.int64()),
    "uint32": (F.TYPE_UINT32, 2**32 - 1, pa.uint32()),
    "fixed64": (F.TYPE_FIXED64, 2**64 - 1, pa.uint64()),
    "bool": (F.TYPE_BOOL, True, pa.bool_()),
    "string": (F.TYPE_STRING, "größe", pa.string()),
    "bytes": (F.TYPE_BYTES, b"\x00\xff", pa.binary()),
}


def drive_file() -> FileDescriptorProto:
    """A file with one message that has a field of every kind."""
    file = FileDescriptorProto(name="drive.proto", package="demo", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in WELL_KNOWN)
    gear = file.enum_type.add(name="Gear")
    gear.value.add(name="PARK", number=0)
    gear.value.add(name="DRIVE", number=4)
    point = file.message_type.add(name="Point")
    point.field.add(name="x", number=1, type=F.TYPE_DOUBLE, label=F.LABEL_OPTIONAL)
    tree = file.message_type.add(name="Tree")
    tree.field.add(name="name", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    tree.field.add(name="left", number=2, type=F.TYPE_MESSAGE, type_name=".demo.Tree", label=F.LABEL_OPTIONAL)
    message = file.message_type.add(name="Drive")
    number = 0

    def add(name: str, kind: int, type_name: str = "", label: int = F.LABEL_OPTIONAL, **more: Any) -> None:
        nonlocal number
        number += 1
        message.field.add(name=name, number=number, type=kind, type_name=type_name or None, label=label, **more)

    for name, (kind, _, _) in SCALARS.items():
        add(f"one_{name}", kind)
        add(f"many_{name}", kind, label=F.LABEL_REPEATED)
    add("gear", F.TYPE_ENUM, ".demo.Gear")
    add("point", F.TYPE_MESSAGE, ".demo.Point")
    add("points", F.TYPE_MESSAGE, ".demo.Point", F.LABEL_REPEATED)
    message.oneof_decl.add(name="choice")
    add("choice_text", F.TYPE_STRING, oneof_index=0)
    add("choice_point", F.TYPE_MESSAGE, ".demo.Point", oneof_index=0)
    for name, value_kind, value_type in (("counts", F.TYPE_INT64, None), ("places", F.TYPE_MESSAGE, ".demo.Point")):
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
        entry.field.add(name="value", number=2, type=value_kind, type_name=value_type, label=F.LABEL_OPTIONAL)
        add(name, F.TYPE_MESSAGE, f".demo.Drive.{name.capitalize()}Entry", F.LABEL_REPEATED)
    for name in ("Timestamp", "Duration", "Struct", "Any", "Empty", "DoubleValue"):
        add(name.lower(), F.TYPE_MESSAGE, f".google.protobuf.{name}")
    add("tree", F.TYPE_MESSAGE, ".demo.Tree")
    message.oneof_decl.add(name="_maybe")
    add("maybe", F.TYPE_INT32, oneof_index=1, proto3_optional=True)
    return file


def descriptor_set(*files: FileDescriptorProto, with_well_known: bool = True) -> bytes:
    result = FileDescriptorSet(file=files)
    if with_well_known:
        for module in WELL_KNOWN:
            module.DESCRIPTOR.CopyToProto(result.file.add())
    return result.SerializeToString()


def drive_class() -> Any:
    pool = DescriptorPool()
    for file in reversed(FileDescriptorSet.FromString(descriptor_set(drive_file())).file):
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("demo.Drive"))


def full_message() -> Any:
    message = drive_class()()
    for name, (_, value, _) in SCALARS.items():
        setattr(message, f"one_{name}", value)
        getattr(message, f"many_{name}").extend([value, value])
    message.gear = 4
    message.point.x = 1.5
    message.points.add(x=2.0)
    message.points.add(x=3.0)
    message.choice_point.x = 9.0
    message.counts["a"] = 2**40
    message.places["b"].x = 4.0
    message.timestamp.FromNanoseconds(1_700_000_000_123_456_789)
    message.duration.FromNanoseconds(-1_500_000_000)
    message.struct.update({"k": [1, "two", None]})
    message.any.Pack(timestamp_pb2.Timestamp(seconds=5))
    message.empty.SetInParent()
    message.doublevalue.value = 0.0
    message.tree.name = "root"
    message.tree.left.name = "leaf"
    message.maybe = 0
    return message


@pytest.mark.parametrize("with_well_known", [True, False])
def test_every_kind_of_field_has_its_column(with_well_known: bool) -> None:
    decoder = ProtobufDecoder("demo.Drive", descriptor_set(drive_file(), with_well_known=with_well_known))
    message = full_message()
    block = decoder.decode([message.SerializeToString(), drive_class()().SerializeToString()])
    block.batch.validate(full=True)
    assert not block.failures
    full, empty = block.batch.to_pylist()
    for name, (_, value, arrow_type) in SCALARS.items():
        assert decoder.schema.field(f"one_{name}").type == arrow_type
        assert full[f"one_{name}"] == value
        assert full[f"many_{name}"] == [value, value]
        assert empty[f"one_{name}"] == type(value)()
        assert empty[f"many_{name}"] == []
    assert (full["gear"], empty["gear"]) == (4, 0)
    assert decoder.schema.field("gear").metadata == {b"enum": b'{"PARK": 0, "DRIVE": 4}'}
    assert (full["point"], empty["point"]) == ({"x": 1.5}, None)
    assert full["points"] == [{"x": 2.0}, {"x": 3.0}]
    assert (full["choice_text"], full["choice_point"]) == (None, {"x": 9.0})
    assert full["counts"] == [("a", 2**40)]
    assert full["places"] == [("b", {"x": 4.0})]
    assert full["timestamp"] == {"seconds": 1_700_000_000, "nanos": 123_456_789}
    assert full["duration"] == {"seconds": -1, "nanos": -500_000_000}
    assert full["struct"] == '{"k": [1.0, "two", null]}'
    assert full["any"] == {
        "type_url": "type.googleapis.com/google.protobuf.Timestamp",
        "value": timestamp_pb2.Timestamp(seconds=5).SerializeToString(),
    }
    assert (full["empty"], empty["empty"]) == (True, False)
    assert (full["doublevalue"], empty["doublevalue"]) == ({"value": 0.0}, None)
    assert full["tree"] == {"name": "root", "left": message.tree.left.SerializeToString()}
    assert (full["maybe"], empty["maybe"]) == (0, None)


def test_messages_that_cannot_be_parsed_have_no_row() -> None:
    decoder = ProtobufDecoder("demo.Drive", descriptor_set(drive_file()))
    good = full_message().SerializeToString()
    block = decoder.decode([good, b"\xff\xff", good[:-1], good])
    assert block.rows.tolist() == [0, 3]
    assert sum(block.failures.values()) == 2


@pytest.mark.parametrize(
    ("name", "descriptors"),
    [
        ("demo.Drive", b"\xff\xfe"),
        ("demo.Drive", b""),
        ("demo.Missing", descriptor_set(drive_file())),
        ("demo.Drive", FileDescriptorSet(file=[drive_file(), drive_file()]).SerializeToString()[:-40]),
        ("", descriptor_set(drive_file())),
    ],
)
def test_unusable_descriptors_are_refused(name: str, descriptors: bytes) -> None:
    with pytest.raises(MessageDefinitionError):
        ProtobufDecoder(name, descriptors)


def test_a_file_whose_dependency_is_missing_is_refused() -> None:
    file = FileDescriptorProto(name="a.proto", dependency=["b.proto"], syntax="proto3")
    file.message_type.add(name="A")
    with pytest.raises(MessageDefinitionError):
        ProtobufDecoder("A", FileDescriptorSet(file=[file]).SerializeToString())
