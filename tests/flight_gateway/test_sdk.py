"""What the official client does, through its public classes."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.types as pat
import pytest
from mosaicolabs import (
    GPS,
    IMU,
    GRPCCompression,
    GRPCCompressionAlgorithm,
    GRPCCompressionLevel,
    Message,
    MosaicoClient,
    SessionLevelErrorPolicy,
    Vector3d,
)
from mosaicolabs.models.core.serializable import Serializable, _compute_schema_fingerprint
from pyarrow import flight

from lakehouse.ontology.registry import load_models
from tests.flight_gateway.conftest import Served
from tests.flight_gateway.raw_client import RawClient
from tests.warehouses import BOTH

WAREHOUSES = BOTH

TAGS = sorted(load_models())


def imu(timestamp_ns: int, x: float = 0.5) -> Message:
    vector = Vector3d(x=x, y=-1.0, z=9.81)
    return Message(timestamp_ns=timestamp_ns, data=IMU(acceleration=vector, angular_velocity=vector))


def some_value(arrow_type: pa.DataType, generator: random.Random) -> Any:
    """Any value of an Arrow type that occurs in the shipped models."""
    if pat.is_struct(arrow_type):
        return {field.name: some_field(field, generator) for field in arrow_type}
    if pat.is_fixed_size_list(arrow_type):
        return [some_field(arrow_type.value_field, generator) for _ in range(arrow_type.list_size)]
    if pat.is_list(arrow_type):
        return [some_value(arrow_type.value_type, generator) for _ in range(generator.randrange(4))]
    if pat.is_integer(arrow_type):
        bits = arrow_type.bit_width - (0 if str(arrow_type).startswith("u") else 1)
        return generator.choice([0, 1, 2**bits - 1])
    if pat.is_floating(arrow_type):
        return generator.choice([0.0, -1.5, 0.25, 1024.0])
    if pat.is_boolean(arrow_type):
        return generator.random() < 0.5
    if pat.is_binary(arrow_type):
        return generator.randbytes(generator.randrange(20))
    assert pat.is_string(arrow_type)
    return generator.choice(["", "text", "\u00e9\U0001f697"])


def some_field(field: pa.Field, generator: random.Random) -> Any:
    return None if field.nullable and generator.random() < 0.3 else some_value(field.type, generator)


@pytest.mark.parametrize("tag", TAGS)
def test_every_shipped_model_comes_back_as_its_own_class(
    raw: RawClient, arrow: flight.FlightClient, sdk: MosaicoClient, name: str, tag: str
) -> None:
    generator = random.Random(tag)
    model = Serializable._get_class_type(tag)
    schema = Message._get_schema(model)
    columns = [
        pa.array(range(50), pa.int64())
        if field.name == "timestamp_ns"
        else pa.array([some_field(field, generator) for _ in range(50)], field.type)
        for field in schema
    ]
    batch = pa.record_batch(columns, schema=schema)
    topic = raw.new_topic(name, "sensors/one", ontology_tag=tag)
    raw.upload(topic, batch, schema=schema)
    raw.action("session_finalize", session_uuid=topic.session_uuid)

    stored = raw.schema(topic.locator)
    assert stored.equals(schema, check_metadata=True)
    handler = sdk.topic_handler(name, "sensors/one")
    assert handler is not None
    assert handler.ontology_tag == tag
    assert _compute_schema_fingerprint(handler.ontology_schema) == load_models()[tag].fingerprint
    read = arrow.do_get(raw.describe(topic.locator).endpoints[0].ticket).read_all()
    assert read.to_pylist() == pa.Table.from_batches([batch]).to_pylist()
    streamer = handler.get_data_streamer()
    assert streamer._ontology_type is model
    assert streamer.msg_count == 50
    streamer.close()


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_write_and_read_a_sequence(sdk: MosaicoClient, name: str, order: str) -> None:
    stamps = list(range(1000, 2000, 10))
    with sdk.sequence_create(name, {"vehicle": {"id": "v7"}}) as writer:
        front = writer.topic_create("imu/front", {"rate": 100}, IMU)
        rear = writer.topic_create("/imu/rear", {}, IMU)
        for stamp in stamps if order == "ascending" else reversed(stamps):
            front.push(imu(stamp, x=float(stamp)))
            rear.push(imu(stamp + 5))
    handler = sdk.sequence_handler(name)
    assert handler is not None
    assert handler.user_metadata == {"vehicle": {"id": "v7"}}
    assert sorted(handler.topics) == ["/imu/front", "/imu/rear"]
    assert (handler.timestamp_ns_min, handler.timestamp_ns_max) == (1000, 1995)
    assert [session.locked for session in handler.sessions] == [True]
    assert handler.total_size_bytes > 0
    streamer = handler.get_data_streamer()
    found = [(message.timestamp_ns, topic) for topic, message in streamer]
    assert found == sorted(found)
    assert len(found) == 2 * len(stamps)
    window = handler.get_data_streamer(topics=["/imu/front"], start_timestamp_ns=1100, end_timestamp_ns=1200)
    assert [message.data.acceleration.x for _, message in window] == [float(x) for x in range(1100, 1200, 10)]
    topic = sdk.topic_handler(name, "imu/front")
    assert topic is not None
    assert topic.user_metadata == {"rate": 100}
    assert topic.locked
    streamer = topic.get_data_streamer(start_timestamp_ns=1500)
    assert streamer.msg_count == 50
    assert streamer.timestamp_ns_min == 1500
    streamer.close()
    assert sdk.sequence_exists(name)
    assert sdk.topic_exists(name, "imu/front")
    assert not sdk.topic_exists(name, "imu/none")
    assert name in sdk.list_sequences()


def test_a_topic_that_was_never_pushed_to_is_empty(sdk: MosaicoClient, name: str) -> None:
    with sdk.sequence_create(name, {}) as writer:
        writer.topic_create("silent", {}, GPS)
    topic = sdk.topic_handler(name, "silent")
    assert topic is not None
    assert topic.timestamp_ns_min is None
    with pytest.raises(ValueError, match="no data"):
        topic.get_data_streamer()


def test_leaving_an_empty_block_is_an_error(sdk: MosaicoClient, name: str) -> None:
    with pytest.raises(Exception, match=r"topic"), sdk.sequence_create(name, {}):
        pass


def test_a_further_session_adds_topics(sdk: MosaicoClient, name: str) -> None:
    with sdk.sequence_create(name, {}) as writer:
        writer.topic_create("imu", {}, IMU).push(imu(1))
    with sdk.sequence_update(name) as updater:
        updater.topic_create("imu/second", {}, IMU).push(imu(2))
    sdk.clear_sequence_handlers_cache()
    handler = sdk.sequence_handler(name)
    assert handler is not None
    assert len(handler.sessions) == 2
    assert [message.timestamp_ns for _, message in handler.get_data_streamer()] == [1, 2]
    sdk.session_delete(handler.sessions[0].locator)
    assert handler.reload()
    assert handler.topics == ["/imu/second"]


def fail_while_writing(sdk: MosaicoClient, name: str, policy: SessionLevelErrorPolicy) -> None:
    with sdk.sequence_create(name, {}, on_error=policy) as writer:
        writer.topic_create("imu", {}, IMU).push(imu(1))
        raise RuntimeError("boom")


def test_the_delete_policy_leaves_nothing(sdk: MosaicoClient, name: str) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(sdk, name, SessionLevelErrorPolicy.Delete)
    assert not sdk.sequence_exists(name)


def test_the_report_policy_keeps_what_arrived_and_says_why(sdk: MosaicoClient, name: str) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(sdk, name, SessionLevelErrorPolicy.Report)
    (note,) = sdk.list_sequence_notifications(name)
    assert "boom" in note.message
    assert note.created_datetime is not None
    (topic_note,) = sdk.list_topic_notifications(name, "imu")
    assert "boom" in topic_note.message
    handler = sdk.sequence_handler(name)
    assert handler is not None
    assert handler.sessions[0].locked
    sdk.clear_sequence_notifications(name)
    assert sdk.list_sequence_notifications(name) == []


def test_a_deleted_sequence_is_gone(sdk: MosaicoClient, name: str) -> None:
    with sdk.sequence_create(name, {}) as writer:
        writer.topic_create("imu", {}, IMU).push(imu(1))
    sdk.sequence_delete(name)
    assert sdk.sequence_handler(name) is None
    assert sdk.topic_handler(name, "imu") is None
    assert name not in sdk.list_sequences()


@pytest.mark.parametrize("algorithm", [GRPCCompressionAlgorithm.Gzip, GRPCCompressionAlgorithm.StreamGzip])
def test_a_client_may_compress_its_messages(served: Served, name: str, algorithm: GRPCCompressionAlgorithm) -> None:
    compression = GRPCCompression(algorithm=algorithm, level=GRPCCompressionLevel.High)
    with MosaicoClient.connect("127.0.0.1", served.port, compression=compression) as client:
        with client.sequence_create(name, {}) as writer:
            topic = writer.topic_create("imu", {}, IMU)
            for stamp in range(500):
                topic.push(imu(stamp))
        handler = client.sequence_handler(name)
        assert handler is not None
        assert sum(1 for _ in handler.get_data_streamer()) == 500


def test_threads_share_a_client(sdk: MosaicoClient, name: str) -> None:
    def write_and_read(number: int) -> int:
        sequence = f"{name}-{number}"
        with sdk.sequence_create(sequence, {}) as writer:
            for topic in range(3):
                channel = writer.topic_create(f"imu/{topic}", {}, IMU)
                for stamp in range(20):
                    channel.push(imu(stamp))
        handler = sdk.sequence_handler(sequence)
        assert handler is not None
        return sum(1 for _ in handler.get_data_streamer())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(write_and_read, range(6))) == [60] * 6


def test_errors_arrive_as_the_classes_that_programs_catch(sdk: MosaicoClient, name: str) -> None:
    def error_of(call: Callable[[], object]) -> type[BaseException]:
        with pytest.raises(pa.ArrowException) as caught:
            call()
        return caught.type

    with sdk.sequence_create(name, {}) as writer:
        writer.topic_create("imu", {}, IMU)
        assert error_of(lambda: sdk.sequence_create(name, {}).__enter__()) is pa.ArrowException
    assert error_of(lambda: sdk.sequence_delete(f"{name}-none")) is pa.ArrowKeyError
    assert error_of(lambda: sdk.session_delete("no session locator")) is pa.ArrowInvalid
