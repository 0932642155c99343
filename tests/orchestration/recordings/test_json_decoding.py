"""JSON messages become columns of the schema's types as far as the values agree with it, and lose nothing."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.orchestration.recordings.decoding.json_messages import JsonDecoder
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.decoding.json_types import JSON_TEXT


def decode(messages: list[Any], schema: Any = None) -> tuple[JsonDecoder, list[dict[str, Any]]]:
    payloads = [json.dumps(message).encode() for message in messages]
    survey = JsonSurvey()
    survey.observe(payloads)
    decoder = JsonDecoder(b"" if schema is None else json.dumps(schema).encode(), survey)
    block = decoder.decode(payloads)
    block.batch.validate(full=True)
    assert not block.failures
    assert block.rows.tolist() == list(range(len(messages)))
    return decoder, block.batch.to_pylist()


def test_the_schema_gives_the_types_and_their_order() -> None:
    schema = {
        "type": "object",
        "properties": {
            "stamp": {"$ref": "#/definitions/time"},
            "speed": {"type": "number"},
            "gear": {"type": ["integer", "null"]},
            "name": {"oneOf": [{"type": "null"}, {"type": "string"}]},
            "points": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}},
            "flags": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "never": {"type": "array", "items": {"type": "integer"}},
        },
        "definitions": {"time": {"allOf": [{"properties": {"sec": {"type": "integer"}}}, {"type": "object"}]}},
    }
    messages = [
        {"speed": 3, "gear": None, "name": None, "points": [{"x": 1}, {"x": 2.5}], "flags": {"a": True}},
        {"stamp": {"sec": 4}, "speed": 0.5, "gear": 2, "name": "n", "points": [], "flags": {}},
    ]
    decoder, rows = decode(messages, schema)
    assert decoder.schema == pa.schema(
        [
            ("stamp", pa.struct([("sec", pa.int64())])),
            ("speed", pa.float64()),
            ("gear", pa.int64()),
            ("name", pa.string()),
            ("points", pa.list_(pa.struct([("x", pa.float64())]))),
            ("flags", pa.map_(pa.string(), pa.bool_())),
            ("never", pa.list_(pa.int64())),
        ]
    )
    assert rows[0] == messages[0] | {"stamp": None, "flags": [("a", True)], "never": None}
    assert rows[1] == messages[1] | {"flags": [], "never": None}


def test_without_schema_the_values_give_the_types() -> None:
    messages = [
        {"a": 1, "b": [1, 2.5], "c": {"d": True}},
        {"a": 2**63, "b": None, "e": "text", "c": {"d": False, "f": []}},
    ]
    decoder, rows = decode(messages)
    assert decoder.schema.field("a").type == pa.uint64()
    assert decoder.schema.field("b").type == pa.list_(pa.float64())
    assert [row["a"] for row in rows] == [1, 2**63]
    assert rows[1]["c"] == {"d": False, "f": []}


def test_properties_the_schema_does_not_mention_have_columns_too() -> None:
    decoder, rows = decode([{"a": 1.5, "extra": {"b": [True]}}], {"properties": {"a": {"type": "number"}}})
    assert decoder.schema.names == ["a", "extra"]
    assert rows == [{"a": 1.5, "extra": {"b": [True]}}]


def test_values_that_contradict_the_schema_decide_the_type() -> None:
    schema = {"type": "object", "properties": {"value": {"type": "number"}, "list": {"type": "string"}}}
    decoder, rows = decode([{"value": True, "list": [1]}, {"value": False, "list": [2, 3]}], schema)
    assert decoder.schema.field("value").type == pa.bool_()
    assert rows == [{"value": True, "list": [1]}, {"value": False, "list": [2, 3]}]


def test_values_without_a_common_type_are_kept_as_json_text() -> None:
    messages = [{"a": 1, "big": 10**30}, {"a": "x", "big": -1}, {"a": {"b": [None]}, "big": 0.5}, {"a": None}]
    decoder, rows = decode(messages)
    for name in ("a", "big"):
        assert decoder.schema.field(name).metadata == {key.encode(): text.encode() for key, text in JSON_TEXT.items()}
        expected = [message.get(name) for message in messages]
        assert [None if row[name] is None else json.loads(row[name]) for row in rows] == expected


def test_whole_numbers_a_double_cannot_hold_stay_exact() -> None:
    decoder, rows = decode([{"n": 2**53 + 1}, {"n": 1}], {"properties": {"n": {"type": "number"}}})
    assert decoder.schema.field("n").type == pa.int64()
    assert rows == [{"n": 2**53 + 1}, {"n": 1}]


@pytest.mark.parametrize("messages", [[1, 2.5], ["a", "b"], [[1], [2, 3]]])
def test_messages_that_are_no_objects_have_one_column(messages: list[Any]) -> None:
    _, rows = decode(messages)
    assert [row["value"] for row in rows] == messages


def test_what_is_no_json_has_no_row() -> None:
    payloads = [b'{"a": 1}', b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"3", b'{"a": 2}']
    survey = JsonSurvey()
    survey.observe(payloads)
    block = JsonDecoder(b"", survey).decode(payloads)
    assert block.batch.to_pylist() == [{"a": 1}, {"a": 2}]
    assert block.rows.tolist() == [0, 6]
    assert sum(block.failures.values()) == 5


def test_messages_with_ever_new_properties_do_not_make_ever_more_columns() -> None:
    payloads = [json.dumps({f"key{index}_{n}": n for n in range(100)}).encode() for index in range(300)]
    survey = JsonSurvey()
    survey.observe(payloads)
    decoder = JsonDecoder(b"", survey)
    assert len(decoder.schema) == 1
    rows = decoder.decode(payloads).batch.to_pylist()
    assert [json.loads(row["value"]) for row in rows] == [json.loads(payload) for payload in payloads]


@pytest.mark.parametrize("schema", [b"not json", b"[]", b'{"$ref": "#"}', b'{"properties": 3}', b'{"type": 7}'])
def test_odd_schemas_do_no_harm(schema: bytes) -> None:
    survey = JsonSurvey()
    survey.observe([b'{"a": 1}'])
    assert JsonDecoder(schema, survey).decode([b'{"a": 1}']).batch.to_pylist() == [{"a": 1}]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


def restored(value: Any, field: pa.Field) -> Any:
    """A value as it was before it became a column."""
    if value is None:
        return None
    if field.metadata and b"content_type" in field.metadata:
        return json.loads(value)
    if pa.types.is_struct(field.type):
        found = {child.name: restored(value[child.name], child) for child in field.type}
        return {name: child for name, child in found.items() if child is not None}
    if pa.types.is_list(field.type):
        return [restored(item, field.type.value_field) for item in value]
    return value


def without_nulls(value: Any) -> Any:
    """Nulls in objects and missing properties are the same to columns."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [without_nulls(child) for child in value]
    return value


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, min_size=1, max_size=3), min_size=1, max_size=5))
def test_no_value_is_lost_whatever_the_messages_are(messages: list[dict[str, Any]]) -> None:
    decoder, rows = decode(messages)
    struct = pa.field("message", pa.struct(list(decoder.schema)))
    got = [without_nulls(restored(row, struct)) for row in rows]
    expected = [without_nulls(message) for message in messages]
    for one, other in zip(got, expected, strict=True):
        assert {key: value for key, value in one.items() if value != {}} == {
            key: value for key, value in other.items() if value != {}
        }
