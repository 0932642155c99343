"""Reading the keys of the `ontology` section: `Tag.field.path` with at most one list specifier (12.6)."""

import re

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.query.conditions import FieldPath, Quantifier

MAX_PATH_LENGTH = 1024
# No list is longer; a larger index lies beyond the end like this one.
_LARGEST_INDEX = 2**31 - 1
_SEGMENT = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<specifier>[^\[\]]*)\])?")


def parse_field_path(text: str) -> FieldPath:
    """Read the path of a condition on rows.

    Raises:
        BadRequestError: If it is too long, lacks the tag or the field, has an empty segment, a malformed list
            specifier, or more than one.
    """
    if len(text) > MAX_PATH_LENGTH:
        raise BadRequestError(f"the field {quoted(text, 80)} is longer than {MAX_PATH_LENGTH} characters")
    tag, dot, rest = text.partition(".")
    if not tag or not dot or not rest:
        raise BadRequestError(f"{quoted(text)} is not a field: expected 'Tag.field.path'")
    names: list[str] = []
    list_segment: int | None = None
    specifier: int | Quantifier | None = None
    for segment in rest.split("."):
        if segment.count("[") > 1:
            raise BadRequestError(f"the field {quoted(text)} has more than one list specifier; one is supported")
        found = _SEGMENT.fullmatch(segment)
        if found is None:
            raise BadRequestError(f"the field {quoted(text)} has an empty or malformed segment {quoted(segment, 80)}")
        if found["specifier"] is not None:
            if list_segment is not None:
                raise BadRequestError(f"the field {quoted(text)} has more than one list specifier; one is supported")
            list_segment, specifier = len(names), _parse_specifier(found["specifier"], text)
        names.append(found["name"])
    return FieldPath(tag, tuple(names), list_segment, specifier)


def _parse_specifier(specifier: str, path: str) -> int | Quantifier:
    if specifier in ("?", "!"):
        return Quantifier(specifier)
    if specifier.isascii() and specifier.isdigit():
        digits = specifier.lstrip("0") or "0"
        return _LARGEST_INDEX if len(digits) > 10 else min(int(digits), _LARGEST_INDEX)
    raise BadRequestError(
        f"the field {quoted(path)} has a malformed list specifier {quoted(f'[{specifier}]', 40)}: "
        "expected [?], [!] or an index such as [0]"
    )
