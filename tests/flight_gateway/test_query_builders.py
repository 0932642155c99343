"""Every operator that the official client offers on every field of every model it ships finds the right topics."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
import pytest
from mosaicolabs import (
    IMU,
    MosaicoClient,
    Query,
    QueryableBool,
    QueryableNumeric,
    QueryableString,
    QueryOntologyCatalog,
    QuerySequence,
    QueryTopic,
    RobotPath,
)
from mosaicolabs.models.core.serializable import _SCHEMA_REGISTRY
from mosaicolabs.query.generation.api import _QueryProxy
from mosaicolabs.query.generation.internal import _QueryableList

from lakehouse.ontology.registry import OntologyModel, load_models
from tests.flight_gateway.raw_client import RawClient
from tests.warehouses import BOTH

WAREHOUSES = BOTH
SEQUENCE = "everything"
NUMBER, FRACTION, TEXT = 5, 2.5, "m"


def sample(kind: pa.DataType) -> Any:
    """A value of a type: the same in every leaf of a family, twice in every list."""
    if pat.is_struct(kind):
        return {field.name: sample(field.type) for field in kind}
    if pat.is_fixed_size_list(kind):
        return [sample(kind.value_type)] * kind.list_size
    if pat.is_list(kind) or pat.is_large_list(kind):
        return [sample(kind.value_type)] * 2
    if pat.is_boolean(kind):
        return True
    if pat.is_float16(kind):
        return np.float16(FRACTION)
    if pat.is_floating(kind):
        return FRACTION
    return NUMBER if pat.is_integer(kind) else TEXT if pat.is_string(kind) else TEXT.encode()


@pytest.fixture(scope="module")
def everything(raw: RawClient) -> RawClient:
    """One sequence with a topic of one row for every shipped model."""
    raw.action("sequence_create", locator=SEQUENCE, user_metadata={})
    session = raw.action("session_create", locator=SEQUENCE)
    for model in load_models().values():
        topic = raw.add_topic(
            SEQUENCE,
            session,
            model.tag,
            ontology_tag=model.tag,
            serialization_format=model.serialization_format,
        )
        schema = model.arrow_schema
        columns = [pa.array([sample(field.type)], field.type) for field in schema]
        raw.upload(topic, pa.RecordBatch.from_arrays(columns, schema=schema), schema=schema)
    raw.action("session_finalize", session_uuid=session["uuid"])
    return raw


def leaves(proxy: _QueryProxy) -> Iterator[tuple[Any, pa.DataType]]:
    """Every field with operators below a proxy; elements of lists as any, all and the second of them.

    Lists inside lists are left out: the protocol allows one specifier in a path, though the client writes two.
    """
    schema = proxy.__schema__
    is_inside_list = "[" in proxy.__path__
    if isinstance(schema, _QueryableList):
        for element in (proxy.any(), proxy.all(), proxy[1]):
            yield from leaves(element)
    elif isinstance(schema, dict):
        for name, kind in schema.items():
            child = getattr(proxy, name)
            if isinstance(child, _QueryProxy):
                yield from leaves(child)
            elif hasattr(child, "eq"):
                yield child, kind
    elif not is_inside_list:
        for element in (proxy.any(), proxy.all(), proxy[1]):
            if hasattr(element, "eq"):
                yield element, schema.value_type


Builder = Callable[[Any], Any]


def operators(field: Any, kind: pa.DataType) -> tuple[list[Builder], list[Builder]]:
    """Uses of every operator of a field that hold for the sample, and uses that do not."""
    value = sample(kind)
    if pat.is_boolean(kind):
        return [lambda f: f.eq(True)], [lambda f: f.eq(False)]
    if pat.is_string(kind):
        low, high = "a", "z"
    else:
        value = int(value) if pat.is_integer(kind) else float(value)
        low, high = value - 1, value + 1
    holds = [
        lambda f: f.eq(value),
        lambda f: f.lt(high),
        lambda f: f.leq(value),
        lambda f: f.gt(low),
        lambda f: f.geq(value),
        lambda f: f.in_([high, value]),
        lambda f: f.between([value, value]),
        lambda f: f.outside([high, high]),
    ]
    fails = [
        lambda f: f.eq(high),
        lambda f: f.lt(value),
        lambda f: f.leq(low),
        lambda f: f.gt(value),
        lambda f: f.geq(high),
        lambda f: f.in_([high, low]),
        lambda f: f.between([low, low]),
        lambda f: f.outside([low, high]),
    ]
    if hasattr(field, "neq"):
        holds.append(lambda f: f.neq(high))
        fails.append(lambda f: f.neq(value))
    if hasattr(field, "match"):
        holds.append(lambda f: f.match("[l-n]*"))
        fails.append(lambda f: f.match("?m"))
    return holds, fails


def found(client: MosaicoClient, *expressions: Any) -> list[str]:
    response = client.query(QueryOntologyCatalog(*expressions))
    assert response is not None
    return [topic.name for item in response for topic in item.topics]


@pytest.mark.parametrize("model", load_models().values(), ids=lambda model: model.tag)
def test_every_operator_on_every_field(everything: RawClient, sdk: MosaicoClient, model: OntologyModel) -> None:
    fields = [(field, *operators(field, kind)) for field, kind in leaves(_SCHEMA_REGISTRY[model.tag].Q)]
    assert fields
    # All fields of the row at once, with their next operator each time.
    for turn in range(max(len(holds) for _, holds, _ in fields)):
        assert found(sdk, *(holds[turn % len(holds)](field) for field, holds, _ in fields)) == [f"/{model.tag}"]
    for number in np.linspace(0, len(fields) - 1, min(len(fields), 5)).astype(int).tolist():
        field, _, fails = fields[number]
        assert found(sdk, fails[number % len(fails)](field)) == []


DAY, NOON = dt.date(2026, 3, 14), dt.time(12, 30, 0, 250_000)
MOMENT = dt.datetime(2026, 3, 14, 9, 26, 53, 589_793)
TEMPORAL: dict[str, tuple[pa.DataType, Any]] = {
    "day": (pa.date32(), DAY),
    "day_ms": (pa.date64(), DAY),
    "clock": (pa.time32("ms"), NOON),
    "clock_us": (pa.time64("us"), NOON),
    "clock_ns": (pa.time64("ns"), NOON),
    "moment_ms": (pa.timestamp("ms"), MOMENT.replace(microsecond=589_000)),
    "moment_us": (pa.timestamp("us"), MOMENT),
    "moment_ns": (pa.timestamp("ns"), MOMENT),
}


def test_dates_and_times_take_dates_times_and_nanoseconds(raw: RawClient, sdk: MosaicoClient) -> None:
    kinds = {name: kind for name, (kind, _) in TEMPORAL.items()}
    schema = pa.schema([pa.field("timestamp_ns", pa.int64(), nullable=False), *kinds.items()])
    row = {"timestamp_ns": 1, **{name: value for name, (_, value) in TEMPORAL.items()}}
    topic = raw.new_topic("temporal", "clocks", ontology_tag="Clocks")
    raw.upload(topic, pa.RecordBatch.from_pylist([row], schema=schema), schema=schema)
    proxy = _QueryProxy("Clocks", kinds)
    for name, (_, value) in TEMPORAL.items():
        field = getattr(proxy, name)
        step = dt.timedelta(milliseconds=1)
        if isinstance(value, dt.datetime):
            before, after = value - step, value + step
        elif isinstance(value, dt.date):
            before, after = value - dt.timedelta(days=1), value + dt.timedelta(days=1)
        else:
            before, after = value.replace(microsecond=249_000), value.replace(microsecond=251_000)
        for holds in (
            field.eq(value),
            field.neq(after),
            field.lt(after),
            field.leq(value),
            field.gt(before),
            field.geq(value),
            field.in_([before, value]),
            field.between([before, value]),
            field.outside([after, after]),
        ):
            assert found(sdk, holds) == ["/clocks"], (name, holds.to_dict())
        for fails in (
            field.eq(before),
            field.neq(value),
            field.lt(value),
            field.leq(before),
            field.gt(value),
            field.geq(after),
            field.in_([before, after]),
            field.between([after, after]),
            field.outside([before, after]),
        ):
            assert found(sdk, fails) == [], (name, fails.to_dict())
    nanoseconds = int((MOMENT - dt.datetime(1970, 1, 1)) / dt.timedelta(microseconds=1)) * 1000
    assert found(sdk, proxy.moment_ns.eq(nanoseconds)) == ["/clocks"]
    assert found(sdk, proxy.moment_ns.gt(nanoseconds)) == []


def test_fields_are_addressed_by_path(everything: RawClient, sdk: MosaicoClient) -> None:
    assert found(sdk, QueryableNumeric("Joy.axes[0]").eq(FRACTION)) == ["/Joy"]
    assert found(sdk, QueryableString("RobotJoint.names[?]").match("m")) == ["/RobotJoint"]
    assert found(sdk, QueryableBool("ROI.do_rectify").eq(True)) == ["/ROI"]
    assert found(sdk, QueryableNumeric("LaserScan.ranges[!]").leq(FRACTION)) == ["/LaserScan"]
    assert found(sdk, QueryableNumeric("LaserScan.ranges[7]").leq(FRACTION)) == []


def test_a_list_inside_a_list_is_refused(everything: RawClient, sdk: MosaicoClient) -> None:
    with pytest.raises(pa.ArrowInvalid, match="more than one list specifier"):
        found(sdk, RobotPath.Q.poses.any().covariance.any().gt(0))


def test_entries_of_maps_are_addressed_by_key(raw: RawClient, sdk: MosaicoClient) -> None:
    schema = pa.schema(
        [pa.field("timestamp_ns", pa.int64(), nullable=False), pa.field("gains", pa.map_(pa.string(), pa.float64()))]
    )
    topic = raw.new_topic("mapped", "tuning", ontology_tag="Tuning")
    rows = [{"timestamp_ns": 1, "gains": [("p", 1.5), ("i", None)]}, {"timestamp_ns": 2, "gains": None}]
    raw.upload(topic, pa.RecordBatch.from_pylist(rows, schema=schema), schema=schema)
    assert found(sdk, QueryableNumeric("Tuning.gains.p").gt(1)) == ["/tuning"]
    assert found(sdk, QueryableNumeric("Tuning.gains.p").gt(2)) == []
    assert found(sdk, QueryableNumeric("Tuning.gains.i").gt(0)) == []


def test_the_builders_combine(everything: RawClient, sdk: MosaicoClient) -> None:
    catalog = QueryOntologyCatalog().with_expression(IMU.Q.acceleration.x.eq(FRACTION))
    catalog.with_expression(IMU.Q.timestamp_ns.eq(NUMBER))
    query = Query(QuerySequence().with_name(SEQUENCE))
    query.append(QueryTopic().with_ontology_tag("IMU").with_name_match("/I*"), catalog)
    response = sdk.query(query=query)
    assert response is not None
    assert len(response) == 1
    (item,) = response
    assert [topic.locator for topic in item.topics] == [f"{SEQUENCE}/IMU"]
    created = response.to_query_topic().with_created_timestamp(time_start=1)
    again = sdk.query(created, response.to_query_sequence().with_created_timestamp(time_start=1, time_end=2**62))
    assert again is not None
    assert [topic.name for topic in again[0].topics] == ["/IMU"]
    nothing = sdk.query(QuerySequence().with_name("no-such-sequence"))
    assert nothing is not None
    assert nothing.is_empty()
