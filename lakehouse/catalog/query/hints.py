"""Why a query may find nothing: names it uses that nothing in the lake has, and those that may be meant."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.types as pat
from sqlalchemy import Connection, select

from lakehouse.catalog.control_plane.metadata_index import NOT_INDEXED
from lakehouse.catalog.control_plane.schema import metadata_paths, topics
from lakehouse.catalog.errors import BadRequestError, quoted, shorten
from lakehouse.catalog.proposals import MOST_NAMES, MOST_PROPOSED, did_you_mean, proposal
from lakehouse.catalog.query.column_filters import is_storable
from lakehouse.catalog.query.conditions import FieldCondition, Operator
from lakehouse.catalog.query.explain import condition_text
from lakehouse.catalog.query.field_columns import find_column
from lakehouse.catalog.query.field_paths import parse_field_path
from lakehouse.catalog.query.grammar import Query, TextField
from lakehouse.catalog.query.metadata_paths import MetadataPath
from lakehouse.catalog.query.predicates import RowPredicate
from lakehouse.ontology.arrow_iceberg import storage_plan
from lakehouse.ontology.storage_names import TIMESTAMP_COLUMN
from lakehouse.ontology.storage_types import is_any_list

MOST_TAGS = 200


def find_hints(connection: Connection, query: Query, schemas_of: Callable[[str], Iterable[bytes]]) -> list[str]:
    """What the query asks for that nothing in the lake has, a sentence for each.

    Args:
        schemas_of: Arrow schemas (IPC bytes) of the uploaded topics of a tag.
    """
    # What is deliberately absent is no mistake.
    fields = [each for each in query.fields if each.condition.operator is not Operator.NOT_EXISTS]
    tags = dict.fromkeys(each.path.tag for each in query.fields)
    tags |= dict.fromkeys(
        condition.operand
        for field, condition in query.topic.texts
        if field is TextField.ONTOLOGY_TAG and condition.operator is Operator.EQUAL
    )
    paths = [
        path
        for path, condition in (*query.sequence.user_metadata, *query.topic.user_metadata)
        if condition.operator is not Operator.NOT_EXISTS
    ]
    hints = {tag: _on_tag(connection, tag) for tag in tags}
    for each in fields:
        if hints[each.path.tag] is not None and (types := _types_with(connection, each, schemas_of)):
            hints[each.path.tag] = f"{_no_tag(each.path.tag)}{did_you_mean([f'{tag}.{each.path}' for tag in types])}"
    found = [*hints.values()]
    schemas = {each.path.tag: tuple(schemas_of(each.path.tag)) for each in fields if hints[each.path.tag] is None}
    found += [_on_field(each, schemas[each.path.tag]) for each in fields if each.path.tag in schemas]
    found += [_on_metadata(connection, path) for path in paths]
    return [shorten(each) for each in found if each is not None]


def _on_tag(connection: Connection, tag: str) -> str | None:
    present = select(topics.c.id).where(topics.c.ontology_tag == tag).limit(1)
    if is_storable(tag) and connection.scalar(present) is not None:
        return None
    known = connection.scalars(select(topics.c.ontology_tag).distinct().limit(MOST_NAMES)).all()
    return f"{_no_tag(tag)}{proposal(tag, known)}"


def _no_tag(tag: str) -> str:
    return f"no topic has the tag {quoted(tag)}"


def _types_with(
    connection: Connection, condition: FieldCondition, schemas_of: Callable[[str], Iterable[bytes]]
) -> list[str]:
    """Tags whose topics have the whole path as a field: whoever typed it left the tag out."""
    known = connection.scalars(select(topics.c.ontology_tag).distinct().limit(MOST_TAGS)).all()
    return sorted(tag for tag in known if _has_field(tag, condition, schemas_of(tag)))


def _has_field(tag: str, condition: FieldCondition, schemas: Iterable[bytes]) -> bool:
    try:
        path = parse_field_path(f"{tag}.{condition.path}")
    except BadRequestError:
        return False
    if path.tag != tag:  # it has a dot in it: no condition can name it
        return False
    for schema in schemas:
        try:
            if find_column(path, condition.condition.operator, storage_plan(schema)) is not None:
                return True
        except BadRequestError:  # it is there, and asked in a way that the search itself explains
            return True
    return False


def _on_field(condition: FieldCondition, schemas: Iterable[bytes]) -> str | None:
    path, operator = condition.path, condition.condition.operator
    known: dict[str, None] = {}
    kinds: dict[str, None] = {}
    for schema in schemas:
        plan = storage_plan(schema)
        try:
            column = find_column(path, operator, plan)
            if column is not None and not RowPredicate.compile([condition], plan).is_never:
                return None
        except BadRequestError:  # it is there, and asked in a way that the search itself explains
            return None
        if column is not None:
            kinds[str(column.kind)] = None
        known |= dict.fromkeys(_leaves(schema))
    if not known:
        return None  # of this tag nothing was uploaded yet
    if not kinds:
        proposed = proposal(str(path).removeprefix(f"{path.tag}."), known, f"{path.tag}.")
        return f"no topic has a field {quoted(path)}{proposed}"
    name = str(path).removeprefix(f"{path.tag}.")
    below = [each for each in known if each.startswith((f"{name}.", f"{name}["))]
    if below:
        shown = ", ".join(quoted(f"{path.tag}.{each}") for each in below[:MOST_PROPOSED])
        return f"{quoted(path)} has no values of its own, but fields such as {shown}"
    return f"no value of {quoted(path)} ({', '.join(kinds)}) can satisfy {quoted(condition_text(condition))}"


def _on_metadata(connection: Connection, path: MetadataPath) -> str | None:
    asked = ".".join(path.leading_keys)
    present = select(metadata_paths.c.id).where(metadata_paths.c.key_path.in_((asked, NOT_INDEXED))).limit(1)
    if not asked or not is_storable(asked) or connection.scalar(present) is not None:
        return None
    known = connection.scalars(select(metadata_paths.c.key_path).distinct().limit(MOST_NAMES)).all()
    return f"no metadata has {quoted(asked)}{proposal(asked, known)}"


def _leaves(schema: bytes) -> Iterator[str]:
    """Every field that conditions can be about, as they name it."""
    yield TIMESTAMP_COLUMN
    for field in pa.ipc.read_schema(pa.BufferReader(schema)):
        if field.name != TIMESTAMP_COLUMN:
            yield from _below(field.name, field.type)


def _below(name: str, kind: pa.DataType) -> Iterator[str]:
    if is_any_list(kind):
        if "[" not in name:  # conditions reach into one list, not into lists of lists
            yield from _below(f"{name}[?]", kind.value_type)
    elif pat.is_struct(kind):
        for field in kind:
            yield from _below(f"{name}.{field.name}", field.type)
    else:
        yield name
