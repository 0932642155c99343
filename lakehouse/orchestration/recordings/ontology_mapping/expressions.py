"""The vocabulary of mappings: how a field of an ontology model is made from the fields of a message.

An expression is told the Arrow type it has to produce, so tables only say where values come from, not what they are. A
model field that a record does not mention is null, as optional fields of the ontology are when nobody sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from lakehouse.orchestration.recordings.ontology_mapping.casting import cast_column
from lakehouse.orchestration.recordings.ontology_mapping.rows import BooleanMask, Rows, null_where

Condition = Callable[[Rows], BooleanMask]


class Expression(Protocol):
    """One ontology field, as a function of messages."""

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        """One value of type `target` per row."""
        ...


MessageTable = Mapping[str, tuple[str, Expression]]
"""Message type -> tag of its ontology model, and where the fields of the model come from."""


@dataclass(frozen=True)
class Field:
    """The value of a message field."""

    path: str
    former_path: str | None = None
    optional: bool = False

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        path = self.path
        if self.former_path is not None and not rows.has(path):
            path = self.former_path
        if self.optional and not rows.has(path):
            return pa.nulls(len(rows), target)
        return cast_column(rows.column(path), target, rows.owners, path)


@dataclass(frozen=True)
class Record:
    """A nested model, each of its fields an expression over the same message."""

    fields: dict[str, Expression]

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.StructArray:
        unknown = self.fields.keys() - {child.name for child in target}
        if unknown:
            raise LookupError(f"the ontology model has no field {', '.join(sorted(unknown))}")
        return pa.StructArray.from_arrays([self._child(rows, child) for child in target], fields=list(target))

    def _child(self, rows: Rows, child: pa.Field) -> pa.Array:
        expression = self.fields.get(child.name)
        if expression is None:
            if not child.nullable:
                raise LookupError(f"the ontology model requires field {child.name}")
            return pa.nulls(len(rows), child.type)
        return expression.evaluate(rows, child.type)

    def __or__(self, other: Record) -> Record:
        """This record with the fields of another added."""
        return Record(self.fields | other.fields)


@dataclass(frozen=True)
class Inside:
    """An expression over a nested message; null where an optional one is not part of the message definition."""

    path: str
    expression: Expression
    optional: bool = False

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        if self.optional and not rows.has(self.path):
            return pa.nulls(len(rows), target)
        return self.expression.evaluate(rows.inside(self.path), target)


@dataclass(frozen=True)
class Each:
    """A list with one element for each message in an array field."""

    path: str
    expression: Expression

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.ListArray:
        offsets, elements = rows.elements(self.path)
        return pa.ListArray.from_arrays(offsets, self.expression.evaluate(elements, target.value_type), type=target)


@dataclass(frozen=True)
class OnlyIf:
    """An expression that is null for the rows where a condition does not hold."""

    condition: Condition
    expression: Expression

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        holds = self.condition(rows)
        if len(rows) > 0 and not holds.any():
            return pa.nulls(len(rows), target)
        return null_where(~holds, self.expression.evaluate(rows, target))


@dataclass(frozen=True)
class Required:
    """An expression over messages that are refused unless a condition holds."""

    condition: Condition
    reason: str
    expression: Expression

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        rows.owners.refuse(~self.condition(rows), self.reason)
        return self.expression.evaluate(rows, target)


@dataclass(frozen=True)
class Stacked:
    """A list of fixed size whose elements are fields of the message, in the given order."""

    paths: tuple[str, ...]

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.FixedSizeListArray:
        columns = [cast_column(rows.column(path), target.value_type, rows.owners, path) for path in self.paths]
        values = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), target.value_type), type=target)


@dataclass(frozen=True)
class Computed:
    """A value that takes a calculation over the messages; the function knows the type of the model's field."""

    function: Callable[[Rows], pa.Array]

    def evaluate(self, rows: Rows, target: pa.DataType) -> pa.Array:
        return self.function(rows)


def record(**fields: Expression | str) -> Record:
    """A nested model; a text stands for the message field of that path."""
    return Record({name: Field(source) if isinstance(source, str) else source for name, source in fields.items()})
