"""User metadata taken apart into paths and values, so that queries find it through an index.

Every node below the root has a row: scalars with a sortable key, arrays and objects without. Metadata of unusual size
is left out as a whole and marked; queries then look into the JSON text of those few.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Select, Table, insert, select, text

from lakehouse.catalog.control_plane.schema import metadata_paths, sequence_metadata, topic_metadata
from lakehouse.catalog.control_plane.value_keys import value_key

# Longer keys are cut: an entry of an index has to fit into a database page several times.
KEY_LENGTH = 256
MAX_NODES = 4096
MAX_PATH_LENGTH = 1000
# The path of the root, which has a row only where nothing else has.
NOT_INDEXED = ""
_KEY = re.compile(r"[A-Za-z0-9_\- ]+")
_LOOKUP_SIZE = 500
# Every query with a wildcard takes all paths apart.
_PATHS_KEPT = 20_000

# A step down: an object key, or a position in an array.
Step = str | int


def index_sequence_metadata(connection: Connection, sequence_id: int, user_metadata: dict[str, Any]) -> None:
    """Make a new sequence findable by its metadata, in the transaction that creates it."""
    _index(connection, sequence_metadata, sequence_id, user_metadata)


def index_topic_metadata(connection: Connection, topic_id: int, user_metadata: dict[str, Any]) -> None:
    """Make a new topic findable by its metadata, in the transaction that creates it."""
    _index(connection, topic_metadata, topic_id, user_metadata)


def not_indexed(values: Table) -> Select[Any]:
    """The owners whose metadata is too large to be in the index."""
    marker = select(metadata_paths.c.id).where(metadata_paths.c.path == NOT_INDEXED)
    return select(values.c.owner_id).where(values.c.path_id.in_(marker))


def nodes(user_metadata: dict[str, Any]) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Every node below the root with the steps that lead there."""
    pending: list[tuple[tuple[Step, ...], Any]] = [((), user_metadata)]
    while pending:
        steps, value = pending.pop()
        if steps:
            yield steps, value
        if isinstance(value, dict):
            pending.extend(((*steps, key), child) for key, child in value.items())
        elif isinstance(value, list):
            pending.extend(((*steps, position), child) for position, child in enumerate(value))


def path_text(steps: tuple[Step, ...]) -> str:
    """`logs[3].id`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


@lru_cache(maxsize=_PATHS_KEPT)
def parse_path(path: str) -> tuple[Step, ...]:
    """The inverse of `path_text`."""
    return tuple(
        int(position) if position else key for key, position in re.findall(r"([A-Za-z0-9_\- ]+)|\[(\d+)\]", path)
    )


def _index(connection: Connection, values: Table, owner_id: int, user_metadata: dict[str, Any]) -> None:
    found = _rows(user_metadata)
    if not found:
        return
    path_ids = _path_ids(connection, {path: keys for path, (keys, _) in found.items()})
    connection.execute(
        insert(values),
        [
            {
                "owner_id": owner_id,
                "path_id": path_ids[path],
                "value": None if key is None else key[:KEY_LENGTH],
                "is_cut": key is not None and len(key) > KEY_LENGTH,
            }
            for path, (_, key) in found.items()
        ],
    )


def _rows(user_metadata: dict[str, Any]) -> dict[str, tuple[str, bytes | None]]:
    """From path to its keys and the key of its value."""
    marker: dict[str, tuple[str, bytes | None]] = {NOT_INDEXED: ("", None)}
    found: dict[str, tuple[str, bytes | None]] = {}
    for steps, value in nodes(user_metadata):
        keys = [step for step in steps if isinstance(step, str)]
        path = path_text(steps)
        if len(found) >= MAX_NODES or len(path) > MAX_PATH_LENGTH or not all(map(_KEY.fullmatch, keys)):
            return marker
        found[path] = ".".join(keys), value_key(value)
    return found


def _path_ids(connection: Connection, keys_of_paths: dict[str, str]) -> dict[str, int]:
    found = _known_paths(connection, list(keys_of_paths))
    # In one order everywhere, so that two transactions adding the same paths never wait for each other crosswise.
    missing = sorted(path for path in keys_of_paths if path not in found)
    if missing:
        connection.execute(
            text("INSERT INTO metadata_paths (key_path, path) VALUES (:key_path, :path) ON CONFLICT DO NOTHING"),
            [{"key_path": keys_of_paths[path], "path": path} for path in missing],
        )
        found |= _known_paths(connection, missing)
    return found


def _known_paths(connection: Connection, paths: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(paths), _LOOKUP_SIZE):
        query = select(metadata_paths.c.path, metadata_paths.c.id).where(
            metadata_paths.c.path.in_(paths[start : start + _LOOKUP_SIZE])
        )
        found |= {row.path: row.id for row in connection.execute(query)}
    return found
