"""Sequences found by one exact value in their metadata, through the index over it."""

import json
from typing import Any

from sqlalchemy import Connection, select

from lakehouse.catalog.control_plane.metadata_index import KEY_LENGTH, nodes, not_indexed, path_text
from lakehouse.catalog.control_plane.rows import sequence_record
from lakehouse.catalog.control_plane.schema import metadata_paths, sequence_metadata, sequences
from lakehouse.catalog.control_plane.value_keys import value_key
from lakehouse.catalog.records import SequenceRecord


def sequences_with(connection: Connection, path: str, value: str) -> list[SequenceRecord]:
    """The sequences whose metadata has this text at this path (`recording.content_sha256`), in creation order.

    Args:
        path: Keys with dots between, positions in brackets.
        value: Must fit into the index whole: at most `KEY_LENGTH` bytes with its type.
    """
    key = value_key(value)
    assert key is not None
    assert len(key) <= KEY_LENGTH
    holders = (
        select(sequence_metadata.c.owner_id)
        .join(metadata_paths, sequence_metadata.c.path_id == metadata_paths.c.id)
        .where(metadata_paths.c.path == path, sequence_metadata.c.value == key)
    )
    found = list(connection.execute(select(sequences).where(sequences.c.id.in_(holders))))
    unusual = select(sequences).where(sequences.c.id.in_(not_indexed(sequence_metadata)))
    found += [row for row in connection.execute(unusual) if _has(json.loads(row.user_metadata), path, value)]
    return [sequence_record(row) for row in sorted(found, key=lambda row: row.id)]


def _has(user_metadata: dict[str, Any], path: str, value: str) -> bool:
    return any(node == value and path_text(steps) == path for steps, node in nodes(user_metadata))
