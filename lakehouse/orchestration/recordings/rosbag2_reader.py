"""rosbag2 recordings: a directory of storage files (sqlite3 or MCAP), usually with a `metadata.yaml`.

The metadata file, where there is one, is the recording's index: it says which files belong to it, in which order, and
how many messages each topic has. A directory whose recorder was killed has none; then its storage files are taken.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lakehouse.orchestration.recordings.compression import BrokenChunkError, expand_zstd, expand_zstd_file
from lakehouse.orchestration.recordings.errors import UnreadableRecordingError, UnsupportedRecordingError
from lakehouse.orchestration.recordings.mcap_reader import McapRecording
from lakehouse.orchestration.recordings.recording import (
    DEFAULT_BLOCK_BYTES,
    Attachment,
    Channel,
    RawMessages,
    Recording,
)
from lakehouse.orchestration.recordings.sqlite3_reader import MAGIC as SQLITE_MAGIC
from lakehouse.orchestration.recordings.sqlite3_reader import Sqlite3Recording

METADATA_NAME = "metadata.yaml"
STORAGE_SUFFIXES = frozenset({".db3", ".mcap"})

_NUMBER_AT_END = re.compile(r"_\d+$")
_LARGEST_METADATA = 16 << 20


class Rosbag2Recording(Recording):
    """A rosbag2 directory.

    Raises:
        UnreadableRecordingError: If its metadata or all of its storage files cannot be read.
        UnsupportedRecordingError: If messages are serialized or compressed in a way we do not read.
    """

    def __init__(self, path: Path) -> None:
        self._information = _read_information(path)
        names = _storage_names(path, self._information)
        present = [path / name for name in names if (path / name).is_file()]
        super().__init__(path.name, present + ([path / METADATA_NAME] if self._information else []))
        self._parts: list[Recording] = []
        self._stack = ExitStack()
        try:
            for name in names:
                if path / name not in present:
                    self.note_damage(f"the file '{name}' is missing")
            self.details["has_metadata_file"] = bool(self._information)
            self._open(present)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def read_messages(
        self, channels: Collection[Channel] | None = None, block_bytes: int = DEFAULT_BLOCK_BYTES
    ) -> Iterator[RawMessages]:
        wanted = {channel.id for channel in (self.channels if channels is None else channels)}
        for number, part in enumerate(self._parts):
            ours = {
                channel.id: mine
                for channel in part.channels
                if (mine := self._channel_of_part.get((number, channel.id))) is not None and mine.id in wanted
            }
            chosen = [channel for channel in part.channels if channel.id in ours]
            for block in part.read_messages(chosen, block_bytes):
                renamed = dataclasses.replace(block, channel=ours[block.channel.id])
                yield self._decompressed(renamed) if self._compresses_messages else renamed
            for channel_id, reasons in part.unusable.items():
                self.unusable.setdefault(ours[channel_id].id, Counter()).update(reasons)
            for damage in part.damages:
                self.note_damage(f"{part.name}: {damage}")

    def attachments(self) -> Iterator[Attachment]:
        for part in self._parts:
            yield from part.attachments()

    def _open(self, files: list[Path]) -> None:
        information = self._information or {}
        mode = str(information.get("compression_mode") or "none").lower()
        compression = str(information.get("compression_format") or "")
        if mode != "none" and compression != "zstd":
            raise UnsupportedRecordingError(self.name, f"its compression {compression[:40]!r} is not supported")
        self._compresses_messages = mode == "message"
        for file in files:
            try:
                opened = self._expanded(file) if mode == "file" else file
                self._parts.append(self._stack.enter_context(_open_storage(opened)))
            except (UnreadableRecordingError, BrokenChunkError, OSError) as error:
                reason = error.reason if isinstance(error, UnreadableRecordingError) else "it cannot be read"
                self.note_damage(f"{file.name}: {reason}")
        if not self._parts:
            raise UnreadableRecordingError(self.name, "; ".join(self.damages) or "it has no storage file")
        self.format = self._parts[0].format if self._parts[0].format.startswith("rosbag2") else "rosbag2-mcap"
        self.details |= {
            key: information[key] for key in ("version", "ros_distro", "custom_data") if information.get(key)
        }
        records = [record for part in self._parts for record in part.details.get("metadata_records", [])]
        if records:
            self.details["metadata_records"] = records
        self._combine(information)

    def _combine(self, information: dict[str, Any]) -> None:
        """One channel per topic and type over all files, with what the metadata file says about it."""
        described = {
            (item.get("name"), item.get("type")): (item, entry.get("message_count"))
            for entry in _dictionaries(information.get("topics_with_message_count"))
            if isinstance(item := entry.get("topic_metadata"), dict)
        }
        self._channel_of_part: dict[tuple[int, int], Channel] = {}
        groups: dict[tuple[str, str], list[tuple[int, Channel]]] = {}
        for number, part in enumerate(self._parts):
            for channel in part.channels:
                groups.setdefault((channel.topic, channel.message_type), []).append((number, channel))
        for (topic, message_type), members in groups.items():
            first = next((channel for _, channel in members if channel.schema), members[0][1])
            topic_metadata, count = described.get((topic, message_type), ({}, None))
            encoding = str(topic_metadata.get("serialization_format") or first.encoding)
            if encoding != "cdr":
                raise UnsupportedRecordingError(
                    self.name, f"messages of topic '{topic[:100]}' are serialized as '{encoding[:40]}', not as CDR"
                )
            counts = [channel.message_count for _, channel in members]
            own_count = None if None in counts else sum(number or 0 for number in counts)
            known = ("name", "type", "serialization_format")
            extra = {key: value for key, value in topic_metadata.items() if key not in known and value}
            mine = dataclasses.replace(
                first,
                id=len(self.channels) + 1,
                encoding=encoding,
                message_count=count if isinstance(count, int) else own_count,
                metadata=first.metadata | extra,
            )
            self.channels.append(mine)
            self._channel_of_part.update({(number, channel.id): mine for number, channel in members})
        for key, (_, described_count) in described.items():
            if described_count and key not in groups:
                self.note_damage(f"{described_count:,} messages of topic '{key[0]}' are in none of the files")

    def _decompressed(self, block: RawMessages) -> RawMessages:
        payloads, kept = [], []
        for index, payload in enumerate(block.payloads):
            try:
                payloads.append(expand_zstd(payload))
                kept.append(index)
            except BrokenChunkError as error:
                self.unusable.setdefault(block.channel.id, Counter())[str(error)] += 1
        return dataclasses.replace(
            block,
            log_time_ns=block.log_time_ns[kept],
            publish_time_ns=None if block.publish_time_ns is None else block.publish_time_ns[kept],
            sequence=None if block.sequence is None else block.sequence[kept],
            payloads=payloads,
        )

    def _expanded(self, file: Path) -> Path:
        """A file compressed as a whole, expanded into a temporary directory."""
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        target = folder / file.stem
        expand_zstd_file(file, target)
        return target


def find_storage_files(path: Path) -> list[Path]:
    """The storage files of one rosbag2 in a directory without metadata; none if they do not look like one recording."""
    files = [file for file in path.iterdir() if file.suffix in STORAGE_SUFFIXES and file.is_file()]
    bags = {_NUMBER_AT_END.sub("", file.stem) for file in files}
    if len(bags) != 1 or len({file.suffix for file in files}) != 1:
        return []
    return sorted(files, key=lambda file: (len(file.stem), file.stem))


def _open_storage(file: Path) -> Recording:
    with file.open("rb") as opened:
        start = opened.read(16)
    return Sqlite3Recording(file) if start == SQLITE_MAGIC else McapRecording(file)


def _read_information(path: Path) -> dict[str, Any]:
    """What the metadata file says; empty if there is none.

    Raises:
        UnreadableRecordingError: If it is damaged.
    """
    file = path / METADATA_NAME
    if not file.is_file():
        return {}
    if file.stat().st_size > _LARGEST_METADATA:
        raise UnreadableRecordingError(path.name, f"{METADATA_NAME} is implausibly large")
    try:
        document = YAML(typ="safe").load(file.read_text(encoding="utf-8", errors="replace"))
        information = document["rosbag2_bagfile_information"]
    except (YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableRecordingError(path.name, f"{METADATA_NAME} is not that of a rosbag2") from error
    if not isinstance(information, dict) or not isinstance(information.get("relative_file_paths"), list):
        raise UnreadableRecordingError(path.name, f"{METADATA_NAME} does not name the files of the recording")
    return information


def _storage_names(path: Path, information: dict[str, Any]) -> list[str]:
    if not information:
        return [file.name for file in find_storage_files(path)]
    # Some versions write the directory in front; a name that leads anywhere else is none of this recording.
    return [PurePosixPath(str(name)).name for name in information["relative_file_paths"]]


def _dictionaries(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
