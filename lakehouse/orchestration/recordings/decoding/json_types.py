"""The Arrow type of JSON values, from a JSON Schema and from the values seen.

The schema decides where it says something that is true of the values; the values decide the rest, so that a property
the schema forgot, or has with another type, keeps its values. Values that have no common type are kept as JSON text
(`string`, marked in the field's metadata).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from lakehouse.orchestration.recordings.decoding.json_shape import JsonShape

JSON_TEXT = {"content_type": "application/json"}
"""Metadata of a field whose strings are JSON texts."""

_LARGEST_INT64 = 2**63 - 1
_LARGEST_UINT64 = 2**64 - 1
_EXACT_IN_DOUBLE = 2**53
_DEEPEST_NESTING = 32

Schema = dict[str, Any]


class JsonTypes:
    """Chooses types below one JSON Schema document."""

    def __init__(self, document: Any) -> None:
        self._document = document if isinstance(document, dict) else {}

    def message_fields(self, shape: JsonShape) -> list[pa.Field]:
        """The columns of a message that is an object; empty if it has no property."""
        return self._struct_fields(self._resolve(self._document, 0), shape, 0)

    def value_field(self, name: str, shape: JsonShape) -> pa.Field:
        """The one column of messages that are not objects."""
        return self._field(name, None if "object" in shape.kinds else self._document, shape, 0)

    def _struct_fields(self, schema: Schema, shape: JsonShape | None, depth: int) -> list[pa.Field]:
        declared = schema.get("properties")
        properties: dict[str, Any] = dict(declared) if isinstance(declared, dict) else {}
        seen = shape.properties if shape is not None else {}
        names = list(dict.fromkeys([*properties, *seen]))
        return [self._field(name, properties.get(name), seen.get(name), depth + 1) for name in names]

    def _field(self, name: str, schema: Any, shape: JsonShape | None, depth: int) -> pa.Field:
        arrow_type = self._type(schema, shape, depth)
        return pa.field(name, pa.string(), metadata=JSON_TEXT) if arrow_type is None else pa.field(name, arrow_type)

    def _type(self, schema: Any, shape: JsonShape | None, depth: int) -> pa.DataType | None:
        """A type, or None for JSON text."""
        if depth > _DEEPEST_NESTING or (shape is not None and shape.is_unbounded):
            return None
        resolved = self._resolve(schema, depth)
        kinds = set(_declared_kinds(resolved)) - {"null"}
        seen = (shape.kinds if shape is not None else set()) - {"null"}
        if not kinds or not seen <= (kinds | {"integer"} if "number" in kinds else kinds):
            # Writers do contradict their own schemas; then what they wrote counts.
            kinds = seen
            if not kinds:
                return None if resolved.keys() & {"oneOf", "anyOf", "not"} else pa.string()
        if kinds <= {"integer", "number"}:
            return _number_type(kinds, shape)
        if len(kinds) > 1:
            return None
        (kind,) = kinds
        if kind == "boolean":
            return pa.bool_()
        if kind == "string":
            return pa.string()
        if kind == "array":
            return self._array_type(resolved, shape, depth)
        return self._object_type(resolved, shape, depth)

    def _array_type(self, schema: Schema, shape: JsonShape | None, depth: int) -> pa.DataType:
        item = self._field("item", schema.get("items"), shape.items if shape is not None else None, depth + 1)
        return pa.list_(item)

    def _object_type(self, schema: Schema, shape: JsonShape | None, depth: int) -> pa.DataType | None:
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and not schema.get("properties"):
            merged = _merged(shape.properties.values()) if shape is not None else None
            return pa.map_(pa.string(), self._field("value", values, merged, depth + 1))
        fields = self._struct_fields(schema, shape, depth)
        return pa.struct(fields) if fields else None

    def _resolve(self, schema: Any, depth: int) -> Schema:
        """A schema without references, and without alternatives of which only one is not null."""
        if not isinstance(schema, dict):
            return {}
        for _ in range(_DEEPEST_NESTING):
            if isinstance(reference := schema.get("$ref"), str):
                target: Any = self._document
                for part in reference.removeprefix("#").strip("/").split("/") if reference.strip("#/") else []:
                    target = target.get(part) if isinstance(target, dict) else None
                schema = target if isinstance(target, dict) and reference.startswith("#") else {}
                continue
            alternatives = next((schema[key] for key in ("oneOf", "anyOf") if isinstance(schema.get(key), list)), None)
            if alternatives is None:
                break
            real = [item for item in alternatives if not (isinstance(item, dict) and item.get("type") == "null")]
            if len(real) != 1 or not isinstance(real[0], dict):
                break
            schema = real[0]
        parts = schema.get("allOf")
        if isinstance(parts, list) and depth <= _DEEPEST_NESTING:
            resolved = [self._resolve(part, depth + 1) for part in parts]
            properties: dict[str, Any] = {}
            base: Schema = {}
            for member in resolved:
                base |= member
            for member in [*resolved, schema]:
                if isinstance(own := member.get("properties"), dict):
                    properties |= own
            schema = base | {key: value for key, value in schema.items() if key != "allOf"}
            if properties:
                schema["properties"] = properties
        return schema


def _declared_kinds(schema: Schema) -> Iterator[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        yield declared
    elif isinstance(declared, list):
        yield from (kind for kind in declared if isinstance(kind, str))
    elif isinstance(schema.get("properties"), dict):
        yield "object"
    elif isinstance(values := schema.get("enum"), list) or "const" in schema:
        shape = JsonShape()
        for value in values if isinstance(values, list) else [schema["const"]]:
            shape.add(value, [1000])
        yield from shape.kinds


def _number_type(kinds: set[str], shape: JsonShape | None) -> pa.DataType | None:
    least, most = (shape.least, shape.most) if shape is not None else (0, 0)
    seen = shape.kinds if shape is not None else set()
    if kinds == {"integer"} and not ("number" in seen and max(most, -least) > _EXACT_IN_DOUBLE):
        return _integer_type(least, most)
    if max(most, -least) <= _EXACT_IN_DOUBLE:
        return pa.float64()
    # Whole numbers that a double cannot hold exactly.
    return None if "number" in seen else _integer_type(least, most)


def _integer_type(least: int, most: int) -> pa.DataType | None:
    if least >= -_LARGEST_INT64 - 1 and most <= _LARGEST_INT64:
        return pa.int64()
    return pa.uint64() if least >= 0 and most <= _LARGEST_UINT64 else None


def _merged(shapes: Any) -> JsonShape:
    result = JsonShape()
    for shape in shapes:
        result.kinds |= shape.kinds
        result.least = min(result.least, shape.least)
        result.most = max(result.most, shape.most)
        result.is_unbounded |= shape.is_unbounded
        for name, child in shape.properties.items():
            present = result.properties.get(name)
            result.properties[name] = child if present is None else _merged([present, child])
        if shape.items is not None:
            result.items = shape.items if result.items is None else _merged([result.items, shape.items])
    return result
