"""Which reader opens a recording: decided by content, and by name only where contents look alike."""

from collections.abc import Callable
from pathlib import Path

from lakehouse.orchestration.recordings import mcap_reader, rosbag1_reader, sqlite3_reader
from lakehouse.orchestration.recordings.errors import UnreadableRecordingError, UnsupportedRecordingError
from lakehouse.orchestration.recordings.mcap_reader import McapRecording
from lakehouse.orchestration.recordings.recording import Recording
from lakehouse.orchestration.recordings.rosbag1_reader import Rosbag1Recording
from lakehouse.orchestration.recordings.rosbag2_reader import METADATA_NAME, Rosbag2Recording, find_storage_files
from lakehouse.orchestration.recordings.sqlite3_reader import Sqlite3Recording

_READERS: dict[bytes, Callable[[Path], Recording]] = {
    mcap_reader.MAGIC[:5]: McapRecording,
    rosbag1_reader.MAGIC_PREFIX: Rosbag1Recording,
    sqlite3_reader.MAGIC: Sqlite3Recording,
}

RECORDING_SUFFIXES = frozenset({".mcap", ".bag", ".db3"})
"""Endings of files that may be recordings."""


def is_rosbag2_directory(path: Path) -> bool:
    """Whether a directory is one rosbag2 recording: it has a metadata file, or nothing but the files of one."""
    return path.is_dir() and ((path / METADATA_NAME).is_file() or bool(find_storage_files(path)))


def open_recording(path: Path | str) -> Recording:
    """Open a recording of any supported kind.

    Args:
        path: An MCAP file, a ROS 1 bag (v2.0), a rosbag2 directory, or one storage file of a rosbag2.

    Raises:
        UnreadableRecordingError: If the file or directory is missing or damaged beyond use.
        UnsupportedRecordingError: If it is of a kind or version we do not read.
    """
    path = Path(path)
    try:
        return _open(path)
    except OSError as error:
        raise UnreadableRecordingError(path.name, error.strerror or "it cannot be read") from error


def _open(path: Path) -> Recording:
    if not path.exists():
        raise UnreadableRecordingError(path.name, "there is no such file")
    if path.is_dir():
        if is_rosbag2_directory(path):
            return Rosbag2Recording(path)
        raise UnsupportedRecordingError(path.name, "the directory is not one rosbag2 recording")
    with path.open("rb") as file:
        start = file.read(16)
    for magic, reader in _READERS.items():
        if start.startswith(magic):
            return reader(path)
    if path.suffix.lower() in RECORDING_SUFFIXES:
        damaged = "its beginning is damaged, or it is something else under this name"
        raise UnreadableRecordingError(path.name, damaged if start else "the file is empty")
    raise UnsupportedRecordingError(
        path.name, "it is neither MCAP, nor a ROS 1 bag, nor a rosbag2 directory or storage file"
    )
