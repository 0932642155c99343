"""What a batch tells Dagster: about each recording as soon as it is through, with partitions in the order it was given.

At once, because a run that is killed never tells what it has kept back. In order, because Dagster's ranges of
partitions, and the runs that a backfill is divided into, go by the order in which partitions were made.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.orchestration.defs.ingestion.outcome import Outcome
from lakehouse.orchestration.defs.ingestion.report_metadata import Metadata


@dataclass(frozen=True)
class BatchEvents:
    """How a batch tells what happened, on the thread that runs it.

    Attributes:
        uploaded: Tells of a sequence, which becomes a partition.
        committed: Likewise.
        refused: Tells of a recording by name, the reason, and where it lies now.
        expected: Makes a sequence a partition before it is told of; false if it was one.
        unexpected: Takes that back.
    """

    uploaded: Callable[[str, Metadata], None]
    committed: Callable[[str, Metadata], None]
    refused: Callable[[str, str, str], None]
    expected: Callable[[str], bool]
    unexpected: Callable[[str], None]


class Telling:
    """Tells what came of recordings that overtake each other.

    The few that were overtaken get their partition before they are through, and lose it if they do not become a
    sequence. A run that is killed leaves such a partition empty; its next attempt fills it.

    Args:
        names: The sequences that recordings are to become, in order.
    """

    def __init__(self, lake: Lakehouse, events: BatchEvents, names: Iterable[str]) -> None:
        self._lake = lake
        self._events = events
        self._not_through = dict.fromkeys(names)
        self._made: set[str] = set()

    def tell(self, name: str, outcome: Outcome) -> None:
        """Tell what came of the recording that was to become the sequence `name`."""
        if name in self._not_through and outcome.events and not outcome.refused:
            for earlier in self._not_through:
                if earlier == name:
                    break
                if earlier not in self._made and self._events.expected(earlier):
                    self._made.add(earlier)
        self._not_through.pop(name, None)
        for tell in outcome.events:
            tell()
        if name in self._made and not self._is_in_lake(name):
            self._made.discard(name)
            self._events.unexpected(name)

    def _is_in_lake(self, name: str) -> bool:
        try:
            self._lake.sequences.get(name)
        except NotFoundError:
            return False
        return True
