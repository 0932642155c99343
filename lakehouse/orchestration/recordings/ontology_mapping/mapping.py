"""From decoded columns of one message type to the columns of one ontology model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pyarrow as pa

from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN
from lakehouse.ontology.registry import load_models, model_arrow_schema
from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock, Indices, no_rows
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from lakehouse.orchestration.recordings.ontology_mapping import (
    builtin_interfaces,
    geometry_msgs,
    nav_msgs,
    nmea_msgs,
    sensor_msgs,
    std_msgs,
    tf2_msgs,
)
from lakehouse.orchestration.recordings.ontology_mapping.expressions import Expression
from lakehouse.orchestration.recordings.ontology_mapping.rows import (
    Owners,
    RefusedMessages,
    Rows,
    UnsuitableFieldError,
)

_PACKAGES = (builtin_interfaces, std_msgs, geometry_msgs, sensor_msgs, nav_msgs, tf2_msgs, nmea_msgs)


@dataclass(frozen=True)
class MappedMessages:
    """The messages of a batch in the form of their ontology model.

    Attributes:
        batch: The model's payload columns, one row per message that could be mapped, in the order of the messages.
        rows: For each row, the position of its message in the decoded batch; ascending.
        refused: The messages that have no row, each under one reason.
    """

    batch: pa.RecordBatch
    rows: Indices
    refused: tuple[RefusedMessages, ...]


@dataclass(frozen=True)
class OntologyMapping:
    """How messages of one ROS type become rows of one ontology model, as the bridges of the official SDK do it.

    Attributes:
        message_type: `package/msg/Type`.
        ontology_tag: The model the messages are mapped to.
        expression: Where each field of the model comes from.
    """

    message_type: str
    ontology_tag: str
    expression: Expression

    @property
    def serialization_format(self) -> str:
        """The serialization format of the ontology model."""
        return load_models()[self.ontology_tag].serialization_format

    @cached_property
    def payload_schema(self) -> pa.Schema:
        """The model's Arrow schema without the timestamp column."""
        schema = model_arrow_schema(self.ontology_tag)
        return schema.remove(schema.get_field_index(TIMESTAMP_COLUMN))

    def obstacle(self, decoded: pa.Schema) -> str | None:
        """Why messages with these decoded columns cannot be mapped, or None if they can.

        A recording carries its own message definitions, and one may lack fields that the model needs.
        """
        try:
            self.map_messages(no_rows(decoded))
        except MessageDefinitionError as error:
            return error.message
        return None

    def map_messages(self, batch: pa.RecordBatch) -> MappedMessages:
        """Map decoded messages to the model; those that the model cannot hold are left out and reported.

        Args:
            batch: The fields of the message type by name, without any timestamp column.

        Raises:
            MessageDefinitionError: If the message definition lacks a field the model needs, or has it with a type that
                cannot become the model's.
        """
        owners = Owners.of_messages(batch.num_rows)
        rows = Rows(batch.to_struct_array(), owners)
        try:
            columns = self.expression.evaluate(rows, pa.struct(list(self.payload_schema)))
        except UnsuitableFieldError as error:
            raise MessageDefinitionError(self.message_type, str(error)) from error
        mapped = pa.RecordBatch.from_arrays(columns.flatten(), schema=self.payload_schema)
        everything = np.arange(batch.num_rows, dtype=np.int64)
        refused = owners.refusals()
        if not refused:
            return MappedMessages(mapped, everything, ())
        kept = np.setdiff1d(everything, np.concatenate([refusal.rows for refusal in refused]), assume_unique=True)
        return MappedMessages(mapped.take(pa.array(kept)), kept, refused)

    def map_block(self, block: DecodedBlock) -> DecodedBlock:
        """Map a block as a decoder returns it; what the model cannot hold joins what could not be decoded.

        Raises:
            MessageDefinitionError: As `map_messages` does.
        """
        mapped = self.map_messages(block.batch)
        refused = Counter({refusal.reason: len(refusal.rows) for refusal in mapped.refused})
        return DecodedBlock(mapped.batch, block.rows[mapped.rows], block.failures + refused)


def find_mapping(message_type: str) -> OntologyMapping | None:
    """The mapping of a ROS message type (`package/msg/Type`), or None if the ontology has no model for it."""
    return mappings().get(message_type)


@cache
def mappings() -> Mapping[str, OntologyMapping]:
    """All mappings by message type."""
    return {
        message_type: OntologyMapping(message_type, ontology_tag, expression)
        for package in _PACKAGES
        for message_type, (ontology_tag, expression) in package.MESSAGES.items()
    }
