"""Which reader opens a recording: decided by content, and by name only where contents look alike."""

from pathlib import Path

from lakehouse.orchestration.recordings import mcap_reader
from lakehouse.orchestration.recordings.errors import UnreadableRecordingError, UnsupportedRecordingError
from lakehouse.orchestration.recordings.mcap_reader import McapRecording
from lakehouse.orchestration.recordings.recording import Recording

RECORDING_SUFFIXES = frozenset({".mcap", ".bag", ".db3"})
"""Endings of files that may be recordings."""

METADATA_NAME = "metadata.yaml"


def is_rosbag2_directory(path: Path) -> bool:
    """Whether a directory is a rosbag2 recording, judged by its metadata file."""
    return path.is_dir() and (path / METADATA_NAME).is_file()


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
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(mcap_reader.MAGIC[:5]):
        return McapRecording(path)
    if not start:
        raise UnreadableRecordingError(path.name, "the file is empty")
    raise UnsupportedRecordingError(
        path.name, "it is neither MCAP, nor a ROS 1 bag, nor a rosbag2 directory or storage file"
    )
