"""The warehouse: where table files live, on a local file system or in an S3-compatible object store.

Files are named by URI. As everywhere in Iceberg, what follows the scheme is taken literally, never percent-decoded.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from lakehouse.catalog.errors import ConfigurationError, MissingFileError, StorageError
from lakehouse.catalog.object_store import ObjectStore
from lakehouse.catalog.settings import Settings

if TYPE_CHECKING:
    # Importing it imports pandas where that is installed, and every command would start by half a second later.
    from pyarrow.dataset import FileFormat, Fragment

_FILE_SCHEME = "file://"
_S3_SCHEME = "s3://"

# They wait for the disk, not for the processor; idle ones cost nothing.
_synchronizers = ThreadPoolExecutor(16, thread_name_prefix="fsync")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file found by listing.

    Attributes:
        size: Bytes.
        modified_ns: Time of the last change in Unix nanoseconds.
    """

    uri: str
    size: int
    modified_ns: int


class Warehouse:
    """All reading, writing, listing and deleting of table files goes through here.

    Every method raises `StorageError` when the store fails, and `FileNotFoundError` never escapes.
    """

    def __init__(self, file_system: FileSystem, uri: str, object_store: ObjectStore | None = None) -> None:
        """Wrap `file_system`, with `uri` (without trailing slash) as the root of everything.

        Args:
            file_system: Arrow's view of the storage.
            uri: The root.
            object_store: The store behind it, unless it is a local file system.
        """
        self._file_system = file_system
        self.uri = uri.rstrip("/")
        self._object_store = object_store
        self._scheme = _S3_SCHEME if object_store else _FILE_SCHEME

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the warehouse that `settings` name; a local one is created when missing.

        Raises:
            ConfigurationError: If the location cannot be used.
            StorageError: If an object store does not answer.
        """
        location = settings.warehouse_uri
        return cls._open_local(location) if location.startswith(_FILE_SCHEME) else cls._open_s3(location, settings)

    @classmethod
    def _open_local(cls, location: str) -> Self:
        root = location.removeprefix(_FILE_SCHEME)
        if "#" in root or "?" in root:
            raise ConfigurationError("the directory of the warehouse must not contain '#' or '?'")
        try:
            Path(root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the directory of the warehouse cannot be created: {error.strerror}") from error
        return cls(LocalFileSystem(), location)

    @classmethod
    def _open_s3(cls, location: str, settings: Settings) -> Self:
        object_store = ObjectStore.from_settings(settings)
        object_store.check()
        return cls(object_store.file_system(), location, object_store)

    def iceberg_properties(self) -> dict[str, str]:
        """Properties, besides `warehouse`, with which a PyIceberg catalog reads and writes the same files."""
        properties = self._object_store.iceberg_properties() if self._object_store else {}
        return {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", **properties}

    def check_reachable(self) -> None:
        """Look at the root.

        Raises:
            StorageError: If it cannot be reached, or is gone.
        """
        with _translated("read"):
            if self._file_system.get_file_info(self._path(self.uri)).type == FileType.NotFound:
                raise StorageError("the warehouse is gone")

    def holds(self, uri: str) -> bool:
        """Whether a file of that name would be in the same storage, which is all that can be read."""
        if self._object_store is None:
            return uri.startswith(_FILE_SCHEME)
        return uri.startswith(f"{_S3_SCHEME}{self._object_store.bucket}/")

    def exists(self, uri: str) -> bool:
        with _translated("read"):
            found: FileInfo = self._file_system.get_file_info(self._path(uri))
            return bool(found.type == FileType.File)

    @property
    def is_local(self) -> bool:
        """Whether files are opened by the operating system, rather than asked for over a network."""
        return self._object_store is None

    def open_input(self, uri: str) -> pa.NativeFile:
        """Open a file for random access. An open file of an object store holds nothing but its name and size."""
        with _translated("read"):
            return self._file_system.open_input_file(self._path(uri))

    @property
    def file_system(self) -> FileSystem:
        """Arrow's view of the storage."""
        return self._file_system

    def fragment(self, file_format: "FileFormat", uri: str, size: int) -> "Fragment":
        """A file of `size` bytes as part of an Arrow dataset."""
        return file_format.make_fragment(self._path(uri), self._file_system, file_size=size)

    def read(self, uri: str) -> bytes:
        """A whole file, in one request."""
        with _translated("read"):
            if self._object_store is not None:
                return self._object_store.read(self._key(uri))
            with self._file_system.open_input_file(self._path(uri)) as stream:
                return bytes(stream.read())

    def read_range(self, uri: str, start: int, stop: int) -> bytes:
        """A part of a file, in one request."""
        with _translated("read"):
            if self._object_store is not None:
                return self._object_store.read_range(self._key(uri), start, stop)
            with self._file_system.open_input_file(self._path(uri)) as stream:
                return bytes(stream.read_at(stop - start, start))

    def read_tail(self, uri: str, length: int) -> tuple[bytes, int]:
        """The last bytes of a file, all of it if it is shorter, and its size; in one request."""
        with _translated("read"):
            if self._object_store is not None:
                return self._object_store.read_tail(self._key(uri), length)
            with self._file_system.open_input_file(self._path(uri)) as stream:
                size = stream.size()
                return bytes(stream.read_at(min(length, size), max(size - length, 0))), size

    def open_output(self, uri: str) -> pa.NativeFile:
        """Create or replace a file; its directories are created. Not durable before `make_durable`."""
        path = self._path(uri)
        with _translated("written"):
            if self.is_local:
                os.makedirs(os.path.dirname(path), exist_ok=True)
            return self._file_system.open_output_stream(path)

    def make_durable(self, *uris: str) -> None:
        """Return when closed files survive a power cut, their names included.

        Many at once cost little more than one: a journaling file system writes what several threads wait for together.
        An object store has made an object durable when it was closed.
        """
        if self.is_local and uris:
            paths = [*map(self._path, uris), *self._directories_of(uris)]
            with _translated("written"):
                for _ in _synchronizers.map(_synchronize, paths):
                    pass

    def begin_making_contents_durable(self, uri: str) -> Future[None]:
        """Start the first half of `make_durable`, for one file of many; the result is there when it is done."""
        if self.is_local:
            return _synchronizers.submit(self._make_contents_durable, uri)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _make_contents_durable(self, uri: str) -> None:
        with _translated("written"):
            _synchronize(self._path(uri))

    def make_names_durable(self, uris: Iterable[str]) -> None:
        """The second half of `make_durable`: each directory is synchronised once."""
        if self.is_local:
            with _translated("written"):
                for directory in self._directories_of(uris):
                    _synchronize(directory)

    def _directories_of(self, uris: Iterable[str]) -> list[str]:
        """Every directory from the files up to the root: any of them may have been created just now."""
        root = self._path(self.uri)
        directories: set[str] = set()
        for uri in uris:
            directory = os.path.dirname(self._path(uri))
            while directory not in directories and len(directory) >= len(root):
                directories.add(directory)
                directory = os.path.dirname(directory)
        return sorted(directories, key=len, reverse=True)

    def delete(self, uris: Iterable[str]) -> None:
        """Delete files; one that is missing is fine. All are tried before an error is raised."""
        failure: StorageError | None = None
        if self._object_store is not None:
            self._object_store.delete(map(self._key, uris))
            return
        for uri in uris:
            try:
                with _translated("deleted"):
                    self._file_system.delete_file(self._path(uri))
            except FileNotFoundError:
                continue
            except StorageError as error:
                failure = error
        if failure is not None:
            raise failure

    def discard(self, uris: Iterable[str]) -> None:
        """Delete files that nothing will ever refer to. What cannot be deleted is left for orphan cleanup."""
        with suppress(StorageError):
            self.delete(uris)

    def list_files(self, prefix_uri: str) -> Iterator[StoredFile]:
        """All files below a directory; nothing when it does not exist.

        An object store lists a thousand files a request, whatever their directories; disks one directory at a time.
        """
        pending = [self._path(prefix_uri)]
        while pending:
            selector = FileSelector(pending.pop(), allow_not_found=True, recursive=not self.is_local)
            with _translated("listed"):
                found = self._file_system.get_file_info(selector)
            for info in found:
                if info.type == FileType.Directory and self.is_local:
                    pending.append(info.path)
                elif info.type == FileType.File:
                    yield StoredFile(f"{self._scheme}{info.path}", int(info.size), int(info.mtime_ns or 0))

    def list_directories(self, uri: str) -> list[str]:
        """URIs of the directories directly below a directory; none when it does not exist."""
        with _translated("listed"):
            found = self._file_system.get_file_info(FileSelector(self._path(uri), allow_not_found=True))
        return [f"{self._scheme}{info.path}" for info in found if info.type == FileType.Directory]

    def abort_unfinished(self, begun_before_ns: int) -> int:
        """Throw away what broken uploads left in an object store before they became files.

        Args:
            begun_before_ns: Unix nanoseconds; whatever was begun later may be under way.

        Returns:
            How many there were.
        """
        if self._object_store is None:
            return 0
        stale = [upload for upload in self._object_store.unfinished_uploads() if upload.begun_ns < begun_before_ns]
        for upload in stale:
            self._object_store.abort(upload)
        return len(stale)

    def _key(self, uri: str) -> str:
        assert self._object_store is not None
        bucket, _, key = self._path(uri).partition("/")
        if bucket != self._object_store.bucket:
            raise StorageError("a file lies outside the warehouse's storage")
        return key

    def _path(self, uri: str) -> str:
        if not uri.startswith(self._scheme):
            raise StorageError("a file lies outside the warehouse's storage")
        return uri[len(self._scheme) :]


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    """Texts of the operating system name paths of the server; users get none of them."""
    try:
        yield
    except FileNotFoundError:
        if verb == "deleted":
            raise
        raise MissingFileError("a file of the warehouse is missing") from None
    except (OSError, pa.ArrowException) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise StorageError(f"a file of the warehouse could not be {verb}: {reason}") from error


def _synchronize(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
