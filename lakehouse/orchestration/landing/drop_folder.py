"""The folder that fleets drop recordings into.

A recording is a file with a known ending or a rosbag2 directory. What was ingested moves to `ingested/`, what cannot be
ingested to `rejected/` beside a text file with the reason; anything else in the folder is left alone.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.orchestration.landing.place import LandedRecording, LandingPlace
from lakehouse.orchestration.landing.quarantine import Quarantine
from lakehouse.orchestration.recordings.containers import RECORDING_SUFFIXES, is_rosbag2_directory
from lakehouse.orchestration.recordings.naming import sequence_name_of

INGESTED, REJECTED = "ingested", "rejected"


class DropFolder(LandingPlace):
    """One drop folder; created on first use. Files elsewhere on the file system may be ingested too, and stay there."""

    lookback_s = 60.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rejected = Quarantine(root / REJECTED)

    def waiting(self) -> Iterator[LandedRecording]:
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.iterdir():
            if path.name.startswith(".") or path.name in (INGESTED, REJECTED):
                continue
            try:
                if path.suffix.lower() in RECORDING_SUFFIXES and path.is_file():
                    files = [path.stat()]
                elif path.is_dir() and is_rosbag2_directory(path):
                    # Its own time too: a directory that moves in keeps the times of its files.
                    files = [path.stat(), *(file.stat() for file in path.rglob("*") if file.is_file())]
                else:
                    continue
            except FileNotFoundError:
                continue
            # The time of the file system here: what a robot with a wrong clock says may be years ahead.
            modified_ns = max((file.st_ctime_ns for file in files), default=0)
            yield LandedRecording(str(path), path.name, sum(file.st_size for file in files), modified_ns)

    def holds(self, location: str) -> bool:
        return "://" not in location

    def sequence_of(self, location: str) -> str:
        return sequence_name_of(location)

    def exists(self, location: str) -> bool:
        return Path(location).exists()

    @contextmanager
    def fetched(self, location: str) -> Iterator[Path]:
        yield Path(location)

    def mark_ingested(self, location: str) -> str:
        return self._move(location, INGESTED)

    def quarantine(self, location: str, reason: str) -> str:
        moved = self._move(location, REJECTED)
        if moved != location:
            self.rejected.note(Path(moved).name, reason)
        return moved

    def find_ingested(self, sequence: str) -> str | None:
        folder = self.root / INGESTED
        found = [path for path in folder.iterdir() if sequence_name_of(path) == sequence] if folder.is_dir() else []
        return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None

    def _move(self, location: str, subfolder: str) -> str:
        """Move a recording that waits; others stay where they are."""
        path = Path(location).resolve()
        if path.parent != self.root.resolve() or not path.exists():
            return location
        target_folder = self.root / subfolder
        target_folder.mkdir(exist_ok=True)
        target = target_folder / path.name
        number = 1
        while target.exists():
            number += 1
            target = target_folder / f"{path.stem}-{number}{path.suffix}"
        return str(shutil.move(path, target))
