"""The shape of a topic: the fields that a contract lists are there, of their types, and filled where required."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lakehouse.contracts.model import FieldPath, Kind, PropertySpec
from lakehouse.contracts.rules.rule import VALUE, Derived, Parameters, Rows, Rule, between, find_field, is_list

# A sum of powers of two stays exact in a double.
MAX_REQUIRED = 52

_TESTS = {
    # The standard has no type for bytes: they are strings of the format `binary`.
    "string": lambda kind: any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    ),
    "number": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind),
    "integer": pa.types.is_integer,
    "boolean": pa.types.is_boolean,
    "object": pa.types.is_struct,
    "array": is_list,
    "map": pa.types.is_map,
    "date": pa.types.is_date,
    "time": pa.types.is_time,
    "timestamp": pa.types.is_timestamp,
    "vector": is_list,
}


def type_defects(properties: Sequence[PropertySpec], schema: pa.Schema) -> list[str]:
    """What of the properties the schema lacks, or has in another type."""
    defects = []
    for wanted in properties:
        name = ".".join(wanted.path)
        found = find_field(schema, wanted.path)
        if found is None:
            defects.append(f"no column '{name}'")
        elif wanted.logical_type is not None and not _TESTS[wanted.logical_type](found.type):
            defects.append(f"'{name}' is {found.type}, not {wanted.logical_type}")
        elif wanted.physical_type is not None and str(found.type) != wanted.physical_type:
            defects.append(f"'{name}' is {found.type}, not {wanted.physical_type}")
    return defects


class NoParameters(Parameters):
    pass


class SchemaMatches(Rule):
    """The topic has the columns of the contract, in their types; derives the number that are missing or different."""

    name = "schema"
    kind = Kind.SCHEMA
    dimension = "conformity"
    parameters = NoParameters

    def __init__(
        self, path: FieldPath, parameters: Any, schema: pa.Schema, properties: Sequence[PropertySpec] = ()
    ) -> None:
        # Optional columns may be left out by a writer.
        there = [p for p in properties if p.required or find_field(schema, p.path) is not None]
        self._defects = type_defects(there, schema)
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = f"{len(properties)} columns in their types, the required ones present"

    def finish(self) -> dict[str, float]:
        return {VALUE: float(len(self._defects))}

    def describe(self, column: str, value: Any) -> str:
        return "; ".join(self._defects)


class RequiredValues(Rule):
    """Required fields are not null wherever the struct around them is there.

    Derives a sum of powers of two, one per required field that is null in the row.
    """

    name = "required"
    kind = Kind.SCHEMA
    dimension = "completeness"
    parameters = NoParameters

    def __init__(
        self, path: FieldPath, parameters: Any, schema: pa.Schema, properties: Sequence[PropertySpec] = ()
    ) -> None:
        wanted = [p.path for p in properties if p.required and "element" not in p.path and find_field(schema, p.path)]
        self._paths = wanted[:MAX_REQUIRED]
        self.expectations = (between(VALUE, 0, 0),)
        self.expected = "a value in " + ", ".join(".".join(path) for path in self._paths)

    def derive(self, rows: Rows) -> Derived:
        missing = np.zeros(len(rows))
        for bit, path in enumerate(self._paths):
            if not rows.has_nulls(path):
                continue
            is_missing = rows.is_null(path)
            if len(path) > 1:
                is_missing = is_missing & ~rows.is_null(path[:-1])
            missing += is_missing * math.ldexp(1, bit)
        return {VALUE: missing}

    def describe(self, column: str, value: Any) -> str:
        names = [".".join(path) for bit, path in enumerate(self._paths) if int(value) >> bit & 1]
        return f"no value in {', '.join(names)}"
