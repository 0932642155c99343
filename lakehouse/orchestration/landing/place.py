"""A place where recordings land: what waits there, and what becomes of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LandedRecording:
    """A recording that waits.

    Attributes:
        location: Where it is: a path, or a URL of an object store.
        name: What its sequence is named after: the file or directory name, below a prefix with the way to it.
        size: Total bytes.
        modified_ns: Latest change of content or place, Unix ns: a file that landed again counts as new.
    """

    location: str
    name: str
    size: int
    modified_ns: int

    @property
    def version(self) -> str:
        """Changes whenever the content may have changed."""
        return f"{self.name}:{self.size}:{self.modified_ns}"


class LandingPlace(ABC):
    """One drop folder or prefix of an object store."""

    lookback_s: float = 0.0
    """By how many seconds a recording may turn up later than its `modified_ns` says."""

    @abstractmethod
    def waiting(self) -> Iterator[LandedRecording]:
        """The recordings that wait, in any order. One that vanishes meanwhile is passed over.

        Raises:
            StorageError: If the place cannot be read.
        """

    @abstractmethod
    def holds(self, location: str) -> bool:
        """Whether `location` is in this place, waiting or not."""

    @abstractmethod
    def sequence_of(self, location: str) -> str:
        """The sequence that a recording at a location becomes."""

    @abstractmethod
    def exists(self, location: str) -> bool:
        """Whether there is something at a location of this place."""

    @abstractmethod
    def fetched(self, location: str) -> AbstractContextManager[Path]:
        """The recording as a local file or directory, for as long as the context lasts.

        Raises:
            StorageError: If it cannot be read.
        """

    @abstractmethod
    def mark_ingested(self, location: str) -> str:
        """Put a recording aside that is in the lake; returns where it is now."""

    @abstractmethod
    def quarantine(self, location: str, reason: str) -> str:
        """Put a recording aside that cannot be ingested, and leave the reason; returns where it is now."""

    @abstractmethod
    def find_ingested(self, sequence: str) -> str | None:
        """Where a recording is that was put aside and would become this sequence; None if nobody knows."""
