"""The lossless mapping between an uploaded Arrow schema and the Iceberg table that stores its rows.

`plan_storage` decides once per upload; the `StoragePlan` then converts batches both ways, and the functions here derive
from it the Iceberg schema of a new table and the Parquet schema of files for an existing one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.types as pat
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType

from lakehouse.ontology.cast import DictionaryOverflowError, decode, encode_column
from lakehouse.ontology.evolution import (
    ColumnAddition,
    Evolution,
    IncompatibleTableError,
    TypePromotion,
    Verdict,
    compare,
    parquet_fields,
)
from lakehouse.ontology.iceberg_types import iceberg_fields
from lakehouse.ontology.registry import shipped_model
from lakehouse.ontology.storage_names import (
    ENVELOPE_COLUMNS,
    RECORDED_AT_COLUMN,
    SEQUENCE_COLUMN,
    SESSION_COLUMN,
    TIMESTAMP_COLUMN,
)
from lakehouse.ontology.storage_types import (
    ColumnPlan,
    UnstorableValueError,
    UnsupportedTypeError,
    plan_columns,
    walk,
)

__all__ = [
    "ENVELOPE_COLUMNS",
    "RECORDED_AT_COLUMN",
    "SEQUENCE_COLUMN",
    "SESSION_COLUMN",
    "TIMESTAMP_COLUMN",
    "ColumnAddition",
    "ColumnPlan",
    "DictionaryOverflowError",
    "Evolution",
    "IncompatibleTableError",
    "StoragePlan",
    "TypePromotion",
    "UnstorableValueError",
    "UnsupportedTypeError",
    "Verdict",
    "evolution",
    "iceberg_payload_schema",
    "parquet_schema",
    "plan_storage",
    "topic_table_schema",
]

_TIMESTAMP_FIELD = pa.field(TIMESTAMP_COLUMN, pa.int64(), nullable=False)

_ENVELOPE_FIELDS = (
    NestedField(1, SEQUENCE_COLUMN, StringType(), required=True, doc="Name of the sequence (one recording)."),
    NestedField(2, SESSION_COLUMN, StringType(), required=True, doc="Locator of the session that wrote the row."),
    NestedField(3, TIMESTAMP_COLUMN, LongType(), required=True, doc="Record time, exact. [ns since 1970-01-01 UTC]"),
    NestedField(
        4,
        RECORDED_AT_COLUMN,
        TimestamptzType(),
        required=True,
        doc="Record time rounded down to microseconds; filter on it to read few files.",
    ),
)


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """How the rows of one uploaded schema are stored.

    Attributes:
        arrow_schema: The schema exactly as uploaded.
        storage_schema: `timestamp_ns`, then the payload columns with their storage names and types.
        payload: Plans of the payload columns, in uploaded order.
    """

    arrow_schema: pa.Schema
    storage_schema: pa.Schema
    payload: tuple[ColumnPlan, ...]

    def to_storage(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Convert an uploaded batch to `storage_schema`. Columns whose type does not change share their buffers.

        The batch must have passed `validate(full=True)`.

        Raises:
            UnstorableValueError: If the batch has another schema, a null timestamp, or a value without exact
                counterpart in storage.
        """
        if not batch.schema.equals(self.arrow_schema):
            raise UnstorableValueError("a record batch does not have the schema the upload announced")
        position = self.arrow_schema.get_field_index(TIMESTAMP_COLUMN)
        timestamps = batch.column(position)
        if timestamps.null_count:
            raise UnstorableValueError(f"column '{TIMESTAMP_COLUMN}' contains nulls")
        payload = [array for number, array in enumerate(batch.columns) if number != position]
        arrays = [encode_column(array, plan) for array, plan in zip(payload, self.payload, strict=True)]
        return pa.RecordBatch.from_arrays([timestamps, *arrays], schema=self.storage_schema)

    def from_storage(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Convert a batch read from storage back to exactly `arrow_schema`.

        Columns are found by name; extra columns, wider number types, other list child names and orders are accepted.

        Raises:
            DictionaryOverflowError: If a dictionary column holds more distinct values in these rows than its index
                type can number; `from_storage_batches` splits the rows instead.
            UnstorableValueError: If the batch cannot hold rows of this plan.
        """
        arrays = []
        plans = iter(self.payload)
        for field in self.arrow_schema:
            if field.name == TIMESTAMP_COLUMN:
                arrays.append(_column(batch, TIMESTAMP_COLUMN).cast(pa.int64()))
            else:
                plan = next(plans)
                arrays.append(decode(_column(batch, plan.storage.name), plan))
        return pa.RecordBatch.from_arrays(arrays, schema=self.arrow_schema)

    def from_storage_batches(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Like `from_storage`, in as many batches as small dictionary index types demand; the order is kept."""
        try:
            return [self.from_storage(batch)]
        except DictionaryOverflowError:
            if batch.num_rows < 2:
                raise
            half = batch.num_rows // 2
            return self.from_storage_batches(batch.slice(0, half)) + self.from_storage_batches(batch.slice(half))

    def columns(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], ColumnPlan]]:
        """Every payload column at every depth: path of uploaded names, path of storage names, plan.

        List elements are called `element`, map children `key` and `value`.
        """
        return walk(self.payload)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    position = batch.schema.get_field_index(name)
    if position < 0:
        raise UnstorableValueError(f"stored rows lack the column '{name}'")
    return batch.column(position)


@lru_cache(maxsize=1024)
def storage_plan(arrow_schema: bytes) -> StoragePlan:
    """How rows of a serialized Arrow schema are stored; see `plan_storage`."""
    return plan_storage(pa.ipc.read_schema(pa.BufferReader(arrow_schema)))


def plan_storage(schema: pa.Schema) -> StoragePlan:
    """Decide how rows of `schema` are stored.

    Args:
        schema: The schema of an upload: a top-level int64 `timestamp_ns` and any payload columns.

    Raises:
        UnsupportedTypeError: If `timestamp_ns` is missing or not int64, or a column cannot be stored without loss.
    """
    try:
        return _plan_storage(schema)
    except UnicodeDecodeError:
        raise UnsupportedTypeError("a column name or time zone is not valid UTF-8") from None


def _plan_storage(schema: pa.Schema) -> StoragePlan:
    fields, names = list(schema), schema.names
    if names.count(TIMESTAMP_COLUMN) != 1:
        found = "has no" if TIMESTAMP_COLUMN not in names else "has more than one"
        raise UnsupportedTypeError(f"the schema {found} top-level column '{TIMESTAMP_COLUMN}'")
    timestamp_type = fields[names.index(TIMESTAMP_COLUMN)].type
    if not pat.is_int64(timestamp_type):
        raise UnsupportedTypeError(f"column '{TIMESTAMP_COLUMN}' must be int64 (nanoseconds), not {timestamp_type}")
    payload = plan_columns([field for field in fields if field.name != TIMESTAMP_COLUMN], reserved=ENVELOPE_COLUMNS)
    return StoragePlan(schema, pa.schema([_TIMESTAMP_FIELD, *(plan.storage for plan in payload)]), payload)


def iceberg_payload_schema(plan: StoragePlan, ontology_tag: str | None = None) -> Schema:
    """The Iceberg schema of the payload columns alone, all optional, commented.

    Args:
        plan: The plan of an upload.
        ontology_tag: Takes comments and units from the shipped model of that tag if the upload has its schema.
    """
    return Schema(*iceberg_fields(plan.payload, 1, _model_comments(plan, ontology_tag)))


def topic_table_schema(plan: StoragePlan, ontology_tag: str | None = None) -> Schema:
    """The Iceberg schema of a new topic table: the required envelope columns, then the optional payload.

    `create_table` numbers the fields again: write files with `parquet_schema` of the created table.
    """
    payload = iceberg_fields(plan.payload, len(_ENVELOPE_FIELDS) + 1, _model_comments(plan, ontology_tag))
    return Schema(*_ENVELOPE_FIELDS, *payload)


def _model_comments(plan: StoragePlan, ontology_tag: str | None) -> dict[tuple[str, ...], str]:
    model = shipped_model(ontology_tag, plan.arrow_schema) if ontology_tag is not None else None
    return model.comments() if model is not None else {}


def parquet_schema(table_schema: Schema, plan: StoragePlan) -> pa.Schema:
    """The schema of Parquet files that hold rows of `plan` in a table: envelope, then the plan's columns.

    Types and field ids (`PARQUET:field_id`) are the created table's own; columns the plan lacks are left out.

    Raises:
        IncompatibleTableError: If the table cannot hold the rows, or must evolve first.
    """
    return pa.schema(parquet_fields(table_schema, _ENVELOPE_FIELDS, plan.payload))


def evolution(table_schema: Schema, plan: StoragePlan) -> Evolution:
    """What a table needs so that it can hold rows of `plan`."""
    return compare(table_schema, _ENVELOPE_FIELDS, plan.payload)
