"""What a sequence and its topics remember of the recording they come from, as user metadata.

The blocks `_ros_` and `_mcap_` of a topic are those of the official SDK's bridges, which rebuild recordings from them.
"""

import base64
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from lakehouse.catalog.actor import current_actor
from lakehouse.catalog.recording_losses import RECORDING_KEY
from lakehouse.catalog.records import SequenceRecord
from lakehouse.orchestration.recordings.decoding.channels import ROS_ENCODINGS, ros_definitions
from lakehouse.orchestration.recordings.decoding.ros_types import normalized_type
from lakehouse.orchestration.recordings.errors import MessageDefinitionError
from lakehouse.orchestration.recordings.naming import metadata_key_of
from lakehouse.orchestration.recordings.recording import Channel, Recording, SourceFile

CONTENT_HASH_PATH = f"{RECORDING_KEY}.content_sha256"
"""Where the metadata of a sequence has the content hash."""
DECODER_PACKAGE = "mosaico-lakehouse"


def content_hash(files: list[SourceFile]) -> str:
    """One SHA-256 (hexadecimal) for the content of a recording: of its file, or of the digests of its files by name."""
    if len(files) == 1:
        return files[0].sha256
    listing = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))
    return hashlib.sha256(listing.encode()).hexdigest()


def ingested_content_hash(sequence: SequenceRecord) -> str | None:
    """The content hash of the recording a sequence was made from; None if it was not made from one."""
    block = sequence.user_metadata.get(RECORDING_KEY)
    found = block.get("content_sha256") if isinstance(block, dict) else None
    return found if isinstance(found, str) else None


def ingested_selection(sequence: SequenceRecord) -> list[str] | None:
    """Which topics of its recording a sequence was made from, as names and patterns; None if from all."""
    return sequence.user_metadata.get(RECORDING_KEY, {}).get("selection")


def sequence_metadata(recording: Recording, selection: Sequence[str] | None = None) -> dict[str, Any]:
    """The `recording` block of a sequence; `selection` names the topics that were asked for, None for all."""
    return {
        RECORDING_KEY: {
            "name": recording.name,
            "format": recording.format,
            "content_sha256": content_hash(recording.source),
            "files": [{"name": file.name, "size": file.size, "sha256": file.sha256} for file in recording.source],
            "decoder": DECODER_PACKAGE,
            "decoder_version": importlib.metadata.version(DECODER_PACKAGE),
            # A Dagster run by its id, or whoever gave the command.
            "ingested_by": current_actor().name,
            "selection": None if selection is None else sorted(selection),
            "topics": [
                {"topic": channel.topic, "message_type": channel.message_type, "message_count": channel.message_count}
                for channel in recording.channels
            ],
            "details": storable(recording.details),
        }
    }


def topic_metadata(recording: Recording, channel: Channel, note: str = "") -> dict[str, Any]:
    """What a topic keeps: the SDK's block for its kind, and a `recording` block with what that has no place for."""
    block: dict[str, Any] = {
        "topic": channel.topic,
        "message_type": channel.message_type,
        "encoding": channel.encoding,
        "message_count": channel.message_count,
        "channel": storable(channel.metadata),
    }
    if note:
        block["note"] = note
    result: dict[str, Any] = {}
    if channel.encoding in ROS_ENCODINGS:
        result["_ros_"] = _ros_block(recording, channel)
    elif channel.message_type:
        result["_mcap_"] = {
            "schema_name": channel.message_type,
            "schema_encoding": channel.schema_encoding,
            "schema_def": _definition_text(channel),
            "channel_name": channel.topic,
            "channel_encoding": channel.encoding,
            "source_file": recording.name,
        }
    result[RECORDING_KEY] = block
    return storable(result)


def _ros_block(recording: Recording, channel: Channel) -> dict[str, Any]:
    message_type = normalized_type(channel.message_type)
    block: dict[str, Any] = {"msgtype": message_type}
    try:
        constants = ros_definitions(channel)[message_type][0]
        block["enums"] = {name: value for name, _, value in constants}
    except (MessageDefinitionError, KeyError):
        block["enums"] = {}
    if channel.schema:
        block["msgdef"] = _definition_text(channel)
    return block | {"source_file": recording.name}


def _definition_text(channel: Channel) -> str:
    if channel.schema_encoding == "protobuf":
        return base64.b64encode(channel.schema).decode("ascii")
    return channel.schema.decode("utf-8", errors="replace")


def storable(value: Any) -> Any:
    """A copy with keys that user metadata allows, and texts without the zero characters that databases refuse."""
    if isinstance(value, Mapping):
        result: dict[str, Any] = {}
        for key, child in value.items():
            result[metadata_key_of(str(key), result)] = storable(child)
        return result
    if isinstance(value, (list, tuple)):
        return [storable(child) for child in value]
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", errors="replace").decode("utf-8")
    return value
