"""Copies of immutable files of an object store on the local disk, so that a new process need not fetch them again.

Metadata files, manifest lists and manifests never change under their name. A copy is kept with a digest of its bytes:
whatever a crash, a full disk or another program made of it, a copy that does not fit its digest is as good as none.
Any number of processes may share a directory; files appear in it whole, and one that vanishes is read from the store.
"""

import hashlib
import logging
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_DIGEST_BYTES = 32
_SUFFIX = ".copy"
# The directory is looked through after so large a share of its capacity was written.
_SHARE_BETWEEN_TRIMS = 16
_KEPT_BY_TRIM = 0.9

logger = logging.getLogger(__name__)


class FileCache:
    """Bytes of files by URI, least recently used ones removed.

    Args:
        directory: Where the copies are; created when first needed.
        capacity: Bytes they may take in all. Between two looks at the directory a sixteenth more is possible.
    """

    def __init__(self, directory: Path, capacity: int) -> None:
        self._directory = directory
        self._capacity = capacity
        self._untrimmed = capacity  # what earlier processes left is looked at first
        self._is_usable = capacity > 0
        self._lock = threading.Lock()

    def get(self, uri: str) -> bytes | None:
        """The file; None if there is no sound copy."""
        if not self._is_usable:
            return None
        path = self._path(uri)
        try:
            stored = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content = stored[_DIGEST_BYTES:]
        if stored[:_DIGEST_BYTES] != _digest(uri, content):
            logger.warning("a copy of a metadata file in %s is damaged and is fetched again", self._directory)
            with suppress(OSError):
                path.unlink()
            return None
        return content

    def put(self, uri: str, content: bytes) -> None:
        """Keep a copy. A disk that does not take it makes reading slower, not wrong."""
        if not self._is_usable or len(content) * _SHARE_BETWEEN_TRIMS > self._capacity:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._write(self._path(uri), _digest(uri, content) + content)
        except FileNotFoundError:
            return  # somebody made room meanwhile
        except OSError as error:
            logger.warning("metadata files cannot be kept in %s: %s", self._directory, error.strerror)
            self._is_usable = False
            return
        with self._lock:
            self._untrimmed += len(content)
            is_due = self._untrimmed * _SHARE_BETWEEN_TRIMS >= self._capacity
            if is_due:
                self._untrimmed = 0
        if is_due:
            self._trim()

    def _write(self, path: Path, content: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _trim(self) -> None:
        """Remove what was used longest ago, and what a process that was killed left half-written."""
        found: list[tuple[float, int, str]] = []
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat()
                    found.append((status.st_mtime, status.st_size, entry.path))
        size = sum(each for _, each, _ in found)
        if size <= self._capacity:
            return
        for _, of_file, path in sorted(found):
            with suppress(OSError):
                os.unlink(path)
            size -= of_file
            if size <= _KEPT_BY_TRIM * self._capacity:
                return

    def _path(self, uri: str) -> Path:
        return self._directory / (hashlib.blake2b(uri.encode(), digest_size=20).hexdigest() + _SUFFIX)


def _digest(uri: str, content: bytes) -> bytes:
    digest = hashlib.blake2b(uri.encode(), digest_size=_DIGEST_BYTES)
    digest.update(b"\0")
    digest.update(content)
    return digest.digest()
