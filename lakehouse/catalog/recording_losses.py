"""What of a recording is not in the lake, as the metadata of its sequence has it.

Ingestion writes it, contracts judge by it, and people ask for it; queries find it as `recording.missing_messages`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lakehouse.catalog.records import TopicRecord

RECORDING_KEY = "recording"
DAMAGES_KEY, MISSING_KEY = "damages", "missing_messages"
MOST_DAMAGES = 20
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Losses:
    """What is missing of a recording.

    Attributes:
        damages: What was broken in the container, in words.
        messages: Messages that are known to have no row.
    """

    damages: tuple[str, ...]
    messages: int

    @property
    def count(self) -> int:
        """0 if everything is there."""
        return len(self.damages) + self.messages

    def __str__(self) -> str:
        parts = [f"damaged: {'; '.join(self.damages[:_NAMED])}"] if self.damages else []
        parts += [f"{self.messages:,} messages without a row"] if self.messages else []
        return "; ".join(parts) or "complete"


def with_losses(block: Mapping[str, Any], losses: Losses) -> dict[str, Any]:
    """The `recording` block of a sequence, completed."""
    return {**block, DAMAGES_KEY: list(losses.damages[:MOST_DAMAGES]), MISSING_KEY: losses.messages}


def losses_of(user_metadata: Mapping[str, Any], topics: Iterable[TopicRecord]) -> Losses | None:
    """What is missing; None for a sequence that was not made from a recording.

    Of recordings whose ingestion left no word on it, rows are compared with the counts of the recording's own index.

    Args:
        user_metadata: Of the sequence. A client may have written anything into it.
        topics: Of the sequence.
    """
    block = user_metadata.get(RECORDING_KEY)
    if not isinstance(block, Mapping) or "content_sha256" not in block:
        return None
    damages, missing = block.get(DAMAGES_KEY), block.get(MISSING_KEY)
    if not isinstance(missing, int):
        missing = sum(map(_missing_rows, topics))
    return Losses(tuple(map(str, damages)) if isinstance(damages, list) else (), missing)


def _missing_rows(topic: TopicRecord) -> int:
    block = topic.user_metadata.get(RECORDING_KEY)
    counted = block.get("message_count") if isinstance(block, Mapping) else None
    return max(counted - topic.row_count, 0) if isinstance(counted, int) else 0
