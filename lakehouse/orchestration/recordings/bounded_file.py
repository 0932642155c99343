"""A file that is read by lengths found in it, none of which is believed."""

from pathlib import Path
from typing import BinaryIO


class TruncatedError(ValueError):
    """The file ends before what it announces."""


class BoundedFile:
    """Reads exactly what is asked for, or fails before allocating anything."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self.size = path.stat().st_size

    @property
    def position(self) -> int:
        return self._file.tell()

    @property
    def remaining(self) -> int:
        return self.size - self._file.tell()

    def seek(self, position: int) -> None:
        if not 0 <= position <= self.size:
            raise TruncatedError(f"position {position:,} lies outside the file of {self.size:,} bytes")
        self._file.seek(position)

    def skip(self, length: int) -> None:
        self.seek(self._file.tell() + length)

    def read(self, length: int) -> bytes:
        if length > self.remaining:
            raise TruncatedError(f"{length:,} bytes announced, {self.remaining:,} left in the file")
        data = self._file.read(length)
        if len(data) != length:
            raise TruncatedError("the file shrank while it was read")
        return data

    def close(self) -> None:
        self._file.close()
