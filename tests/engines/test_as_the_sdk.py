"""Spark, Trino, DuckDB and Polars say of the very same tables what the official SDK says: every message, every field,
and all that is known about sequences, sessions and topics.

Each as documented (docs/sql.md), on every kind of catalog it opens, against a lake behind a running gateway.
"""

import json
from typing import Any

import pytest

from lakehouse.catalog import audit
from lakehouse.contracts.results import VALIDATION_RESULTS
from tests.engines import told_by_sdk
from tests.engines.conftest import READERS
from tests.engines.engines_under_test import Engine
from tests.engines.plain_values import plain_rows
from tests.engines.recordings import BROKEN_DRIVE, DRIVE, MESSAGES, MODELS, as_stored
from tests.engines.shared_lake import SharedLake, verdict_on_robot

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.parametrize("place", READERS, indirect=True, scope="session"),
]
RECORDED = ["robot_0", "robot_1", "robot_2", DRIVE, BROKEN_DRIVE]
OF_RECORDED = f"sequence IN ({', '.join(map(repr, RECORDED))})"


def test_all_tables_are_there(engine: Engine, lake: SharedLake) -> None:
    metadata = {"sequences", "sessions", "topics", "notifications", "validation_results", "audit_log"}
    assert engine.tables("mosaico") == metadata
    with lake.catalog() as catalog:
        of_type = {name: {table for _, table in catalog.list_tables(name)} for name in ("imu", "gps", "odd")}
    assert {name: engine.tables(name) for name in of_type} == of_type
    assert of_type["imu"] >= {"imu", "sdk_imu"}


def test_messages_are_those_of_the_sdk(engine: Engine, lake: SharedLake) -> None:
    found = engine.rows(f"SELECT path, table_identifier FROM mosaico.topics WHERE sequence = '{DRIVE}'")
    tables = dict(found)
    assert tables.keys() == MODELS.keys()
    for path, table in tables.items():
        fields, expected = lake.messages[path]
        assert len(expected) == MESSAGES
        columns = ", ".join(["timestamp_ns", f"{engine.micros('recorded_at')} AS micros", *fields])
        rows = engine.rows(f"SELECT {columns} FROM {table} WHERE sequence = '{DRIVE}' ORDER BY timestamp_ns")
        assert rows == expected, path


def test_rows_of_every_type_are_those_that_clients_get(engine: Engine, lake: SharedLake) -> None:
    expected = as_stored(lake.read("robot_1", "odd"))
    names = ", ".join(expected.schema.names)
    found = engine.rows(f"SELECT {names} FROM odd.odd WHERE sequence = 'robot_1' ORDER BY timestamp_ns")
    by_column = list(zip(*found, strict=True))
    for name, values in zip(expected.schema.names, by_column, strict=True):
        assert list(values) == plain_rows(expected[name].to_pylist()), name


def test_sequences_sessions_and_topics_are_those_of_the_sdk(engine: Engine, lake: SharedLake) -> None:
    lake.sdk.clear_sequence_handlers_cache()
    named = {name for (name,) in engine.rows("SELECT sequence FROM mosaico.sequences")}
    assert named == set(lake.sdk.list_sequences())

    def ask(table: str, columns: str, order: str) -> list[Any]:
        return engine.rows(f"SELECT {columns} FROM mosaico.{table} WHERE {OF_RECORDED} ORDER BY {order}")

    created = engine.micros("created_at")
    columns = f"sequence, created_at_ns, {created} AS micros, user_metadata"
    assert with_json(ask("sequences", columns, "sequence")) == told_by_sdk.sequence_rows(lake.sdk, RECORDED)
    sessions = ask("sessions", "session, sequence, created_at_ns, completed_at_ns", "session")
    assert sessions == told_by_sdk.session_rows(lake.sdk, RECORDED)
    columns = (
        "sequence, path, session, ontology_tag, serialization_format, row_count, total_bytes, chunk_count, "
        "start_ns, end_ns, created_at_ns, user_metadata"
    )
    assert with_json(ask("topics", columns, "topic")) == told_by_sdk.topic_rows(lake.sdk, RECORDED)


def with_json(rows: list[Any]) -> list[Any]:
    """Rows whose last column is read as JSON."""
    return [(*row, json.loads(text)) for *row, text in rows]


def test_notes_verdicts_and_audits_are_those_of_the_lake(engine: Engine, lake: SharedLake) -> None:
    created = engine.micros("created_at")
    notes = engine.rows(
        f"SELECT resource, notification_type, message, {created} AS micros FROM mosaico.notifications "
        f"WHERE sequence = '{BROKEN_DRIVE}'"
    )
    told = told_by_sdk.notification_rows(lake.sdk, BROKEN_DRIVE)
    assert sorted(notes) == told
    assert {resource for resource, *_ in told} == {BROKEN_DRIVE, f"{BROKEN_DRIVE}/sdk/imu"}

    columns = [column.name for column in VALIDATION_RESULTS.columns if column.time_of is None]
    verdicts = engine.rows(f"SELECT {', '.join(columns)} FROM mosaico.validation_results WHERE sequence = 'robot_0'")
    row = verdict_on_robot()
    assert verdicts == [tuple(row.get(column) for column in columns)]

    with lake.lakehouse.database.snapshot() as connection:
        (entry,) = audit.latest_entries(connection, limit=1, resource="mistake")
    audited = engine.rows(
        "SELECT id, at_ns, operation, resource, actor, door, origin, details FROM mosaico.audit_log "
        "WHERE resource = 'mistake'"
    )
    expected = (entry.id, entry.at_ns, entry.operation, entry.resource, entry.actor, entry.door, entry.origin)
    assert with_json(audited) == [(*expected, entry.details)]
    assert entry.operation == "sequence_delete"
