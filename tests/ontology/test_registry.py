import json
from pathlib import Path

import pyarrow as pa
import pytest

import lakehouse.ontology
from lakehouse.ontology.arrow_iceberg import plan_storage, topic_table_schema
from lakehouse.ontology.registry import fingerprint, load_models, model_arrow_schema, shipped_model

sdk = pytest.importorskip("mosaicolabs.models.core.serializable")
pytest.importorskip("mosaicolabs")

MODELS_WITH_NUMBERS_OF_KNOWN_UNIT = ("IMU", "Velocity", "Pressure", "LaserScan", "Radar", "BatteryState", "GPS")


def test_59_models_are_shipped() -> None:
    assert len(load_models()) == 59
    files = Path(lakehouse.ontology.__file__).parent.joinpath("models").glob("*.json")
    assert {json.loads(file.read_text("utf-8"))["tag"] for file in files} == set(load_models())


@pytest.mark.parametrize("tag", load_models())
def test_a_model_has_exactly_the_schema_of_the_official_client(tag: str) -> None:
    client_class = sdk._SCHEMA_REGISTRY[tag]
    model = load_models()[tag]
    fields = pa.schema([field.arrow for field in model.fields])
    assert fields.equals(pa.schema(list(client_class.__msco_pyarrow_struct__)), check_metadata=True)
    assert nested_metadata(fields) == nested_metadata(pa.schema(list(client_class.__msco_pyarrow_struct__)))
    assert model.serialization_format == client_class.__serialization_format__.value
    assert model.fingerprint == client_class.__schema_fingerprint__ == fingerprint(model_arrow_schema(tag))
    assert model_arrow_schema(tag).field(0).equals(pa.field("timestamp_ns", pa.int64(), nullable=False))


def nested_metadata(schema: pa.Schema) -> list[object]:
    def walk(field: pa.Field) -> list[object]:
        return [field.metadata, *(walk(field.type.field(i)) for i in range(field.type.num_fields))]

    return [walk(field) for field in schema]


@pytest.mark.parametrize(
    "fields",
    [
        [pa.field("a", pa.large_string()), pa.field("b", pa.binary_view(), nullable=False)],
        [pa.field("a", pa.list_(pa.field("element", pa.large_string())))],
        [pa.field("a", pa.map_(pa.string(), pa.timestamp("ns", "UTC"))), pa.field("b", pa.list_(pa.int8(), 3))],
        [pa.field("a", pa.string_view(), metadata={"description": "x"})],
        [],
    ],
    ids=str,
)
def test_the_fingerprint_is_the_official_clients(fields: list[pa.Field]) -> None:
    expected = sdk._compute_schema_fingerprint(pa.struct(fields))
    assert fingerprint(pa.schema(fields)) == expected
    assert fingerprint(pa.schema([pa.field("timestamp_ns", pa.int64()), *fields])) == expected


def test_a_model_is_recognised_by_tag_and_schema_together() -> None:
    schema = model_arrow_schema("Temperature")
    assert fingerprint(schema) == fingerprint(model_arrow_schema("Pressure"))
    assert shipped_model("Temperature", schema) is load_models()["Temperature"]
    assert shipped_model("Unheard", schema) is None
    assert shipped_model("Temperature", schema.append(pa.field("extra", pa.int8()))) is None


def test_every_model_has_one_sentence_and_tables_show_units() -> None:
    for tag, model in load_models().items():
        assert model.description.endswith("."), tag
        assert all(len(comment) < 600 for comment in model.comments().values())
    for tag in MODELS_WITH_NUMBERS_OF_KNOWN_UNIT:
        assert any(field.unit for _, field in load_models()[tag].walk()), tag

    def comment(tag: str, column: str) -> str | None:
        return topic_table_schema(plan_storage(model_arrow_schema(tag)), tag).find_field(column).doc

    assert comment("IMU", "acceleration.x").endswith("[m/s²]")
    assert comment("IMU", "angular_velocity.z").endswith("[rad/s]")
    assert comment("Pressure", "value").endswith("[Pa]")
    assert comment("Temperature", "value").endswith("[K]")
    assert comment("FrameTransform", "transforms.element.translation.x").endswith("[m]")


def test_a_description_sent_with_an_upload_becomes_the_comment() -> None:
    described = pa.field("distance", pa.float32(), metadata={"description": "How far."})
    schema = pa.schema([pa.field("timestamp_ns", pa.int64()), described, ("stamp", pa.timestamp("ns"))])
    table = topic_table_schema(plan_storage(schema), "Custom")
    assert table.find_field("distance").doc == "How far."
    assert table.find_field("stamp").doc == "[nanoseconds since 1970-01-01T00:00 local time]"
