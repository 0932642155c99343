"""Commits as the REST protocol has them: the difference between two states of a table, and what must still hold.

Pure functions over the fields of table metadata (Iceberg REST API, `CommitTableRequest`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lakehouse.catalog.iceberg.column_history import COLUMNS_PROPERTY
from lakehouse.catalog.iceberg.table_documents import MAIN_BRANCH


def updates(base: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What changes a table from one state to the next, of all that our own commits change (REST API, `TableUpdate`)."""
    known_schemas = {schema["schema-id"] for schema in base["schemas"]}
    new_schemas = [schema for schema in after["schemas"] if schema["schema-id"] not in known_schemas]
    for schema in new_schemas:
        yield {"action": "add-schema", "schema": schema, "last-column-id": after["last-column-id"]}
    if after["current-schema-id"] != base["current-schema-id"]:
        # -1: the one that was added last; the server numbers them by itself.
        yield {"action": "set-current-schema", "schema-id": -1 if new_schemas else after["current-schema-id"]}
    mark = (after.get("properties") or {}).get(COLUMNS_PROPERTY)
    if mark != (base.get("properties") or {}).get(COLUMNS_PROPERTY):
        yield {"action": "set-properties", "updates": {COLUMNS_PROPERTY: mark}}
    before_ids = _snapshot_ids(base)
    for snapshot in after.get("snapshots") or []:
        if snapshot["snapshot-id"] not in before_ids:
            yield {"action": "add-snapshot", "snapshot": snapshot}
    if main_snapshot(after) != main_snapshot(base):
        yield {"action": "set-snapshot-ref", "ref-name": MAIN_BRANCH, **after["refs"][MAIN_BRANCH]}
    if removed := removed_snapshots(base, after):
        yield {"action": "remove-snapshots", "snapshot-ids": removed}


def requirements(base: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What must still hold of the table for these changes to apply (REST API, `TableRequirement`)."""
    yield {"type": "assert-table-uuid", "uuid": base["table-uuid"]}
    yield {"type": "assert-ref-snapshot-id", "ref": MAIN_BRANCH, "snapshot-id": main_snapshot(base)}
    if removed_snapshots(base, after):
        # They were chosen by what tags and branches do not name.
        for name, reference in (base.get("refs") or {}).items():
            if name != MAIN_BRANCH:
                yield {"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": reference["snapshot-id"]}
    if after["current-schema-id"] != base["current-schema-id"]:
        yield {"type": "assert-current-schema-id", "current-schema-id": base["current-schema-id"]}
        yield {"type": "assert-last-assigned-field-id", "last-assigned-field-id": base["last-column-id"]}


def removed_snapshots(base: Mapping[str, Any], after: Mapping[str, Any]) -> list[int]:
    """Ids of the snapshots that expire."""
    return sorted(_snapshot_ids(base) - _snapshot_ids(after))


def _snapshot_ids(fields: Mapping[str, Any]) -> set[int]:
    return {snapshot["snapshot-id"] for snapshot in fields.get("snapshots") or []}


def main_snapshot(fields: Mapping[str, Any]) -> int | None:
    current = fields.get("current-snapshot-id")
    return None if current in (None, -1) else current
