"""Which columns the messages of a channel become: those of an ontology model, their own, or their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lakehouse.catalog.records import SerializationFormat
from lakehouse.ontology.arrow_iceberg import TIMESTAMP_COLUMN, UnsupportedTypeError, plan_storage
from lakehouse.orchestration.recordings.decoding.channels import ROS_ENCODINGS, decoders_for
from lakehouse.orchestration.recordings.decoding.decoded import DecodedBlock, MessageDecoder
from lakehouse.orchestration.recordings.decoding.json_shape import JsonSurvey
from lakehouse.orchestration.recordings.decoding.raw import RawDecoder
from lakehouse.orchestration.recordings.decoding.ros_types import normalized_type
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from lakehouse.orchestration.recordings.naming import RAW_TAG, ontology_tag_of
from lakehouse.orchestration.recordings.ontology_mapping import OntologyMapping, find_mapping
from lakehouse.orchestration.recordings.recording import Channel

PUBLISH_TIME_COLUMN = "publish_time_ns"
"""As the MCAP bridge of the official SDK names it."""


@dataclass(frozen=True)
class Conversion:
    """How the messages of one channel become rows.

    Attributes:
        ontology_tag: Of the topic.
        serialization_format: Of the topic.
        decoder: From bytes to the columns of the message.
        mapping: From there to the columns of the ontology model; None if the message's own columns are kept.
        keeps_publish_time: Whether a `publish_time_ns` column follows the columns of the message.
        note: Why the messages are not kept in a better form, for people; empty if they are.
    """

    ontology_tag: str
    serialization_format: str
    decoder: MessageDecoder
    mapping: OntologyMapping | None = None
    keeps_publish_time: bool = False
    note: str = ""

    @property
    def schema(self) -> pa.Schema:
        """The topic's columns, `timestamp_ns` first.

        A field of the message that has the name of one of our columns is called `message_<name>`.
        """
        payload = self.mapping.payload_schema if self.mapping else self.decoder.schema
        fields = [pa.field(TIMESTAMP_COLUMN, pa.int64(), nullable=False)]
        taken = {TIMESTAMP_COLUMN, *payload.names} | ({PUBLISH_TIME_COLUMN} if self.keeps_publish_time else set())
        for field in payload:
            name = field.name
            if name == TIMESTAMP_COLUMN or (self.keeps_publish_time and name == PUBLISH_TIME_COLUMN):
                name = f"message_{name}"
                while name in taken:
                    name += "_"
                taken.add(name)
            fields.append(field.with_name(name))
        if self.keeps_publish_time:
            fields.append(pa.field(PUBLISH_TIME_COLUMN, pa.int64()))
        return pa.schema(fields)

    def convert(self, payloads: Sequence[bytes]) -> DecodedBlock:
        """The payload columns of a block of messages; those without a row are counted by reason."""
        block = self.decoder.decode(payloads)
        return self.mapping.map_block(block) if self.mapping else block


def choose_conversion(
    channel: Channel, sample: Sequence[bytes], *, has_publish_times: bool, survey: JsonSurvey | None = None
) -> Conversion:
    """The best form the messages of a channel can be kept in.

    Args:
        channel: The channel.
        sample: Its first messages; a form in which none of them gets a row is not chosen.
        has_publish_times: Whether the container knows when messages were sent.
        survey: Of all its messages, if it needs one.
    """
    raw = Conversion(RAW_TAG, SerializationFormat.DEFAULT, RawDecoder(), keeps_publish_time=has_publish_times)
    tag = ontology_tag_of(channel.message_type)
    is_ros = channel.encoding in ROS_ENCODINGS
    note = ""
    try:
        for decoder in decoders_for(channel, survey):
            conversions = []
            if is_ros and (mapping := find_mapping(normalized_type(channel.message_type))) is not None:
                note = mapping.obstacle(decoder.schema) or ""
                if not note:
                    conversions.append(Conversion(mapping.ontology_tag, mapping.serialization_format, decoder, mapping))
            plain = Conversion(
                tag,
                SerializationFormat.DEFAULT,
                decoder,
                keeps_publish_time=has_publish_times and not is_ros,
                note=note,
            )
            for conversion in [*conversions, plain]:
                plan_storage(conversion.schema)
                outcome = conversion.convert(sample)
                if not sample or outcome.batch.num_rows:
                    return conversion
                note = max(outcome.failures, key=lambda reason: outcome.failures[reason], default="")
    except MessageDefinitionError as error:
        note = f"kept as they are: {error.reason}"
    except UnsupportedTypeError as error:
        note = f"kept as they are: {error}"
    return Conversion(raw.ontology_tag, raw.serialization_format, raw.decoder, None, raw.keeps_publish_time, note)
