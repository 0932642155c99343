"""Names in the lake for recordings, topics and message types.

The lake forbids some characters that recordings use (protocol section 5.3); what the name loses is kept in metadata.
"""

import re
from collections.abc import Collection
from pathlib import Path

from lakehouse.catalog.locators import MAX_NAME_LENGTH
from lakehouse.ontology.registry import load_models
from lakehouse.orchestration.recordings.containers import RECORDING_SUFFIXES

_OUTSIDE_SEQUENCE = re.compile(r"[^A-Za-z0-9_\-+=@~,()\[\]{}]+")
_OUTSIDE_TOPIC = re.compile(r"[^A-Za-z0-9_\-+=@~,()\[\]{}/]+")
_OUTSIDE_TAG = re.compile(r"[^A-Za-z0-9_]+")
_OUTSIDE_KEY = re.compile(r"[^A-Za-z0-9_ ]+")
_COMPRESSION_SUFFIXES = frozenset({".zstd", ".zst"})
_LONGEST_TOPIC = MAX_NAME_LENGTH // 2

RAW_TAG = "Raw"
"""Tag of topics whose messages are kept as they are, because nothing here can decode them."""


def sequence_name_of(path: Path | str) -> str:
    """The sequence a recording becomes: its file or directory name without ending, other characters as `_`."""
    name = Path(path).name
    while Path(name).suffix.lower() in RECORDING_SUFFIXES | _COMPRESSION_SUFFIXES:
        name = Path(name).stem
    return _OUTSIDE_SEQUENCE.sub("_", name)[:_LONGEST_TOPIC].strip("_") or "recording"


def topic_path_of(topic: str, taken: Collection[str]) -> str:
    """The path of a recorded topic: without outer slashes, dots as slashes, other characters as `_`.

    Args:
        topic: The name as recorded.
        taken: Paths in use; a number is appended to stay apart from them.
    """
    parts = [part for part in _OUTSIDE_TOPIC.sub("_", topic.replace(".", "/")).split("/") if part]
    path = "/".join(parts)[:_LONGEST_TOPIC].rstrip("/") or "unnamed"
    candidate, number = path, 1
    while candidate in taken:
        number += 1
        candidate = f"{path}_{number}"
    return candidate


def ontology_tag_of(message_type: str) -> str:
    """The tag of messages without an ontology model: the name of their type, without its package.

    The whole name is used where the short one is that of an ontology model, which such messages are not.
    """
    parts = [_OUTSIDE_TAG.sub("_", part) for part in re.split(r"[/.]|::", message_type)]
    parts = [part for part in parts if part.strip("_")]
    if not parts:
        return RAW_TAG
    if parts[-1] not in load_models():
        return parts[-1]
    whole = [part for part in parts if part not in ("msg", "srv", "action")]
    return "_".join(whole) if len(whole) > 1 else f"{whole[0]}_message"


def metadata_key_of(key: str, taken: Collection[str] = ()) -> str:
    """A text as a key of user metadata: letters, digits, `_` and spaces."""
    name = _OUTSIDE_KEY.sub("_", key)[:_LONGEST_TOPIC] or "_"
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
