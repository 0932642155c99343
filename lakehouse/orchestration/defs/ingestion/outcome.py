"""What a batch is given, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lakehouse.catalog.errors import LakehouseError, quoted
from lakehouse.orchestration.landing.places import LandingPlaces


@dataclass(frozen=True, slots=True)
class Item:
    """One recording of a batch.

    Attributes:
        sequence: The sequence it is to become.
        location: Where the recording is; None if it has to be found.
    """

    sequence: str
    location: str | None

    @property
    def name(self) -> str:
        """For people. Recordings in different folders may share it."""
        return self.location.rstrip("/").rpartition("/")[2] if self.location else self.sequence


@dataclass
class Outcome:
    """What came of recordings: names of sequences, and for what is not in the lake the reason.

    Attributes:
        quarantined: Uploaded, and kept from being committed.
        events: What is to be told about it, not told yet.
        fault: What ended the batch, and nobody foresaw.
    """

    done: list[str] = field(default_factory=list)
    quarantined: dict[Item, str] = field(default_factory=dict)
    refused: dict[Item, str] = field(default_factory=dict)
    postponed: dict[Item, LakehouseError] = field(default_factory=dict)
    events: list[Callable[[], None]] = field(default_factory=list)
    fault: Exception | None = None

    def add(self, other: Outcome) -> None:
        """Take in what came of others."""
        self.done += other.done
        self.quarantined |= other.quarantined
        self.refused |= other.refused
        self.postponed |= other.postponed
        self.fault = self.fault or other.fault


def items_of(locations: Sequence[str], places: LandingPlaces) -> list[Item]:
    """Recordings by where they are, each to become the sequence that its name gives.

    Raises:
        BadRequestError: If one is not in a place that recordings are taken from.
    """
    return [Item(places.of(location).sequence_of(location.rstrip("/")), location) for location in locations]


def describe(reasons: dict[Item, str]) -> str:
    """Recordings with their reasons in one text."""
    return "; ".join(f"{quoted(item.name)}: {reason}" for item, reason in reasons.items())
