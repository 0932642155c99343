"""Arrow schemas of Iceberg tables whose columns are few and simple.

PyIceberg has the same function in a module that imports Arrow's datasets, and with them pandas where it is installed:
every process that commits would start half a second later.
"""

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

_PRIMITIVES: dict[type[IcebergType], pa.DataType] = {
    BinaryType: pa.large_binary(),
    BooleanType: pa.bool_(),
    DateType: pa.date32(),
    DoubleType: pa.float64(),
    FloatType: pa.float32(),
    IntegerType: pa.int32(),
    LongType: pa.int64(),
    StringType: pa.large_string(),
    TimestamptzType: pa.timestamp("us", "UTC"),
}


def arrow_schema(schema: Schema) -> pa.Schema:
    """The columns of a table as Arrow holds them, with their ids and docs.

    Raises:
        KeyError: If a column is of a type that no table of the system has.
    """
    return pa.schema([_field(each) for each in schema.fields])


def _field(field: NestedField) -> pa.Field:
    metadata = {"PARQUET:field_id": str(field.field_id)} | ({"doc": field.doc} if field.doc else {})
    return pa.field(field.name, _type(field.field_type), nullable=field.optional, metadata=metadata)


def _type(kind: IcebergType) -> pa.DataType:
    if isinstance(kind, StructType):
        return pa.struct([_field(each) for each in kind.fields])
    if isinstance(kind, ListType):
        return pa.large_list(_field(kind.element_field))
    if isinstance(kind, MapType):
        return pa.map_(_field(kind.key_field), _field(kind.value_field))
    return _PRIMITIVES[type(kind)]
