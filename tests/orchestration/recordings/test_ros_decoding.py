"""ROS messages become the columns that rosbags' own decoder says they hold."""

import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from lakehouse.orchestration.recordings.decoding.ros import RosDecoder
from lakehouse.orchestration.recordings.decoding.ros_types import decoded_schema, parse_definitions
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from tests.orchestration.recordings.recording_files import as_plain, with_bytes_as_lists

STORES = {"ros1": get_typestore(Stores.ROS1_NOETIC), "cdr": get_typestore(Stores.ROS2_HUMBLE)}
WORDS = ["", "a", "map", "base_link", "höhe", "x" * 300]


def random_value(store: Typestore, description: Any, chance: random.Random, depth: int = 0) -> Any:
    node, details = description
    if node == Nodetype.NAME:
        return random_message(store, details, chance, depth + 1)
    if node == Nodetype.BASE:
        name = details[0]
        if name == "string":
            return chance.choice(WORDS)
        if name == "bool":
            return chance.random() < 0.5
        if name.startswith("float"):
            value = chance.choice([0.0, -1.5, 1e30, float("inf"), float("nan"), chance.random()])
            return float(np.float32(value)) if name == "float32" else value
        if name == "byte":
            return chance.randint(0, 127)  # rosbags takes it for signed, ROS 2 for unsigned
        limits = np.iinfo("uint8" if name == "char" else name)
        return chance.choice([int(limits.min), int(limits.max), chance.randint(int(limits.min), int(limits.max))])
    element, size = details
    length = size if node == Nodetype.ARRAY else chance.choice([0, 1, 2, 5] if depth < 3 else [0, 1])
    values = [random_value(store, element, chance, depth) for _ in range(length)]
    if element[0] == Nodetype.BASE and element[1][0] != "string":
        return np.array(values, dtype={"byte": "uint8", "char": "uint8"}.get(element[1][0], element[1][0]))
    return values


def random_message(store: Typestore, message_type: str, chance: random.Random, depth: int = 0) -> Any:
    fields = store.get_msgdef(message_type).fields
    return store.types[message_type](*[random_value(store, field, chance, depth) for _, field in fields])


@pytest.mark.parametrize("encoding", ["ros1", "cdr"])
def test_every_standard_type_decodes_as_rosbags_decodes_it(encoding: str) -> None:
    store, chance = STORES[encoding], random.Random(7)
    for message_type in sorted(store.fielddefs):
        messages = [random_message(store, message_type, chance) for _ in range(8)]
        if encoding == "cdr":
            payloads = [
                bytes(store.serialize_cdr(message, message_type, little_endian=index % 3 > 0))
                for index, message in enumerate(messages)
            ]
            expected = [store.deserialize_cdr(payload, message_type) for payload in payloads]
        else:
            payloads = [bytes(store.serialize_ros1(message, message_type)) for message in messages]
            expected = [store.deserialize_ros1(payload, message_type) for payload in payloads]
        block = RosDecoder(message_type, store.fielddefs, is_cdr=encoding == "cdr").decode(payloads)
        block.batch.validate(full=True)
        assert not block.failures, message_type
        assert block.rows.tolist() == list(range(len(payloads)))
        assert block.batch.schema == decoded_schema(message_type, store)
        got = [with_bytes_as_lists(as_plain(row)) for row in block.batch.to_pylist()]
        assert got == [as_plain(message) for message in expected], message_type


def test_messages_of_one_length_but_different_layout_keep_their_order() -> None:
    definitions = parse_definitions("x/msg/Two", "string first\nstring second\nuint8[] data")
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("string first\nstring second\nuint8[] data", "x/msg/Two"))
    kind = store.types["x/msg/Two"]
    contents = [("a" * (index % 7), "b" * (7 - index % 7), bytes([index])) for index in range(100)]
    payloads = [
        bytes(store.serialize_ros1(kind(first, second, np.frombuffer(data, np.uint8)), "x/msg/Two"))
        for first, second, data in contents
    ]
    assert len(set(map(len, payloads))) == 1
    rows = RosDecoder("x/msg/Two", definitions, is_cdr=False).decode(payloads).batch.to_pylist()
    assert [(row["first"], row["second"], row["data"]) for row in rows] == contents


def test_long_arrays_of_messages_follow_the_alignment_of_their_elements() -> None:
    text = "uint8 start\nE[] items\n" + "=" * 80 + "\nMSG: x/E\nuint8 a\nuint16 b\nuint8 c\nfloat64 d\nuint8 e\n"
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(text, "x/msg/List"))
    kind, element = store.types["x/msg/List"], store.types["x/msg/E"]
    for count in (0, 1, 2, 3, 4, 50):
        message = kind(9, [element(i % 256, i * 7, i % 5, i / 3, i % 11) for i in range(count)])
        payload = bytes(store.serialize_cdr(message, "x/msg/List"))
        block = RosDecoder("x/msg/List", store.fielddefs, is_cdr=True).decode([payload, payload])
        assert [as_plain(row) for row in block.batch.to_pylist()] == [as_plain(message)] * 2


@pytest.mark.parametrize("size", [2, 4])
def test_wide_strings_of_either_width_are_read(size: int) -> None:
    definitions = parse_definitions("x/msg/Wide", "wstring text\nuint32 after")
    text = "größe"
    encoded = text.encode("utf-16-le" if size == 2 else "utf-32-le")
    body = struct.pack("<I", len(text)) + encoded
    body += b"\0" * (-len(body) % 4) + struct.pack("<I", 77)
    block = RosDecoder("x/msg/Wide", definitions, is_cdr=True).decode([b"\x00\x01\x00\x00" + body])
    assert block.batch.to_pylist() == [{"text": text, "after": 77}]


def test_broken_messages_have_no_row_and_are_counted_by_reason() -> None:
    definitions = parse_definitions("x/msg/Text", "string data\nfloat64[] values")
    good = b"\x00\x01\x00\x00" + struct.pack("<I", 2) + b"a\0" + b"\0\0" + struct.pack("<I", 0)
    payloads = [
        good,
        b"",
        b"\x00\x09\x00\x00" + good[4:],
        good[:-3],
        good + b"\0" * 4,
        good[:4] + struct.pack("<I", 2**32 - 1) + good[8:],
        good[:-4] + struct.pack("<I", 2**31),
        good.replace(b"a\0", b"\xff\0"),
        good.replace(b"a\0", b"ab"),
        good,
    ]
    block = RosDecoder("x/msg/Text", definitions, is_cdr=True).decode(payloads)
    assert block.rows.tolist() == [0, 9]
    assert block.failures == {
        "the message does not begin with a CDR encapsulation ROS uses": 2,
        "the message ends in the middle of a value": 2,
        "the message is longer than its type says": 1,
        "a sequence has more elements than the message has bytes": 1,
        "a string is not valid Unicode text": 1,
        "a string does not end with a zero byte": 1,
    }


def test_many_broken_messages_do_not_take_long() -> None:
    definitions = parse_definitions("x/msg/Text", "string data")
    broken = b"\x00\x01\x00\x00" + struct.pack("<I", 500)
    block = RosDecoder("x/msg/Text", definitions, is_cdr=True).decode([broken] * 20_000)
    assert block.batch.num_rows == 0
    assert sum(block.failures.values()) == 20_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Missing field", "not part of the recording"),
        ("Loop inner\n" + "=" * 80 + "\nMSG: x/Loop\nLoop again", "contains itself"),
        ("int32 a\nint32 a", "two fields"),
        ("= this is no definition", "cannot be parsed"),
        ("float128 huge", "not part of the recording"),
    ],
)
def test_unusable_definitions_are_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(MessageDefinitionError, match=reason):
        RosDecoder("x/msg/Top", parse_definitions("x/msg/Top", text), is_cdr=True)


def test_events_of_services_are_decoded_from_the_definition_of_the_service() -> None:
    definitions = parse_definitions("x/srv/Add_Event", "int64 a\nint64 b\n---\nint64 sum\n")
    schema = decoded_schema("x/srv/Add_Event", definitions)
    assert schema.names == ["info", "request", "response"]
    assert schema.field("request").type == pa.list_(pa.struct([("a", pa.int64()), ("b", pa.int64())]))
    assert schema.field("response").type == pa.list_(pa.struct([("sum", pa.int64())]))
