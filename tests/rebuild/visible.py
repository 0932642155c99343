"""Everything a client can see of a lake, message by message, so that two lakes can be compared."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from mosaicolabs import MosaicoClient
from pyarrow import flight

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.server import Gateway
from tests.flight_gateway.raw_client import RawClient

QUERIES: tuple[dict[str, Any], ...] = (
    {"sequence": {"name": {"$match": "dr*"}}},
    {"sequence": {"user_metadata": {"driver.name": {"$eq": "ann"}}}},
    {"topic": {"ontology_tag": {"$eq": "Plain"}}},
    {"topic": {"user_metadata": {"place": {"$eq": "roof"}}}},
    {"topic": {"created_at_ns": {"$gt": 0}}},
    {"ontology": {"Plain.x": {"$geq": 1.0}, "include_timestamp_range": True}},
)


@contextmanager
def served(settings: Settings) -> Iterator[tuple[Lakehouse, int]]:
    """A gateway on a free port."""
    with Lakehouse.open(settings) as lakehouse:
        gateway = Gateway(lakehouse, port=0)
        port = gateway.start()
        try:
            yield lakehouse, port
        finally:
            gateway.stop(grace=2)


def settings_of(home: Path, database_url: str, store: Mapping[str, str] | None = None) -> Settings:
    """Settings of a lake whose warehouse is in its home, or where `store` says."""
    return Settings.load(home=home, db_url=database_url, **(store or {"store_endpoint": ""}))


def visible(port: int) -> dict[str, Any]:
    """By what was asked, what came back: infos byte by byte, rows with their schema."""
    raw = RawClient(port)
    seen: dict[str, Any] = {"names": raw.names()}
    try:
        with flight.FlightClient(f"grpc://127.0.0.1:{port}") as client:
            for sequence in seen["names"]:
                info = raw.unary("GetFlightInfo", resource_locator=sequence)
                seen[f"info {sequence}"] = info
                seen[f"notes {sequence}"] = raw.action("sequence_notification_list", locator=sequence)
                for endpoint in flight.FlightInfo.deserialize(info).endpoints:
                    topic = json.loads(endpoint.app_metadata)["resource_locator"]
                    seen[f"info {topic}"] = raw.unary("GetFlightInfo", resource_locator=topic)
                    seen[f"schema {topic}"] = raw.schema(topic)
                    seen[f"notes {topic}"] = raw.action("topic_notification_list", locator=topic)
                    seen[f"window {topic}"] = raw.unary(
                        "GetFlightInfo", resource_locator=topic, timestamp_ns_start=2, timestamp_ns_end=4
                    )
                    seen[f"rows {topic}"] = client.do_get(endpoint.ticket).read_all()
        for number, query in enumerate(QUERIES):
            seen[f"query {number}"] = raw.action("query", **query)
        seen["sdk"] = _through_the_sdk(port)
    finally:
        raw.close()
    return seen


def _through_the_sdk(port: int) -> dict[str, Any]:
    with MosaicoClient.connect("127.0.0.1", port) as client:
        found = {}
        for name in client.list_sequences():
            sequence = client.sequence_handler(name)
            assert sequence is not None
            found[name] = (
                sequence.topics,
                sequence.user_metadata,
                sequence.created_timestamp,
                sequence.total_size_bytes,
                [(session.locator, session.locked, session.completed_timestamp) for session in sequence.sessions],
            )
        return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What was asked for that is answered differently."""
    return [
        asked for asked in sorted(before.keys() | after.keys()) if not _are_equal(before.get(asked), after.get(asked))
    ]


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, pa.Table | pa.Schema):
        return isinstance(other, type(one)) and bool(one.equals(other, check_metadata=True))
    return bool(one == other)
