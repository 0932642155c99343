"""A prefix of an object store (or of anything else that fsspec opens) that recordings are uploaded below.

A recording is an object with a known ending at any depth, or everything below a `metadata.yaml`: a rosbag2 directory.
Its sequence is named after the way from the prefix to it. Objects are copied to local disk for as long as they are
ingested. By default nothing is changed in the store; on request what was ingested moves to `ingested/` below the
prefix, and what was refused to `rejected/` beside an object with the reason.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from lakehouse.catalog.errors import ConfigurationError, StorageError
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.landing.place import LandedRecording, LandingPlace
from lakehouse.orchestration.landing.quarantine import REASON_SUFFIX, Quarantine
from lakehouse.orchestration.recordings.containers import RECORDING_SUFFIXES
from lakehouse.orchestration.recordings.naming import sequence_name_of
from lakehouse.orchestration.recordings.rosbag2_reader import METADATA_NAME

INGESTED, REJECTED = "ingested", "rejected"
# When it landed, before what the sender says: of a mounted directory `created` is the change time of the inode.
_TIMES = ("LastModified", "last_modified", "created", "mtime")


class LandingPrefix(LandingPlace):
    """One such prefix.

    Args:
        url: `s3://bucket/incoming`, `file:///mnt/fleet`, ...
        options: For the file system behind it.
        moves: Whether to put aside what was ingested or refused.
        quarantine: Where reasons are kept, whatever becomes of the objects.
    """

    # An object that is uploaded in parts bears the time when its upload began.
    lookback_s = 86_400.0

    def __init__(self, url: str, options: dict[str, Any], *, moves: bool, quarantine: Quarantine) -> None:
        try:
            self._file_system, root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError, OSError) as error:
            raise ConfigurationError(f"LAKEHOUSE_LANDING_PREFIX cannot be opened: {type(error).__name__}") from error
        self._root = str(root).rstrip("/")
        self._moves = moves
        self._quarantine = quarantine

    @classmethod
    def of(cls, settings: Settings, quarantine: Quarantine) -> "LandingPrefix | None":
        """The prefix that the settings name; None if they name none.

        An `s3://` prefix is in the store of the warehouse, where that is an object store.

        Raises:
            ConfigurationError: If it cannot be opened.
        """
        if not settings.landing_prefix:
            return None
        options: dict[str, Any] = {}
        if settings.landing_prefix.startswith("s3://"):
            if settings.store_endpoint.startswith(("http://", "https://")):
                options["endpoint_url"] = settings.store_endpoint
            if access_key := settings.store_access_key.get_secret_value():
                options |= {"key": access_key, "secret": settings.store_secret_key.get_secret_value()}
        moves = settings.landing_afterwards == "move"
        return cls(settings.landing_prefix, options, moves=moves, quarantine=quarantine)

    def waiting(self) -> Iterator[LandedRecording]:
        with _translated("listed"):
            self._file_system.invalidate_cache()
            objects = self._listed()
        directories = {path.rpartition("/")[0] for path in objects if path.rpartition("/")[2] == METADATA_NAME}
        members: dict[str, list[dict[str, Any]]] = {}
        for path, info in objects.items():
            inside = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in directories), None)
            if inside is not None and inside != self._root:
                members.setdefault(inside, []).append(info)
            elif PurePosixPath(path).suffix.lower() in RECORDING_SUFFIXES:
                members[path] = [info]
        for path, infos in members.items():
            yield LandedRecording(
                self._file_system.unstrip_protocol(path),
                self._name(path),
                sum(int(info.get("size") or 0) for info in infos),
                max(map(_modified_ns, infos)),
            )

    def _listed(self) -> dict[str, dict[str, Any]]:
        """Every object that waits.

        One flat listing, a thousand objects a request. Going around what was put aside would cost a request for each
        directory beside it, and a rosbag2 recording is a directory.
        """
        found: dict[str, dict[str, Any]] = self._file_system.find(self._root, detail=True)
        return {path: info for path, info in found.items() if not self._is_put_aside(path)}

    def holds(self, location: str) -> bool:
        return "://" in location and f"{self._path(location)}/".startswith(f"{self._root}/")

    def sequence_of(self, location: str) -> str:
        return sequence_name_of(self._name(self._path(location)))

    def exists(self, location: str) -> bool:
        with _translated("looked at"):
            return bool(self._file_system.exists(self._path(location)))

    @contextmanager
    def fetched(self, location: str) -> Iterator[Path]:
        path = self._path(location)
        with tempfile.TemporaryDirectory(prefix="lakehouse-landing-") as directory:
            target = Path(directory) / PurePosixPath(path).name
            with _translated("read"):
                if self._file_system.isdir(path):
                    for member in self._file_system.find(path):
                        local = target / PurePosixPath(member).relative_to(path)
                        local.parent.mkdir(parents=True, exist_ok=True)
                        self._file_system.get_file(member, str(local))
                else:
                    self._file_system.get_file(path, str(target))
            yield target

    def mark_ingested(self, location: str) -> str:
        return self._move(location, INGESTED)

    def quarantine(self, location: str, reason: str) -> str:
        moved = self._move(location, REJECTED)
        self._quarantine.note(self._name(self._path(location)), f"{reason} ({moved})")
        if moved != location:
            with _translated("written"):
                self._file_system.pipe_file(f"{self._path(moved)}{REASON_SUFFIX}", f"{reason}\n".encode())
        return moved

    def find_ingested(self, sequence: str) -> str | None:
        aside = f"{self._root}/{INGESTED}"
        with _translated("listed"):
            found = self._file_system.find(aside)
        for path in found:
            for candidate in (path, path.rpartition("/")[0]):
                if candidate != aside and sequence_name_of(self._name(candidate, aside)) == sequence:
                    return str(self._file_system.unstrip_protocol(candidate))
        return None

    def _move(self, location: str, subfolder: str) -> str:
        source = self._path(location)
        if not self._moves or self._is_put_aside(source):
            return location
        target = f"{self._root}/{subfolder}/{source[len(self._root) + 1 :]}"
        with _translated("moved"):
            if self._file_system.exists(target):
                target_path = PurePosixPath(target)
                target = str(target_path.with_name(f"{target_path.stem}-{time.time_ns()}{target_path.suffix}"))
            self._file_system.mv(source, target, recursive=True)
        return str(self._file_system.unstrip_protocol(target))

    def _is_put_aside(self, path: str) -> bool:
        return path[len(self._root) + 1 :].partition("/")[0] in (INGESTED, REJECTED)

    def _name(self, path: str, root: str | None = None) -> str:
        """The way from the prefix to a recording, as one name."""
        return path[len(root or self._root) + 1 :].replace("/", "_")

    def _path(self, location: str) -> str:
        return str(self._file_system._strip_protocol(location)).rstrip("/")


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        # The store's client refuses to ask for it: a bucket of a name that no bucket can have, say.
        text = f"recordings below LAKEHOUSE_LANDING_PREFIX could not be {verb}: there can be no such place"
        raise ConfigurationError(text) from error
    except _faults_of_stores() as error:
        raise StorageError(
            f"recordings below LAKEHOUSE_LANDING_PREFIX could not be {verb}: {type(error).__name__}"
        ) from error


def _faults_of_stores() -> tuple[type[Exception], ...]:
    """What file systems raise when the store behind them fails; imported when the first one does.

    fsspec asks for errors of the operating system, time-outs among them. Its client for S3 turns the store's answers
    into these, and lets through what its own clients say when there is no answer. Anything else is a mistake of a
    program, which does not get better by being tried again.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS


def _modified_ns(info: dict[str, Any]) -> int:
    found = next((info[key] for key in _TIMES if info.get(key) is not None), 0)
    seconds = found.timestamp() if isinstance(found, datetime) else float(found)
    return int(seconds * 1e9)
