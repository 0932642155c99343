"""The folder that fleets drop recordings into.

A recording is a file with a known ending or a rosbag2 directory. What was ingested moves to `ingested/`, what cannot be
ingested to `rejected/` beside a text file with the reason; anything else in the folder is left alone.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lakehouse.orchestration.recordings.containers import RECORDING_SUFFIXES, is_rosbag2_directory

INGESTED, REJECTED = "ingested", "rejected"
REASON_SUFFIX = ".reason.txt"


@dataclass(frozen=True, slots=True)
class DroppedRecording:
    """A recording that waits.

    Attributes:
        path: The file or directory.
        size: Total bytes.
        modified_ns: Latest change of content or place, Unix ns: a file dropped again counts as new.
    """

    path: Path
    size: int
    modified_ns: int

    @property
    def version(self) -> str:
        """Changes whenever the content may have changed."""
        return f"{self.path.name}:{self.size}:{self.modified_ns}"

    def is_settled(self, settle_time_s: float) -> bool:
        return time.time_ns() - self.modified_ns >= settle_time_s * 1e9


class DropFolder:
    """One drop folder; created on first use."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def waiting(self) -> Iterator[DroppedRecording]:
        """The recordings in the folder, by name. One that vanishes while we look is passed over."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.root.iterdir()):
            if path.name.startswith(".") or path.name in (INGESTED, REJECTED):
                continue
            try:
                if path.is_dir() and is_rosbag2_directory(path):
                    files = [file.stat() for file in path.rglob("*") if file.is_file()]
                elif path.suffix.lower() in RECORDING_SUFFIXES and path.is_file():
                    files = [path.stat()]
                else:
                    continue
            except FileNotFoundError:
                continue
            modified_ns = max((max(file.st_mtime_ns, file.st_ctime_ns) for file in files), default=0)
            yield DroppedRecording(path, sum(file.st_size for file in files), modified_ns)

    def mark_ingested(self, path: Path) -> None:
        """Move a recording of this folder aside; recordings elsewhere stay where they are."""
        self._move(path, INGESTED)

    def reject(self, path: Path, reason: str) -> None:
        """Move a recording of this folder aside and leave the reason beside it."""
        moved = self._move(path, REJECTED)
        if moved is not None:
            moved.with_name(moved.name + REASON_SUFFIX).write_text(reason + "\n", encoding="utf-8")

    def _move(self, path: Path, subfolder: str) -> Path | None:
        path = path.resolve()
        if path.parent != self.root.resolve() or not path.exists():
            return None
        target_folder = self.root / subfolder
        target_folder.mkdir(exist_ok=True)
        target = target_folder / path.name
        number = 1
        while target.exists():
            number += 1
            target = target_folder / f"{path.stem}-{number}{path.suffix}"
        return Path(shutil.move(path, target))
