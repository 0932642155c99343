"""What somebody may have meant who named something that does not exist."""

import difflib
from collections.abc import Iterable, Sequence

from lakehouse.catalog.errors import quoted

MOST_NAMES = 5000
MOST_PROPOSED = 3
# Of two texts alike; below this, proposals are guesses.
_LEAST_SIMILARITY = 0.6


def proposal(asked: str, known: Iterable[str], prefix: str = "") -> str:
    """The known names that are most like the one asked for, as the end of a sentence; empty if none is.

    Args:
        asked: The name.
        known: Names; of many, the first ones are looked at.
        prefix: Goes before each name that is proposed.
    """
    return did_you_mean([prefix + name for name in alike(asked, known)])


def alike(asked: str, known: Iterable[str]) -> list[str]:
    """The known names that are most like the one asked for, best first."""
    by_folded: dict[str, str] = {}
    for name in list(known)[:MOST_NAMES]:
        by_folded.setdefault(name.casefold(), name)
    found = difflib.get_close_matches(asked.casefold(), by_folded, MOST_PROPOSED, _LEAST_SIMILARITY)
    return [by_folded[each] for each in found]


def did_you_mean(names: Sequence[str]) -> str:
    """The end of a sentence that asks whether one of these is meant; empty if there is none."""
    if not names:
        return ""
    return "; did you mean " + " or ".join(map(quoted, names[:MOST_PROPOSED])) + "?"
