"""Which topics a query has to consider: its conditions on sequences and topics, answered by the control plane."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, literal, or_, select

from lakehouse.catalog.control_plane.schema import sequences, topics
from lakehouse.catalog.control_plane.value_keys import value_key
from lakehouse.catalog.query.column_filters import (
    TextFilter,
    contains_literals,
    integer_clause,
    is_storable,
    starts_with,
    text_filter,
)
from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.globs import Glob
from lakehouse.catalog.query.grammar import ObjectConditions, Query, TextField
from lakehouse.catalog.query.metadata_filters import SEQUENCES, TOPICS, MetadataFilter
from lakehouse.catalog.query.sql_dialect import SqlDialect, dialect_of
from lakehouse.catalog.query.value_tests import ValueTest
from lakehouse.catalog.records import SerializationFormat, TopicState


class Candidate(NamedTuple):
    """A topic that satisfies what a query asks of sequences and topics."""

    topic_id: int
    sequence_id: int
    sequence: str
    path: str
    ontology_tag: str


@dataclass(frozen=True)
class _Filter:
    """A condition that SQL only narrows down: decided on the text that `value` takes from a candidate."""

    value: Callable[[Candidate], str]
    accepts: Callable[[str], bool]


def find_candidates(
    connection: Connection, query: Query, sequence_names: Collection[str] | None = None
) -> list[Candidate]:
    """Topics of the tags that the query's conditions on rows name, or of any tag without such conditions.

    Args:
        sequence_names: Leave out topics of other sequences.

    Returns:
        In no particular order.
    """
    found = _find(connection, query, sequence_names, None)
    assert found is not None
    return found


def find_few_candidates(connection: Connection, query: Query, limit: int) -> list[Candidate] | None:
    """The same; None if more than `limit` topics have to be looked at."""
    return _find(connection, query, None, limit)


def _find(
    connection: Connection, query: Query, sequence_names: Collection[str] | None, limit: int | None
) -> list[Candidate] | None:
    dialect = dialect_of(connection)
    on_topics = _created_at(topics, query.topic)
    on_sequences = _on_sequences(connection, dialect, query.sequence, sequence_names)
    tag: ColumnElement[str] = topics.c.ontology_tag
    if on_sequences:
        # As a list of sequences, which leads to their topics through an index; a join might begin with all topics.
        on_topics.append(topics.c.sequence_id.in_(select(sequences.c.id).where(*on_sequences)))
        # Few sequences lead to fewer topics than their tag does.
        tag = dialect.without_index(tag)
    if query.fields:
        tags = {condition.path.tag for condition in query.fields}
        on_topics.append(tag.in_(sorted(filter(is_storable, tags))))
        # Others have no row yet that could match.
        on_topics += (topics.c.state == TopicState.FINALIZED, topics.c.row_count > 0)
    filters: list[_Filter] = []
    for field, condition in query.topic.texts:
        compiled, value = _topic_text(dialect, field, condition, tag)
        on_topics.append(compiled.where)
        if compiled.accepts is not None:
            filters.append(_Filter(value, compiled.accepts))
    metadata_filters = [MetadataFilter(connection, TOPICS, *each) for each in query.topic.user_metadata]
    on_topics += (each.where for each in metadata_filters)
    statement = (
        select(topics.c.id, sequences.c.id, sequences.c.name, topics.c.path, topics.c.ontology_tag)
        .join_from(topics, sequences, topics.c.sequence_id == sequences.c.id)
        .where(*on_topics)
    )
    rows = connection.execute(statement if limit is None else statement.limit(limit + 1)).all()
    if limit is not None and len(rows) > limit:
        return None
    found = list(map(Candidate._make, rows))
    for each in filters:
        found = _kept(found, each)
    for metadata_filter in metadata_filters:
        if not metadata_filter.is_exact:
            passing = metadata_filter.passing(connection, {candidate.topic_id for candidate in found})
            found = [candidate for candidate in found if candidate.topic_id in passing]
    return found


def _on_sequences(
    connection: Connection, dialect: SqlDialect, conditions: ObjectConditions, names: Collection[str] | None
) -> list[ColumnElement[bool]]:
    """What sequences have to satisfy, exactly; nothing if all do."""
    metadata_filters = [MetadataFilter(connection, SEQUENCES, *each) for each in conditions.user_metadata]
    texts = [_sequence_text(dialect, *each) for each in conditions.texts]
    clauses = _created_at(sequences, conditions)
    clauses += [each.where for each in metadata_filters]
    clauses += [each.where for each in texts]
    if names is not None:
        clauses.append(dialect.is_one_of(sequences.c.name, sorted(names)))
    accepts = [each.accepts for each in texts if each.accepts is not None]
    inexact = [each for each in metadata_filters if not each.is_exact]
    if not accepts and not inexact:
        return clauses
    # What SQL only narrows down is decided before any topic is looked at.
    rows = connection.execute(select(sequences.c.id, sequences.c.name).where(*clauses))
    passing = {row.id for row in rows if all(accept(row.name) for accept in accepts)}
    for each in inexact:
        passing = each.passing(connection, passing)
    return [dialect.is_one_of(sequences.c.id, sorted(passing))]


def _kept(candidates: Collection[Candidate], each: _Filter) -> list[Candidate]:
    """Those that pass; every distinct text is looked at once."""
    texts = {each.value(candidate) for candidate in candidates}
    accepted = {text for text in texts if each.accepts(text)}
    return [candidate for candidate in candidates if each.value(candidate) in accepted]


def _created_at(table: Table, conditions: ObjectConditions) -> list[ColumnElement[bool]]:
    return [integer_clause(table.c.created_at_ns, condition) for condition in conditions.created_at]


def _sequence_text(dialect: SqlDialect, field: TextField, condition: Condition) -> TextFilter:
    glob = _substring(condition) if field is TextField.LOCATOR else None
    return text_filter(dialect, sequences.c.name, condition, glob)


def _topic_text(
    dialect: SqlDialect, field: TextField, condition: Condition, tag: ColumnElement[str]
) -> tuple[TextFilter, Callable[[Candidate], str]]:
    match field:
        case TextField.NAME:
            return _topic_name(dialect, condition), lambda candidate: candidate.path
        case TextField.LOCATOR:
            return _topic_locator(dialect, condition), lambda candidate: f"{candidate.sequence}/{candidate.path}"
        case TextField.ONTOLOGY_TAG:
            return text_filter(dialect, tag, condition), lambda candidate: candidate.ontology_tag
        case TextField.SERIALIZATION_FORMAT:
            return _serialization_format(condition), lambda candidate: ""


def _topic_name(dialect: SqlDialect, condition: Condition) -> TextFilter:
    """Names count with and without their leading slash; paths are stored without (protocol section 12.3)."""
    path = topics.c.path
    if condition.operator is not Operator.MATCH:
        return text_filter(dialect, path, _without_leading_slashes(condition))
    glob = Glob.parse(condition.operand)
    if glob.literal is not None:
        return TextFilter(path == glob.literal.removeprefix("/"))
    where = starts_with(dialect, path, glob.prefix.removeprefix("/"))
    if glob.is_prefix_only:
        return TextFilter(where)
    where = and_(where, contains_literals(dialect, literal("/") + path, glob))
    return TextFilter(where, lambda text: glob.matches(text) or glob.matches(f"/{text}"))


def _topic_locator(dialect: SqlDialect, condition: Condition) -> TextFilter:
    locator = sequences.c.name + "/" + topics.c.path
    if condition.operator is Operator.MATCH:
        return text_filter(dialect, locator, condition, _substring(condition))
    condition = _without_leading_slashes(condition)
    either = [text_filter(dialect, column, condition).where for column in (topics.c.path, locator)]
    return TextFilter(and_(*either) if condition.operator is Operator.NOT_EQUAL else or_(*either))


def _serialization_format(condition: Condition) -> TextFilter:
    test = None if condition.operand is None else ValueTest.compile(condition)
    exists = condition.operator is Operator.EXISTS
    passing = [each for each in SerializationFormat if (exists if test is None else test.holds(value_key(str(each))))]
    return TextFilter(topics.c.serialization_format.in_(passing))


def _without_leading_slashes(condition: Condition) -> Condition:
    operand = condition.operand
    if isinstance(operand, str):
        return Condition(condition.operator, operand.lstrip("/"))
    if isinstance(operand, tuple):
        return Condition(condition.operator, tuple(each.lstrip("/") for each in operand))
    return condition


def _substring(condition: Condition) -> Glob | None:
    """What `$match` meant up to 0.5: the text anywhere, `%` standing for any text as in SQL."""
    if condition.operator is not Operator.MATCH:
        return None
    return Glob.containing([part for part in condition.operand.split("%") if part])
