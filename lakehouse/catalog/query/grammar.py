"""From the JSON of a query request to checked conditions (protocol section 12)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.query.conditions import Condition, FieldCondition, Operator
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.query.metadata_paths import MetadataPath
from lakehouse.catalog.query.operands import kind_of, parse_operators

MAX_CONDITIONS = 256
# Each looks at every path that any metadata has.
MAX_WILDCARD_CONDITIONS = 32


class TextField(StrEnum):
    """What sequences and topics are named and typed by."""

    NAME = "name"
    # The name in clients up to 0.5, whose patterns are substrings.
    LOCATOR = "locator"
    ONTOLOGY_TAG = "ontology_tag"
    SERIALIZATION_FORMAT = "serialization_format"


CREATED_AT = "created_at_ns"
USER_METADATA = "user_metadata"
INCLUDE_TIMESTAMP_RANGE = "include_timestamp_range"

_SEQUENCE_TEXTS = (TextField.NAME, TextField.LOCATOR)
_TOPIC_TEXTS = tuple(TextField)
_TEXT_OPERATORS = {
    Operator.EQUAL,
    Operator.NOT_EQUAL,
    Operator.IN,
    Operator.MATCH,
    Operator.EXISTS,
    Operator.NOT_EXISTS,
}


@dataclass(frozen=True, slots=True)
class ObjectConditions:
    """What a query asks of sequences, or of topics; all of it has to hold.

    Attributes:
        texts: On names and other texts that every object has.
        created_at: On the creation time, Unix ns.
        user_metadata: On values or paths in the user metadata.
    """

    texts: tuple[tuple[TextField, Condition], ...] = ()
    created_at: tuple[Condition, ...] = ()
    user_metadata: tuple[tuple[MetadataPath, Condition], ...] = ()

    def __len__(self) -> int:
        return len(self.texts) + len(self.created_at) + len(self.user_metadata)


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query.

    Attributes:
        fields: On rows, in the order of the request.
        include_timestamp_range: Whether the answer tells for each topic when its rows matched.
    """

    sequence: ObjectConditions
    topic: ObjectConditions
    fields: tuple[FieldCondition, ...]
    include_timestamp_range: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it asks nothing, which finds nothing (protocol section 12.8)."""
        return not (self.sequence or self.topic or self.fields)


def parse_query(request: Mapping[str, Any]) -> Query:
    """Read a query request.

    Members and fields that the protocol does not know are ignored, as clients expect.

    Raises:
        BadRequestError: If anything in it is malformed, or it has more than `MAX_CONDITIONS` conditions, or more than
            `MAX_WILDCARD_CONDITIONS` on metadata behind wildcards for keys.
    """
    ontology = dict(_object("ontology", request.get("ontology")))
    include_timestamp_range = ontology.pop(INCLUDE_TIMESTAMP_RANGE, None)
    if include_timestamp_range is not None and not isinstance(include_timestamp_range, bool):
        raise BadRequestError(f"'{INCLUDE_TIMESTAMP_RANGE}' must be true, false or null")
    query = Query(
        _object_conditions("sequence", request.get("sequence"), _SEQUENCE_TEXTS),
        _object_conditions("topic", request.get("topic"), _TOPIC_TEXTS),
        parse_field_conditions(ontology),
        bool(include_timestamp_range),
    )
    _check_count(len(query.sequence) + len(query.topic) + len(query.fields))
    on_metadata = (*query.sequence.user_metadata, *query.topic.user_metadata)
    if sum(not path.names_every_key for path, _ in on_metadata) > MAX_WILDCARD_CONDITIONS:
        raise BadRequestError(f"a query may hold at most {MAX_WILDCARD_CONDITIONS} conditions with wildcards for keys")
    return query


def parse_field_conditions(ontology: Mapping[str, Any]) -> tuple[FieldCondition, ...]:
    """Read conditions on rows: from `Tag.field.path` to operators.

    Raises:
        BadRequestError: If a path or an operator is malformed, or there are more than `MAX_CONDITIONS` conditions.
    """
    _check_count(len(ontology))
    found: list[FieldCondition] = []
    for text, operators in ontology.items():
        path = parse_field_path(text)
        for condition in parse_operators(text, operators, on_rows=True):
            if isinstance(condition.operand, tuple) and condition.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
                _check_takes_list(text, path.specifier is not None)
            found.append(FieldCondition(path, condition))
    _check_count(len(found))
    return tuple(found)


def _check_takes_list(text: str, has_specifier: bool) -> None:
    if has_specifier:
        raise BadRequestError(f"{quoted(text)} addresses elements of a list; they cannot be compared with a list")


def _object(name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequestError(f"{quoted(name)} is not an object")
    return value


def _object_conditions(section: str, value: object, text_fields: Iterable[TextField]) -> ObjectConditions:
    fields = _object(section, value)
    texts: list[tuple[TextField, Condition]] = []
    for field in text_fields:
        if field in fields:
            texts += ((field, condition) for condition in _text_conditions(f"{section}.{field}", fields[field]))
    created_at: list[Condition] = []
    if CREATED_AT in fields:
        created_at = _time_conditions(f"{section}.{CREATED_AT}", fields[CREATED_AT])
    metadata = _object(f"{section}.{USER_METADATA}", fields.get(USER_METADATA))
    _check_count(len(metadata))
    on_metadata = [
        (path, condition)
        for path, operators in ((MetadataPath.parse(text), operators) for text, operators in metadata.items())
        for condition in parse_operators(f"{section}.{USER_METADATA}.{path.text}", operators)
    ]
    return ObjectConditions(tuple(texts), tuple(created_at), tuple(on_metadata))


def _text_conditions(field: str, operators: object) -> list[Condition]:
    conditions = parse_operators(field, operators)
    for condition in conditions:
        if condition.operator not in _TEXT_OPERATORS:
            raise BadRequestError(f"'{condition.operator}' is not supported on {quoted(field)}")
        _check_kind(field, condition, "text")
    return conditions


def _time_conditions(field: str, operators: object) -> list[Condition]:
    conditions = parse_operators(field, operators)
    for condition in conditions:
        if condition.operator is not Operator.MATCH:
            _check_kind(field, condition, "number")
    return conditions


def _check_kind(field: str, condition: Condition, kind: str) -> None:
    operand = condition.operand
    values = operand if isinstance(operand, tuple) else () if operand is None else (operand,)
    if any(kind_of(value) != kind for value in values):
        raise BadRequestError(f"the operand of '{condition.operator}' on {quoted(field)} must be a {kind}")


def _check_count(count: int) -> None:
    if count > MAX_CONDITIONS:
        raise BadRequestError(f"a query may hold at most {MAX_CONDITIONS} conditions")
