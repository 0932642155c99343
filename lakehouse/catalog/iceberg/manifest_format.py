"""How the manifests of one table schema and partition spec are encoded: Avro schema, header, partition values."""

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.resolver import construct_writer
from pyiceberg.manifest import data_file_with_partition, manifest_entry_schema_with_data_file
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, NestedField, PrimitiveType, StringType, StructType
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse.catalog.iceberg.avro_encoding import Decoder, encode_header, encode_long, encode_text


class ManifestFormat:
    """How manifests of one partition spec of one table schema are encoded; use `manifest_format` to get one."""

    def __init__(self, schema: Schema, schema_json: str, spec: PartitionSpec) -> None:
        self.spec_id = spec.spec_id
        # Optional even where the source column is required, as the Java implementation writes them.
        partition_type = StructType(
            *(
                NestedField(field.field_id, field.name, field.field_type, required=False)
                for field in spec.partition_type(schema).fields
            )
        )
        self.partition_types: list[PrimitiveType] = [field.field_type for field in partition_type.fields]  # type: ignore[misc]
        avro_schema = AvroSchemaConversion().iceberg_to_avro(
            manifest_entry_schema_with_data_file(2, data_file_with_partition(partition_type, 2)),
            schema_name="manifest_entry",
        )
        self.avro_schema = json.dumps(avro_schema)
        self._metadata = {
            "schema": schema_json,
            "schema-id": str(schema.schema_id),
            "partition-spec": json.dumps([field.model_dump(by_alias=True, mode="json") for field in spec.fields]),
            "partition-spec-id": str(spec.spec_id),
            "format-version": "2",
            "content": "data",
            # An entry of its own hardly compresses (17 %), but takes as long to inflate as to decode.
            "avro.codec": "null",
            "avro.schema": self.avro_schema,
        }
        self._header = encode_header(self._metadata)

    def header(self, more: Mapping[str, bytes] | None = None) -> bytes:
        """The header of a manifest up to its sync marker, with metadata that is not of the format."""
        return encode_header({**self._metadata, **more}) if more else self._header

    def encode_partition(self, values: Sequence[Any]) -> bytes:
        parts = []
        for kind, value in zip(self.partition_types, values, strict=True):
            if value is None:
                parts.append(b"\x00")
            elif isinstance(kind, StringType):
                parts.append(b"\x02" + encode_text(value))
            elif isinstance(kind, DateType):
                parts.append(b"\x02" + encode_long(value))
            else:
                buffer = io.BytesIO()
                construct_writer(kind).write(BinaryEncoder(buffer), value)
                parts.append(b"\x02" + buffer.getvalue())
        return b"".join(parts)

    @property
    def decodes_partitions(self) -> bool:
        return all(isinstance(kind, StringType | DateType) for kind in self.partition_types)

    def decode_partition(self, decoder: Decoder) -> tuple[Any, ...]:
        return tuple(
            (decoder.text() if isinstance(kind, StringType) else decoder.long()) if decoder.is_present() else None
            for kind in self.partition_types
        )


@lru_cache(maxsize=512)
def parse_schema(schema_json: str) -> Schema:
    """A table schema from its JSON; equal texts share one object."""
    return Schema.model_validate_json(schema_json)


@lru_cache(maxsize=512)
def manifest_format(schema_json: str, spec_json: str) -> ManifestFormat:
    return ManifestFormat(parse_schema(schema_json), schema_json, PartitionSpec.model_validate_json(spec_json))
