"""What to validate: everything, by patterns, or the topics of certain sessions."""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from lakehouse.catalog.errors import NotFoundError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.validation import Subject


def select_subjects(lake: Lakehouse, sequences: str = "*", topics: str | None = None) -> Iterator[Subject]:
    """Finalized topics by patterns of names, with `*` for any characters.

    Args:
        lake: Where to look.
        sequences: Pattern of sequence names.
        topics: Pattern of topic paths; with one, rules about sequences as a whole are left out.

    Raises:
        NotFoundError: If a sequence is named without `*`, and is not there.
    """
    names = [name for name in lake.sequences.names() if fnmatchcase(name, sequences)]
    if not names and "*" not in sequences:
        raise NotFoundError("sequence", sequences)
    for name in names:
        try:
            described = lake.sequences.describe(name)
        except NotFoundError:
            continue  # deleted a moment ago
        finalized = [topic for topic in described.topics if topic.session_is_finalized]
        if topics is None:
            if finalized:
                yield Subject(name, finalized, finalized, described.sequence.user_metadata)
        else:
            pattern = topics.lstrip("/")
            chosen = [topic for topic in finalized if fnmatchcase(topic.locator.path, pattern)]
            if chosen:
                yield Subject(name, chosen)


def subjects_of_sessions(lake: Lakehouse, sessions: Collection[str]) -> Iterator[Subject]:
    """The topics of certain sessions, open or finalized; sessions that are gone are passed over.

    Args:
        lake: Where to look.
        sessions: Locators, `sequence:ulid`.
    """
    by_sequence: dict[str, set[str]] = {}
    for locator in sessions:
        by_sequence.setdefault(locator.rpartition(":")[0], set()).add(locator)
    for name, wanted in by_sequence.items():
        try:
            described = lake.sequences.describe(name)
        except NotFoundError:
            continue
        chosen = [topic for topic in described.topics if str(topic.session_locator) in wanted]
        if chosen:
            seen = [topic for topic in described.topics if topic.session_is_finalized or topic in chosen]
            yield Subject(name, chosen, seen, described.sequence.user_metadata)
