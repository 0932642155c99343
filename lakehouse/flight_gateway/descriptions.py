"""FlightInfo of sequences and topics, as a superset that clients of the generations 0.5 to 0.7 all understand.

Clients ignore keys they do not know, so the older `info` block and the `mosaico:*` schema metadata stand next to the
newer keys (protocol section 16.3).
"""

from typing import Any

import pyarrow as pa
from pyarrow import flight

from lakehouse.catalog.reading.topic_reader import TopicReader, WindowInfo
from lakehouse.catalog.records import SequenceRecord, SessionRecord, SessionState, TopicRecord, TopicState
from lakehouse.catalog.sequences import SequenceDescription
from lakehouse.catalog.time_window import TimeInterval, TimeWindow
from lakehouse.flight_gateway import payloads
from lakehouse.flight_gateway.tickets import Ticket

_UNKNOWN_COUNT = -1


def describe_sequence(
    description: SequenceDescription, window: TimeWindow, reader: TopicReader, descriptor: flight.FlightDescriptor
) -> flight.FlightInfo:
    """One endpoint per topic, over all sessions."""
    topics_by_session: dict[int, list[str]] = {session.id: [] for session in description.sessions}
    for topic in description.topics:
        topics_by_session[topic.session_id].append(str(topic.locator))
    app_metadata = {
        "resource_locator": description.sequence.name,
        "created_at_ns": description.sequence.created_at_ns,
        "user_metadata": description.sequence.user_metadata,
        "sessions": [_session(session, topics_by_session[session.id]) for session in description.sessions],
    }
    return _flight_info(
        pa.schema([], metadata=_sequence_schema_metadata(description.sequence)),
        descriptor,
        [_endpoint(topic, window, reader) for topic in description.topics],
        app_metadata,
    )


def describe_topic(
    topic: TopicRecord, window: TimeWindow, reader: TopicReader, descriptor: flight.FlightDescriptor
) -> flight.FlightInfo:
    """One endpoint, and the schema of the rows."""
    app_metadata = {"resource_locator": str(topic.locator), "user_metadata": topic.user_metadata}
    schema = with_metadata(stored_schema(topic), topic_schema_metadata(topic))
    return _flight_info(schema, descriptor, [_endpoint(topic, window, reader)], app_metadata)


def list_entry(sequence_name: str) -> flight.FlightInfo:
    """What ListFlights says about a sequence. The ticket is never used."""
    descriptor = flight.FlightDescriptor.for_path(sequence_name)
    return _flight_info(pa.schema([]), descriptor, [flight.FlightEndpoint(sequence_name.encode(), [])], None)


def stored_schema(topic: TopicRecord) -> pa.Schema:
    """The schema exactly as uploaded; empty before the upload began."""
    return pa.schema([]) if topic.arrow_schema is None else pa.ipc.read_schema(pa.py_buffer(topic.arrow_schema))


def topic_schema_metadata(topic: TopicRecord, rows: WindowInfo | None = None) -> dict[str, bytes]:
    """`mosaico:*` schema metadata; `rows` adds what the 0.6 generation wants to know about a stream of rows."""
    properties: dict[str, Any] = {
        "ontology_tag": topic.ontology_tag,
        "serialization_format": topic.serialization_format.value,
    }
    if rows is not None:
        properties["message_count"] = rows.row_count
        properties["timestamp_ns_min"] = rows.interval.start_ns if rows.interval else None
        properties["timestamp_ns_max"] = rows.interval.end_ns if rows.interval else None
    return {
        "mosaico:context": b"topic",
        "mosaico:user_metadata": payloads.encode(topic.user_metadata),
        "mosaico:properties": payloads.encode(properties),
    }


def with_metadata(schema: pa.Schema, metadata: dict[str, bytes]) -> pa.Schema:
    """The schema with more schema-level metadata."""
    return schema.with_metadata({**(schema.metadata or {}), **metadata})


def rows_in_window(topic: TopicRecord, window: TimeWindow, reader: TopicReader) -> WindowInfo:
    """Exact interval and count of the topic's rows inside the window."""
    if window.is_unbounded or topic.row_count == 0:
        return WindowInfo(topic.interval, topic.row_count)
    return reader.window_info(topic, window)


def _sequence_schema_metadata(sequence: SequenceRecord) -> dict[str, bytes]:
    return {"mosaico:context": b"sequence", "mosaico:user_metadata": payloads.encode(sequence.user_metadata)}


def _session(session: SessionRecord, topics: list[str]) -> dict[str, Any]:
    return {
        "locator": str(session.locator),
        # A public UUID of its own: the one that entitles to add topics is told to the session's creator only.
        "uuid": session.public_uuid,
        "created_at_ns": session.created_at_ns,
        "completed_at_ns": session.completed_at_ns,
        "locked": session.state is SessionState.FINALIZED,
        "topics": topics,
    }


def _endpoint(topic: TopicRecord, window: TimeWindow, reader: TopicReader) -> flight.FlightEndpoint:
    inside = None if window.is_unbounded else rows_in_window(topic, window, reader)
    app_metadata = {
        "resource_locator": str(topic.locator),
        "created_at_ns": topic.created_at_ns,
        "completed_at_ns": topic.completed_at_ns,
        "locked": topic.state is TopicState.FINALIZED,
        "ontology_tag": topic.ontology_tag,
        "serialization_format": topic.serialization_format.value,
        "user_metadata": topic.user_metadata,
        "data_info": {
            "interval": _interval(topic.interval),
            "total_row_count": topic.row_count,
            "total_bytes": topic.total_bytes,
            "total_chunks_count": topic.chunk_count,
        },
        "time_window_info": inside and {"interval": _interval(inside.interval), "row_count": inside.row_count},
        "info": {
            "chunks_number": topic.chunk_count,
            "total_bytes": topic.total_bytes,
            "timestamp": _interval(topic.interval),
        },
    }
    ticket = Ticket.issue(topic, window).to_bytes()
    return flight.FlightEndpoint(ticket, [], app_metadata=payloads.encode(app_metadata))


def _interval(interval: TimeInterval | None) -> dict[str, int] | None:
    return None if interval is None else {"start_ns": interval.start_ns, "end_ns": interval.end_ns}


def _flight_info(
    schema: pa.Schema,
    descriptor: flight.FlightDescriptor,
    endpoints: list[flight.FlightEndpoint],
    app_metadata: dict[str, Any] | None,
) -> flight.FlightInfo:
    return flight.FlightInfo(
        schema,
        descriptor,
        endpoints,
        _UNKNOWN_COUNT,
        _UNKNOWN_COUNT,
        ordered=False,
        app_metadata=b"" if app_metadata is None else payloads.encode(app_metadata),
    )
