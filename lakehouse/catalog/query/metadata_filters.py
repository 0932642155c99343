"""Conditions on user metadata in SQL, over the index of paths and values.

The SQL of a condition never leaves out an owner (sequence or topic) that satisfies it, and is exact unless it involves
a general glob, a value longer than an index entry, or metadata too large for the index. What it lets through then is
decided here, from the index where possible and from the JSON text where not.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, false, func, or_, select

from lakehouse.catalog.control_plane.metadata_index import KEY_LENGTH, not_indexed, parse_path
from lakehouse.catalog.control_plane.schema import metadata_paths, sequence_metadata, sequences, topic_metadata, topics
from lakehouse.catalog.control_plane.value_keys import value_key
from lakehouse.catalog.query.conditions import Condition, Operator
from lakehouse.catalog.query.metadata_paths import MetadataPath
from lakehouse.catalog.query.path_automaton import PathAutomaton
from lakehouse.catalog.query.sql_dialect import SqlDialect, dialect_of
from lakehouse.catalog.query.value_tests import KeyRange, ValueTest

_ALTERNATIVES_IN_SQL = 64
_LITERALS_IN_SQL = 3
_OWNERS_IN_SQL = 1000
_JSON_TEXTS_AT_ONCE = 100


@dataclass(frozen=True)
class _Owners:
    """A kind of object that has user metadata."""

    table: Table
    values: Table


SEQUENCES = _Owners(sequences, sequence_metadata)
TOPICS = _Owners(topics, topic_metadata)


class MetadataFilter:
    """One condition on the user metadata of sequences or of topics, for one query.

    Attributes:
        where: The condition on rows of the owner's table; leaves out nobody who satisfies it.
        is_exact: Whether `where` alone decides.
    """

    def __init__(self, connection: Connection, owners: _Owners, path: MetadataPath, condition: Condition) -> None:
        self._dialect = dialect_of(connection)
        self._owners = owners
        self._automaton = PathAutomaton(path)
        self._negated = condition.operator is Operator.NOT_EXISTS
        existence = condition.operator in (Operator.EXISTS, Operator.NOT_EXISTS)
        self._test = None if existence else ValueTest.compile(condition)
        values = owners.values
        hit = _path_clause(connection, self._dialect, values, path, self._automaton)
        is_exact = True
        if self._test is not None:
            on_value, is_exact = _value_clause(self._dialect, values, self._test)
            hit = and_(hit, on_value)
        self._hits: Select[Any] = select(values.c.owner_id, values.c.value, values.c.is_cut).where(hit)
        self._large: set[int] = set(connection.scalars(not_indexed(values)))
        among_hits = owners.table.c.id.in_(select(values.c.owner_id).where(hit))
        self.is_exact = is_exact and not self._large
        if self._negated:
            self.where: ColumnElement[bool] = ~among_hits
        elif self._large:
            self.where = or_(among_hits, owners.table.c.id.in_(not_indexed(values)))
        else:
            self.where = among_hits

    def passing(self, connection: Connection, owner_ids: set[int]) -> set[int]:
        """Which of these owners satisfy the condition."""
        found: set[int] = set()
        undecided = self._large & owner_ids
        for owner_id, value, is_cut in connection.execute(self._restricted(owner_ids)):
            if owner_id not in owner_ids or owner_id in found:
                continue
            if self._test is None or (not is_cut and self._test.holds(value)):
                found.add(owner_id)
            elif is_cut:
                undecided.add(owner_id)
        found |= {owner_id for owner_id, text in self._metadata(connection, undecided - found) if self._accepts(text)}
        return owner_ids - found if self._negated else found

    def _restricted(self, owner_ids: set[int]) -> Select[Any]:
        if len(owner_ids) > _OWNERS_IN_SQL:
            return self._hits
        return self._hits.where(self._dialect.is_one_of(self._owners.values.c.owner_id, sorted(owner_ids)))

    def _metadata(self, connection: Connection, owner_ids: set[int]) -> Iterator[tuple[int, str]]:
        table, ordered = self._owners.table, sorted(owner_ids)
        for start in range(0, len(ordered), _JSON_TEXTS_AT_ONCE):
            chosen = self._dialect.is_one_of(table.c.id, ordered[start : start + _JSON_TEXTS_AT_ONCE])
            for row in connection.execute(select(table.c.id, table.c.user_metadata).where(chosen)):
                yield row.id, row.user_metadata

    def _accepts(self, metadata_text: str) -> bool:
        """Whether anything in the metadata is at the path and passes the test."""
        found = self._automaton.values(json.loads(metadata_text))
        return any(self._test is None or self._test.holds(value_key(value)) for value in found)


def _path_clause(
    connection: Connection, dialect: SqlDialect, values: Table, path: MetadataPath, automaton: PathAutomaton
) -> ColumnElement[bool]:
    """The rows whose path the given one addresses."""
    keys = ".".join(path.leading_keys)
    if not keys.isascii() or "\0" in keys:
        # No metadata in the index has such keys, and not every database takes them as parameters.
        return false()
    if path.names_every_key:
        below = metadata_paths.c.key_path == keys
        if not path.names_positions:
            return values.c.path_id.in_(select(metadata_paths.c.id).where(below))
    elif keys:
        # "/" is the character behind ".".
        inside = and_(metadata_paths.c.key_path >= f"{keys}.", metadata_paths.c.key_path < f"{keys}/")
        below = or_(metadata_paths.c.key_path == keys, inside)
    else:
        below = metadata_paths.c.path != ""
    candidates = connection.execute(select(metadata_paths.c.id, metadata_paths.c.path).where(below))
    return dialect.is_one_of(
        values.c.path_id, [row.id for row in candidates if automaton.leads_to(parse_path(row.path))]
    )


def _value_clause(dialect: SqlDialect, values: Table, test: ValueTest) -> tuple[ColumnElement[bool], bool]:
    """The rows whose value may pass, and whether all of them do."""
    is_exact = test.glob is None and all(len(each.low) <= KEY_LENGTH >= len(each.high) for each in test.ranges)
    ranges = test.ranges
    if len(ranges) > _ALTERNATIVES_IN_SQL:
        ranges, is_exact = (KeyRange(ranges[0].low, True, ranges[-1].high, True),), False
    clause = or_(*(_range_clause(values, each) for each in ranges))
    for literal in test.glob.literals[:_LITERALS_IN_SQL] if test.glob else ():
        part = literal.encode("utf-8", "surrogatepass")
        # Told by length, which is in the index, whether the value may go on.
        may_be_cut = func.length(values.c.value) >= KEY_LENGTH
        clause = and_(clause, or_(dialect.contains_bytes(values.c.value, part), may_be_cut))
    return clause, is_exact


def _range_clause(values: Table, keys: KeyRange) -> ColumnElement[bool]:
    """A stored key that is cut stands for some longer one, which sorts directly behind its beginning."""
    value, is_cut = values.c.value, values.c.is_cut
    low, high = keys.low[:KEY_LENGTH], keys.high[:KEY_LENGTH]
    # Keys are cut to a length that none of these has, so that the index alone answers.
    if max(len(low), len(high)) < KEY_LENGTH:
        if low == high:
            return value == low
        above = value >= low if keys.includes_low else value > low
        return and_(above, value <= high if keys.includes_high else value < high)
    # Where the bound itself was cut, a whole key equal to its beginning is smaller; for a cut one nobody knows here.
    takes_low = keys.includes_low and low == keys.low
    takes_high = keys.includes_high or high != keys.high
    clause = and_(value >= low, value <= high)
    if not takes_low:
        clause = and_(clause, or_(value > low, is_cut))
    if not takes_high:
        clause = and_(clause, value < high)
    elif high == keys.high:
        clause = and_(clause, or_(value < high, ~is_cut))
    return clause
