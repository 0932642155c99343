"""ROS message definitions, and the Arrow schema a message type decodes to (the table in the package's docstring)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.base import TypesysError
from rosbags.typesys.msg import normalize_msgtype

from lakehouse.orchestration.recordings.errors import MessageDefinitionError

FieldDescription = Any
"""What rosbags says about the type of a field: `(Nodetype, details)`."""

Definitions = Mapping[str, tuple[list[tuple[str, str, Any]], list[tuple[str, FieldDescription]]]]
"""Type name -> (constants, fields), the shape of `rosbags.interfaces.typing.Typesdict`."""

PLACEHOLDER_FIELD = "structure_needs_at_least_one_member"
"""The field ROS 2 gives to messages without fields (rosidl_generator_c): on the CDR wire, not on the ROS 1 one."""

SCALAR_TYPES: Mapping[str, pa.DataType] = {
    "bool": pa.bool_(),
    "byte": pa.uint8(),
    "char": pa.uint8(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "wstring": pa.string(),
}

OCTETS = frozenset({"uint8", "byte", "char"})
"""Element types whose sequences are `binary`."""

_SEPARATOR = "=" * 80 + "\n"
_EVENT_INFO: tuple[str, list[tuple[str, FieldDescription]]] = (
    "service_msgs/msg/ServiceEventInfo",
    [
        ("event_type", (Nodetype.BASE, ("uint8", 0))),
        ("stamp", (Nodetype.NAME, "builtin_interfaces/msg/Time")),
        ("client_gid", (Nodetype.ARRAY, ((Nodetype.BASE, ("char", 0)), 16))),
        ("sequence_number", (Nodetype.BASE, ("int64", 0))),
    ],
)
_DEEPEST_NESTING = 32
_MOST_FIELDS = 20_000
_LONGEST_REMEMBERED = 64 << 10


class HasDefinitions(Protocol):
    """A rosbags `Typestore`, or anything with its definitions."""

    @property
    def fielddefs(self) -> Any: ...


def normalized_type(message_type: str) -> str:
    """`package/msg/Type`; names of services and actions keep their own middle component."""
    parts = message_type.split("/")
    return message_type if len(parts) > 1 and parts[-2] in ("msg", "srv", "action") else normalize_msgtype(message_type)


def parse_definitions(message_type: str, text: str, encoding: str = "ros2msg") -> dict[str, Any]:
    """Read the definition of a message type together with those of the types it uses.

    Args:
        message_type: The type the text defines, with or without the `msg` component; for a service event
            (`package/srv/Name_Event`) the text is the definition of the service.
        text: `.msg` text with its dependencies after `MSG:` separators, or concatenated IDL.
        encoding: `ros1msg`, `ros2msg` or `ros2idl` (also `omgidl`).

    Raises:
        MessageDefinitionError: If the text cannot be parsed.
    """
    parse = _parse_once if len(text) <= _LONGEST_REMEMBERED else _parse
    # ROS 1 has time and duration built in, so its definitions do not spell them out.
    return dict(get_typestore(Stores.EMPTY).fielddefs) | parse(message_type, text, encoding)


def _parse(message_type: str, text: str, encoding: str) -> dict[str, Any]:
    own: dict[str, Any]
    name = normalized_type(message_type)
    try:
        if encoding in ("ros2idl", "omgidl"):
            own = dict(get_types_from_idl(text))
        elif "/srv/" in name and name.endswith("_Event"):
            own = _service_event(name, text)
        else:
            own = dict(get_types_from_msg(text, name))
    except (TypesysError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise MessageDefinitionError(message_type, "it cannot be parsed") from error
    return own


# A fifth of the ingestion of a short recording went into parsing: the same few types in every recording of a fleet, and
# several times in each.
_parse_once = lru_cache(maxsize=256)(_parse)


def _service_event(name: str, text: str) -> dict[str, Any]:
    """The event type that ROS 2 derives from a service (REP 2012): who called, then the request or the response."""
    own, separator, dependencies = text.partition(_SEPARATOR)
    request, _, response = re.sub(r"(?m)^---\s*$", "---", own).partition("---\n")
    package, _, event = name.partition("/srv/")
    definitions: dict[str, Any] = {_EVENT_INFO[0]: ([], _EVENT_INFO[1])}
    fields: list[tuple[str, FieldDescription]] = [("info", (Nodetype.NAME, _EVENT_INFO[0]))]
    for part, part_text in (("Request", request), ("Response", response)):
        part_name = f"{package}/msg/{event.removesuffix('Event')}{part}"
        definitions |= get_types_from_msg(part_text + separator + dependencies, part_name)
        fields.append((part.lower(), (Nodetype.SEQUENCE, ((Nodetype.NAME, part_name), 1))))
    return definitions | {name: ([], fields)}


def fields_of(message_type: str, definitions: Definitions) -> list[tuple[str, FieldDescription]]:
    """The fields of a message type; a message without fields has the placeholder of ROS 2.

    Raises:
        MessageDefinitionError: If the type is not defined.
    """
    try:
        fields = list(definitions[message_type][1])
    except KeyError:
        raise MessageDefinitionError(message_type, "it is not part of the recording") from None
    return fields or [(PLACEHOLDER_FIELD, (Nodetype.BASE, ("uint8", 0)))]


def scalar_name(description: FieldDescription, definitions: Definitions) -> str | None:
    """The name of a scalar type, or None for a message.

    The `.msg` grammar of rosbags does not know `wstring` and takes it for a message of the same package.
    """
    node, details = description
    if node == Nodetype.BASE:
        return str(details[0])
    if node == Nodetype.NAME and details not in definitions and details.rpartition("/")[2] == "wstring":
        return "wstring"
    return None


def decoded_schema(message_type: str, typestore: HasDefinitions | Definitions) -> pa.Schema:
    """The Arrow schema that messages of a type decode to, without time columns.

    Args:
        message_type: `package/msg/Type` (ROS 1 names without `msg` are normalised).
        typestore: A rosbags typestore or its definitions.

    Raises:
        MessageDefinitionError: If a type is missing, contains itself, or has a field that no column can hold.
    """
    definitions: Definitions = typestore if isinstance(typestore, Mapping) else typestore.fielddefs
    budget = [_MOST_FIELDS]
    struct = _message_type(normalized_type(message_type), definitions, 0, budget)
    return pa.schema(list(struct))


def _message_type(message_type: str, definitions: Definitions, depth: int, budget: list[int]) -> pa.StructType:
    if depth > _DEEPEST_NESTING:
        raise MessageDefinitionError(message_type, "it contains itself or is nested too deeply")
    fields = fields_of(message_type, definitions)
    budget[0] -= len(fields)
    if budget[0] < 0:
        raise MessageDefinitionError(message_type, f"it has more than {_MOST_FIELDS:,} fields")
    names = [name for name, _ in fields]
    if len(set(names)) != len(names):
        raise MessageDefinitionError(message_type, "it has two fields of the same name")
    return pa.struct(
        [pa.field(name, _field_type(message_type, field, definitions, depth, budget)) for name, field in fields]
    )


def _field_type(
    owner: str, description: FieldDescription, definitions: Definitions, depth: int, budget: list[int]
) -> pa.DataType:
    node, details = description
    if (scalar := scalar_name(description, definitions)) is not None:
        if scalar not in SCALAR_TYPES:
            raise MessageDefinitionError(owner, f"the type '{scalar}' is not supported")
        return SCALAR_TYPES[scalar]
    if node == Nodetype.NAME:
        return _message_type(details, definitions, depth + 1, budget)
    element, size = details
    if node == Nodetype.SEQUENCE and scalar_name(element, definitions) in OCTETS:
        return pa.binary()
    item = _field_type(owner, element, definitions, depth, budget)
    return pa.list_(item, size) if node == Nodetype.ARRAY else pa.list_(item)
