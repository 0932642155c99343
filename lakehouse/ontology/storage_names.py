"""Which name a payload column carries in storage.

Payload names are kept, except where they would make the table unreadable for somebody: names of the envelope
columns, names that differ only in case from a sibling (Spark and Trino fold case), and names with characters that
engines read as syntax (a dot separates nested names in PyIceberg and in Parquet projections).
"""

import hashlib
import re
from collections.abc import Sequence

SEQUENCE_COLUMN = "sequence"
SESSION_COLUMN = "session"
TIMESTAMP_COLUMN = "timestamp_ns"
RECORDED_AT_COLUMN = "recorded_at"
ENVELOPE_COLUMNS = (SEQUENCE_COLUMN, SESSION_COLUMN, TIMESTAMP_COLUMN, RECORDED_AT_COLUMN)

# Dots and backticks are syntax in engines; control characters and quotes break SQL clients and JSON tools.
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f.`\"\\]")


def fold_case(name: str) -> str:
    """The form under which case-insensitive engines (Spark, Trino) compare column names."""
    return name.lower().casefold()


def storage_names(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Storage names for sibling columns, one per entry of `names`, unique without regard to case.

    A name that has to give way gets a hash of the original as suffix, not a counter: so the same original always has
    the same storage name, and a later schema that really contains the substitute does not share its column.

    Args:
        names: The original names, in order; the first of several colliding ones keeps its own.
        reserved: Names no column may take, in any spelling.
    """
    taken = {fold_case(name) for name in reserved}
    # Names that need no repair come first, whatever their position: a repaired name must not push them aside.
    result: dict[int, str] = {}
    for position, name in enumerate(names):
        if name and not _UNSAFE_CHARACTERS.search(name) and fold_case(name) not in taken:
            taken.add(fold_case(name))
            result[position] = name
    for position, name in enumerate(names):
        if position in result:
            continue
        readable = _UNSAFE_CHARACTERS.sub("_", name) or "unnamed"
        occurrence = 0
        while True:
            digest = hashlib.sha1(f"{name}\0{occurrence}".encode()).hexdigest()[:8]
            candidate = f"{readable}_{digest}"
            if fold_case(candidate) not in taken:
                break
            occurrence += 1
        taken.add(fold_case(candidate))
        result[position] = candidate
    return [result[position] for position in range(len(names))]
