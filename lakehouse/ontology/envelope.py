"""The columns every topic table has in front of its payload."""

import numpy as np
import pyarrow as pa

from lakehouse.ontology.storage_names import RECORDED_AT_COLUMN, SEQUENCE_COLUMN, SESSION_COLUMN, TIMESTAMP_COLUMN

_RECORDED_AT_TYPE = pa.timestamp("us", tz="UTC")


class Envelope:
    """Completes stored payload rows to rows of a data file."""

    def __init__(self, parquet_schema: pa.Schema, sequence: str, session: str) -> None:
        """Prepare for one upload.

        Args:
            parquet_schema: All columns of the file, envelope included, with field ids.
            sequence: Value of the column `sequence` in every row.
            session: Value of the column `session` in every row.
        """
        self._constants = {SEQUENCE_COLUMN: pa.array([sequence]), SESSION_COLUMN: pa.array([session])}
        # As dictionaries, constant columns cost the encoder nothing; in the file they are plain strings.
        self.file_schema = pa.schema(
            [
                field.with_type(pa.dictionary(pa.int8(), pa.string())) if field.name in self._constants else field
                for field in parquet_schema
            ]
        )

    def add(self, rows: pa.Table) -> pa.Table:
        """All columns of `file_schema` for `rows`, which hold the payload and `timestamp_ns`."""
        columns = [self._column(field, rows) for field in self.file_schema]
        return pa.Table.from_arrays(columns, schema=self.file_schema)

    def _column(self, field: pa.Field, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
        if field.name in self._constants:
            indices = pa.array(np.zeros(rows.num_rows, dtype=np.int8))
            return pa.DictionaryArray.from_arrays(indices, self._constants[field.name])
        if field.name == RECORDED_AT_COLUMN:
            return pa.chunked_array([_recorded_at(times) for times in rows.column(TIMESTAMP_COLUMN).chunks])
        column = rows.column(field.name)
        return column if column.type == field.type else column.cast(field.type)


def _recorded_at(timestamps_ns: pa.Int64Array) -> pa.TimestampArray:
    """Timestamps in nanoseconds rounded down (also before 1970) to microseconds."""
    microseconds = np.floor_divide(timestamps_ns.to_numpy(), 1000)
    return pa.array(microseconds).view(_RECORDED_AT_TYPE)
