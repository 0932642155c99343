"""The mapping of ROS messages to ontology models equals the official SDK's own bridge, value by value."""

import random
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock
from lakehouse.orchestration.recordings.decoding.ros import RosDecoder
from lakehouse.orchestration.recordings.decoding.ros_types import decoded_schema
from lakehouse.orchestration.recordings.ontology_mapping import OntologyMapping, find_mapping, mappings

pytest.importorskip("mosaicolabs")

import mosaicolabs.bridges.ros.adapters  # noqa: F401  (registers the adapters)
from mosaicolabs.bridges.ros.bridge import ROSBridge
from mosaicolabs.bridges.ros.helpers import _to_dict
from mosaicolabs.bridges.ros.ros_message import ROSMessage
from mosaicolabs.handlers.internal.topic_write_state import _encode_messages
from mosaicolabs.models.core import Message

MESSAGES_PER_TYPE = 60
STORES = (Stores.ROS1_NOETIC, Stores.ROS2_HUMBLE, Stores.ROS2_JAZZY)
# Types that recordings bring their definition for because a distribution's core does not.
NOT_IN_CORE = {
    "nmea_msgs/msg/Sentence": "std_msgs/Header header\nstring sentence\n",
    "tf2_msgs/msg/TFMessage": "geometry_msgs/TransformStamped[] transforms\n",
}

INTEGER_BITS = {f"{sign}int{bits}": (sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)}
EDGE_FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, -3.5e-310, 3.4028234663852886e38)
TEXTS = ("", "base_link", "Straße/カメラ", "a\nb", "🚗" * 3, " ", "\x00")
PICTURE_FORMATS = (
    "", "jpeg", "png", "JPG", "tiff", "h264", "hevc", "raw", "webp", "jpeg compressed", "rgb8; jpeg compressed bgr8",
    "bgr8; png compressed ", "16UC1; compressedDepth", "16UC1; compressedDepth png", "16UC1; compressedDepth rvl",
    "32FC1; compressedDepth tiff", "compressed jpeg", "mono8; JPEG compressed mono8",
)  # fmt: skip


class Generator:
    """Random messages of any type, with values that lie at the edges far more often than chance would have them."""

    def __init__(self, typestore: Typestore, seed: int) -> None:
        self.typestore = typestore
        self.random = random.Random(seed)

    def message(self, message_type: str) -> Any:
        fields = self.typestore.fielddefs[message_type][1]
        values = {name: self.value(message_type, name, description) for name, description in fields}
        if message_type == "sensor_msgs/msg/Image":
            self._shape_image(values)
        if message_type == "std_msgs/msg/Header" and self.random.random() < 0.2:
            values["stamp"], values["frame_id"] = self._time(0, 0), self.random.choice(("", "map"))
        if message_type == "sensor_msgs/msg/RegionOfInterest" and self.random.random() < 0.5:
            values.update(x_offset=0, y_offset=0, height=0, width=0, do_rectify=self.random.random() < 0.5)
        return self.typestore.types[message_type](**values)

    def value(self, owner: str, name: str, description: Any) -> Any:
        node, details = description
        if owner.startswith("builtin_interfaces/") and name == "nanosec":
            return self.random.choice((0, 1, 999_999_999, self.random.randrange(10**9)))
        if owner == "sensor_msgs/msg/PointField" and name == "datatype":
            return self.random.randint(1, 8)
        if (owner, name) == ("sensor_msgs/msg/Image", "is_bigendian"):
            return self.random.randint(0, 1)
        if (owner, name) == ("sensor_msgs/msg/CompressedImage", "format"):
            return self.random.choice(PICTURE_FORMATS)
        if owner == "sensor_msgs/msg/NavSatStatus" and name == "status":
            return self.random.randint(-3, 2)
        if name.startswith("binning_"):
            return self.random.choice((0, 1, 2, 4, 2**32 - 1))
        if "covariance" in name and node == Nodetype.ARRAY:
            return self._covariance(details[1])
        if node == Nodetype.BASE:
            return self.scalar(details[0])
        if node == Nodetype.NAME:
            return self.message(details)
        element, size = details
        # The SDK fails on a ROS 2 camera without distortion parameters; another test is about those.
        fewest = 1 if (owner, name) == ("sensor_msgs/msg/CameraInfo", "d") else 0
        count = size if node == Nodetype.ARRAY else self.random.choice((fewest, 1, 2, 7))
        values = [self.value(owner, f"{name}[]", element) for _ in range(count)]
        is_number = element[0] == Nodetype.BASE and element[1][0] != "string"
        return np.array(values, dtype=element[1][0]) if is_number else values

    def scalar(self, kind: str) -> Any:
        if kind == "bool":
            return self.random.random() < 0.5
        if kind == "string":
            return self.random.choice((*TEXTS, "".join(self.random.choices(string.printable, k=12))))
        if kind in ("byte", "char", "octet"):
            return self.random.randrange(256)
        if kind in INTEGER_BITS:
            sign, bits = INTEGER_BITS[kind]
            low, high = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            return self.random.choice((low, high, 0, 1, self.random.randint(low, high)))
        number = self.random.choice((*EDGE_FLOATS, self.random.gauss(0, 1), self.random.gauss(0, 1e6)))
        return float(np.float32(number)) if kind == "float32" else number

    def _covariance(self, size: int) -> Any:
        kind = self.random.randrange(6)
        values = np.zeros(size)
        if kind == 1:
            values[0] = -1
        elif kind == 2:
            values[:: int(size**0.5) + 1] = self.random.random()
        elif kind == 3:
            values[:] = np.nan
        elif kind == 4:
            values[self.random.randrange(size)] = self.random.choice((-3.0, 1e-300, float("inf"), float("nan")))
        elif kind == 5:
            values[0], values[-1] = -1, 2.0
        return values

    def _time(self, sec: int, nanosec: int) -> Any:
        return self.typestore.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)

    def _shape_image(self, values: dict[str, Any]) -> None:
        height, step = self.random.choice(((0, 0), (1, 1), (3, 8), (16, 33), (2, 0)))
        size = height * step if self.random.random() < 0.8 else height * step + 1
        pixels = np.array([self.random.randrange(256) for _ in range(size)], dtype=np.uint8)
        values.update(height=height, step=step, width=self.random.choice((step, 0, 2**31 - 1)), data=pixels)


def typestore_with_all(store: Stores) -> Typestore:
    typestore = get_typestore(store)
    for message_type, text in NOT_IN_CORE.items():
        if message_type not in typestore.fielddefs:
            typestore.register(get_types_from_msg(text, message_type))
    return typestore


def decode_block(messages: list[Any], message_type: str, typestore: Typestore) -> DecodedBlock:
    """Messages as they come from a recording: serialized, and read again as columns."""
    is_ros1 = "seq" in dict(typestore.fielddefs["std_msgs/msg/Header"][1])
    serialize = typestore.serialize_ros1 if is_ros1 else typestore.serialize_cdr
    decoder = RosDecoder(message_type, typestore.fielddefs, is_cdr=not is_ros1)
    block = decoder.decode([bytes(serialize(message, message_type)) for message in messages])
    assert not block.failures
    return block


def decode(messages: list[Any], message_type: str, typestore: Typestore) -> pa.RecordBatch:
    return decode_block(messages, message_type, typestore).batch


def rows_of_the_sdk(messages: list[Any], message_type: str) -> pa.RecordBatch:
    """What the SDK's topic writer would send for these messages."""
    adapter = ROSBridge.get_default_adapter(message_type)
    translated = [
        adapter.translate(ROSMessage(bag_timestamp_ns=1, topic="/t", msg_type=message_type, data=_to_dict(message)[0]))
        for message in messages
    ]
    schema = Message._get_schema(adapter.ontology_data_type().__msco_pyarrow_struct__)
    return pa.RecordBatch.from_pydict(_encode_messages(translated), schema=schema).drop_columns(["timestamp_ns"])


def assert_same_rows(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> None:
    """Equal schema and values; NaN equals NaN, and -0.0 does not equal 0.0."""
    assert ours.schema.equals(theirs.schema)
    ours.validate(full=True)
    for name in theirs.schema.names:
        for ours_value, theirs_value in zip(
            ours.column(name).to_pylist(), theirs.column(name).to_pylist(), strict=True
        ):
            assert repr(ours_value) == repr(theirs_value), name


def mapping_of(message_type: str) -> OntologyMapping:
    mapping = find_mapping(message_type)
    assert mapping is not None
    return mapping


CASES = [
    pytest.param(store, message_type, id=f"{store.value}-{message_type}")
    for store in STORES
    for message_type in sorted(ROSBridge.get_default_adapters())
]


def test_the_mapped_types_are_those_the_sdk_maps_to_the_same_models() -> None:
    of_the_sdk = {
        message_type: (
            adapter.ontology_data_type().ontology_tag(),
            adapter.ontology_data_type().__serialization_format__.value,
        )
        for message_type, adapter in ROSBridge.get_default_adapters().items()
    }
    assert {
        name: (mapping.ontology_tag, mapping.serialization_format) for name, mapping in mappings().items()
    } == of_the_sdk


@pytest.mark.parametrize(("store", "message_type"), CASES)
def test_every_value_equals_the_one_of_the_sdk(store: Stores, message_type: str) -> None:
    typestore = typestore_with_all(store)
    generator = Generator(typestore, seed=len(message_type))
    messages = [generator.message(message_type) for _ in range(MESSAGES_PER_TYPE)]

    mapped = mapping_of(message_type).map_messages(decode(messages, message_type, typestore))

    assert mapped.refused == ()
    assert_same_rows(mapped.batch, rows_of_the_sdk(messages, message_type))


HUMBLE = typestore_with_all(Stores.ROS2_HUMBLE)


def humble_messages(message_type: str, count: int = 20) -> list[Any]:
    generator = Generator(HUMBLE, seed=7)
    return [generator.message(message_type) for _ in range(count)]


@pytest.mark.parametrize("message_type", sorted(ROSBridge.get_default_adapters()))
def test_a_slice_of_decoded_columns_maps_like_the_rows_it_shows(message_type: str) -> None:
    messages = humble_messages(message_type)
    sliced = decode(messages, message_type, HUMBLE).slice(5, 9)
    alone = decode(messages[5:14], message_type, HUMBLE)
    mapping = mapping_of(message_type)
    assert_same_rows(mapping.map_messages(sliced).batch, mapping.map_messages(alone).batch)


@pytest.mark.parametrize("message_type", sorted(ROSBridge.get_default_adapters()))
def test_no_messages_map_to_no_rows(message_type: str) -> None:
    mapping = mapping_of(message_type)
    decoded = decode([], message_type, HUMBLE)
    assert mapping.obstacle(decoded.schema) is None
    assert mapping.map_messages(decoded).batch.num_rows == 0


def assert_refused(messages: list[Any], message_type: str, bad: list[int], reason: str) -> None:
    """Exactly the bad messages are left out, the SDK fails on each of them, and the others are equal to the SDK's."""
    for row in bad:
        with pytest.raises(Exception, match=r"."):
            rows_of_the_sdk([messages[row]], message_type)
    mapped = mapping_of(message_type).map_messages(decode(messages, message_type, HUMBLE))
    assert [(refusal.rows.tolist(), reason in refusal.reason) for refusal in mapped.refused] == [(bad, True)]
    kept = [row for row in range(len(messages)) if row not in bad]
    assert mapped.rows.tolist() == kept
    assert_same_rows(mapped.batch, rows_of_the_sdk([messages[row] for row in kept], message_type))


def test_a_message_with_an_impossible_stamp_is_refused() -> None:
    messages = humble_messages("sensor_msgs/msg/Imu")
    messages[4].header.stamp.nanosec = 10**9
    messages[11].header.stamp.nanosec = 2**32 - 1
    assert_refused(messages, "sensor_msgs/msg/Imu", [4, 11], "nanoseconds")


def test_an_impossible_stamp_deep_inside_refuses_the_message_that_holds_it() -> None:
    messages = humble_messages("nav_msgs/msg/Path")
    bad = [row for row, message in enumerate(messages) if len(message.poses) > 1][:2]
    for row in bad:
        for pose in messages[row].poses[-2:]:
            pose.header.stamp.nanosec = 10**9
    assert_refused(messages, "nav_msgs/msg/Path", bad, "nanoseconds")


def test_a_point_field_of_an_undefined_datatype_is_refused() -> None:
    messages = humble_messages("sensor_msgs/msg/PointCloud2")
    bad = [row for row, message in enumerate(messages) if message.fields][1:3]
    messages[bad[0]].fields[0].datatype, messages[bad[1]].fields[0].datatype = 0, 9
    assert_refused(messages, "sensor_msgs/msg/PointCloud2", bad, "datatype")


def test_a_message_with_several_flaws_is_counted_once() -> None:
    messages = humble_messages("sensor_msgs/msg/Image", 6)
    messages[2].width = messages[2].step = messages[4].step = 2**31
    messages[2].header.stamp.nanosec = messages[5].header.stamp.nanosec = 10**9
    mapped = mapping_of("sensor_msgs/msg/Image").map_messages(decode(messages, "sensor_msgs/msg/Image", HUMBLE))
    assert sorted(row for refusal in mapped.refused for row in refusal.rows.tolist()) == [2, 4, 5]
    assert mapped.rows.tolist() == [0, 1, 3]


def test_refusals_join_the_failures_of_the_decoder() -> None:
    messages = humble_messages("sensor_msgs/msg/Imu", 5)
    messages[1].header.stamp.nanosec = 10**9
    block = decode_block(messages, "sensor_msgs/msg/Imu", HUMBLE)
    block = DecodedBlock(block.batch, block.rows + 3, Counter({"broken": 3}))
    mapped = mapping_of("sensor_msgs/msg/Imu").map_block(block)
    assert mapped.rows.tolist() == [3, 5, 6, 7]
    assert mapped.failures["broken"] == 3
    assert mapped.failures.total() == 4


def test_an_image_larger_than_the_model_can_say_is_refused() -> None:
    messages = humble_messages("sensor_msgs/msg/Image")
    messages[3].width = 2**31
    assert_refused(messages, "sensor_msgs/msg/Image", [3], "'width' does not fit int32")


def test_a_camera_without_distortion_parameters_is_kept_though_the_sdk_fails_on_it() -> None:
    messages = humble_messages("sensor_msgs/msg/CameraInfo")
    messages[2].d = np.zeros(0)
    mapped = mapping_of("sensor_msgs/msg/CameraInfo").map_messages(
        decode(messages, "sensor_msgs/msg/CameraInfo", HUMBLE)
    )
    assert mapped.refused == ()
    assert mapped.batch["distortion_parameters"][2].as_py() == []


def test_a_picture_of_unknown_transport_is_kept_as_raw_bytes() -> None:
    messages = humble_messages("sensor_msgs/msg/CompressedImage", 3)
    messages[0].format, messages[1].format, messages[2].format = "bgr8; zdepth", "  ", "compressed compressedDepth"
    decoded = decode(messages, "sensor_msgs/msg/CompressedImage", HUMBLE)
    mapped = mapping_of("sensor_msgs/msg/CompressedImage").map_messages(decoded)
    assert mapped.batch["format"].to_pylist() == ["raw"] * 3
    assert mapped.batch["data"].equals(decoded["data"])


def test_a_definition_without_a_needed_field_is_an_obstacle_that_is_named() -> None:
    schema = decoded_schema("sensor_msgs/msg/Imu", HUMBLE)
    schema = schema.remove(schema.get_field_index("angular_velocity"))
    obstacle = mapping_of("sensor_msgs/msg/Imu").obstacle(schema)
    assert obstacle is not None
    assert "sensor_msgs/msg/Imu" in obstacle
    assert "angular_velocity" in obstacle


def test_a_definition_with_a_field_of_another_kind_is_an_obstacle() -> None:
    schema = decoded_schema("sensor_msgs/msg/JointState", HUMBLE)
    names = schema.get_field_index("name")
    schema = schema.set(names, pa.field("name", pa.list_(pa.int32())))
    assert "name" in str(mapping_of("sensor_msgs/msg/JointState").obstacle(schema))


OTHER_KINDS = (
    pa.string(),
    pa.binary(),
    pa.bool_(),
    pa.int8(),
    pa.float64(),
    pa.list_(pa.float32()),
    pa.list_(pa.float64(), 3),
    pa.list_(pa.string()),
    pa.struct([("a", pa.int8())]),
    pa.list_(pa.struct([("a", pa.int8())])),
)


def with_one_field_changed(schema: pa.Schema) -> Iterator[pa.Schema]:
    for index, field in enumerate(schema):
        yield schema.remove(index)
        for kind in OTHER_KINDS:
            yield schema.set(index, pa.field(field.name, kind))
        if pa.types.is_struct(field.type):
            for changed in with_one_field_changed(pa.schema(list(field.type))):
                yield schema.set(index, pa.field(field.name, pa.struct(list(changed))))


def some_value(kind: pa.DataType) -> Any:
    if pa.types.is_struct(kind):
        return {field.name: some_value(field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return [some_value(kind.value_type)] * kind.list_size
    if pa.types.is_list(kind):
        return [some_value(kind.value_type)] * 2
    return pa.scalar(7).cast(pa.string()).cast(kind).as_py() if not pa.types.is_boolean(kind) else True


@pytest.mark.parametrize("message_type", sorted(ROSBridge.get_default_adapters()))
def test_any_other_definition_is_either_an_obstacle_or_maps(message_type: str) -> None:
    mapping = mapping_of(message_type)
    for schema in with_one_field_changed(decoded_schema(message_type, HUMBLE)):
        if mapping.obstacle(schema) is None:
            row = {field.name: some_value(field.type) for field in schema}
            mapped = mapping.map_messages(pa.RecordBatch.from_pylist([row, row], schema=schema))
            mapped.batch.validate(full=True)
            assert mapped.rows.size + sum(refusal.rows.size for refusal in mapped.refused) == 2


def test_a_definition_without_covariances_or_header_maps_as_unknown() -> None:
    messages = humble_messages("sensor_msgs/msg/Imu")
    decoded = decode(messages, "sensor_msgs/msg/Imu", HUMBLE).select(["angular_velocity", "linear_acceleration"])
    mapped = mapping_of("sensor_msgs/msg/Imu").map_messages(decoded).batch
    assert mapped["header"].null_count == mapped["orientation"].null_count == len(messages)
    assert pa.compute.struct_field(mapped["acceleration"], "covariance").null_count == len(messages)


def test_a_type_without_a_model_has_no_mapping() -> None:
    assert find_mapping("std_msgs/msg/ColorRGBA") is None
