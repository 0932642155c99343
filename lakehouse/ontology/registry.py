"""The shipped ontology: the models that the official client knows, as data.

Each `models/<tag>.json` describes one model: its fields with exact Arrow types, nullability, list child names and the
`description` the client puts into the field metadata, and beside these what the client does not say: SI units and
notes from the ROS message definitions.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN

FINGERPRINT_DIGITS = 10

FieldPath = tuple[str, ...]

_FIXED_SIZE_LIST = re.compile(r"fixed_size_list\[(\d+)\]")
_LEAF_TYPES: dict[str, pa.DataType] = {
    str(leaf): leaf
    for leaf in (
        *(pa.bool_(), pa.string(), pa.binary(), pa.float16(), pa.float32(), pa.float64()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    )
}
_FINGERPRINT_ALIASES = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


@dataclass(frozen=True, slots=True)
class OntologyField:
    """One field of a model, at any depth.

    Attributes:
        arrow: Exact Arrow field, with the client's `description` as metadata.
        description: What the client says about the field; empty if nothing.
        unit: Unit of the numbers, in SI symbols (`m/s²`, `rad`, `px`); None if they have none or several.
        note: What the ROS message definition adds; None if nothing.
        children: Struct fields, or the one list element.
    """

    arrow: pa.Field
    description: str
    unit: str | None
    note: str | None
    children: tuple["OntologyField", ...]

    @property
    def comment(self) -> str:
        """Description, note and unit in one text, as table comments show it."""
        parts = [self.description, self.note or "", f"[{self.unit}]" if self.unit else ""]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class OntologyModel:
    """One shipped model.

    Attributes:
        tag: The ontology tag.
        description: One sentence on what a row is.
        serialization_format: `default`, `ragged` or `image` (protocol section 11.5).
        fingerprint: The client's fingerprint of the schema (protocol section 11.1).
        fields: The top-level fields.
    """

    tag: str
    description: str
    serialization_format: str
    fingerprint: str
    fields: tuple[OntologyField, ...]

    @property
    def arrow_schema(self) -> pa.Schema:
        """The schema of an upload: `timestamp_ns` in front, then the fields."""
        timestamp = pa.field(TIMESTAMP_COLUMN, pa.int64(), nullable=False)
        return pa.schema([timestamp, *(field.arrow for field in self.fields)])

    def walk(self) -> Iterator[tuple[FieldPath, OntologyField]]:
        """Every field at every depth with its path; the path of a list element ends in `element`."""
        for field in self.fields:
            yield from _walk((field.arrow.name,), field)

    def comments(self) -> dict[FieldPath, str]:
        """The comment of every field that has one, by path."""
        return {path: field.comment for path, field in self.walk() if field.comment}


def _walk(path: FieldPath, field: OntologyField) -> Iterator[tuple[FieldPath, OntologyField]]:
    yield path, field
    for child in field.children:
        name = child.arrow.name if pa.types.is_struct(field.arrow.type) else "element"
        yield from _walk((*path, name), child)


@cache
def load_models() -> Mapping[str, OntologyModel]:
    """All shipped models by tag."""
    texts = (entry.read_text("utf-8") for entry in (files(__package__) / "models").iterdir() if _is_model(entry.name))
    models = sorted((_parse_model(json.loads(text)) for text in texts), key=lambda model: model.tag)
    return MappingProxyType({model.tag: model for model in models})


def _is_model(file_name: str) -> bool:
    return file_name.endswith(".json")


def _parse_model(data: dict[str, Any]) -> OntologyModel:
    fields = tuple(_parse_field(field) for field in data["fields"])
    return OntologyModel(data["tag"], data["description"], data["serialization_format"], data["fingerprint"], fields)


def _parse_field(data: dict[str, Any]) -> OntologyField:
    children = tuple(_parse_field(child) for child in data.get("children", ()))
    description = data.get("description", "")
    metadata = {"description": description} if "description" in data else None
    arrow = pa.field(data["name"], _arrow_type(data["type"], children), data["nullable"], metadata)
    return OntologyField(arrow, description, data.get("unit"), data.get("note"), children)


def _arrow_type(name: str, children: tuple[OntologyField, ...]) -> pa.DataType:
    if name == "struct":
        return pa.struct([child.arrow for child in children])
    if name == "list":
        return pa.list_(children[0].arrow)
    if match := _FIXED_SIZE_LIST.fullmatch(name):
        return pa.list_(children[0].arrow, int(match[1]))
    return _LEAF_TYPES[name]


def model_arrow_schema(tag: str) -> pa.Schema:
    """The upload schema of a shipped model, `timestamp_ns` included.

    Raises:
        KeyError: If no model of that tag is shipped.
    """
    return load_models()[tag].arrow_schema


def fingerprint(schema: pa.Schema) -> str:
    """The fingerprint by which the official client recognises a schema (protocol section 11.1).

    `timestamp_ns` is left out, so the schema of an upload and that of its model agree. Field metadata does not count;
    names, types, nullability and list child names do.
    """
    fields = [
        field.with_type(_FINGERPRINT_ALIASES.get(field.type, field.type))
        for field in schema
        if field.name != TIMESTAMP_COLUMN
    ]
    printed = str(pa.struct([field.remove_metadata() for field in fields]))
    return hashlib.sha1(printed.encode("utf-8")).hexdigest()[:FINGERPRINT_DIGITS]


def shipped_model(tag: str, schema: pa.Schema) -> OntologyModel | None:
    """The shipped model of `tag` if `schema` is its schema; None otherwise."""
    model = load_models().get(tag)
    return model if model is not None and model.fingerprint == fingerprint(schema) else None
