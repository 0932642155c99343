"""Glob patterns of `$match`: anchored at both ends, case-sensitive, in time bounded by pattern times text (12.4)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lakehouse.catalog.errors import BadRequestError, quoted

MAX_PATTERN_LENGTH = 256

_CLASS_SHORTHANDS = frozenset("dDwWsS")
_CONTROL_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two `*`: every token matches exactly one character, so nothing can backtrack.

    Attributes:
        expression: Regular expression of the segment.
        length: Characters it matches.
        literal: The text it matches if it can match only one; else None.
        prefix: Literal characters it begins with.
        literals: Runs of literal characters in it.
    """

    expression: re.Pattern[str]
    length: int
    literal: str | None
    prefix: str
    literals: tuple[str, ...]

    def find(self, text: str, start: int) -> int:
        """Where the segment first occurs at or after `start`; -1 if nowhere."""
        if self.literal is not None:
            return text.find(self.literal, start)
        found = self.expression.search(text, start)
        return -1 if found is None else found.start()

    def is_at(self, text: str, start: int) -> bool:
        return self.expression.match(text, start) is not None


@dataclass(frozen=True)
class Glob:
    """A parsed pattern.

    Attributes:
        pattern: As it was written.
    """

    pattern: str
    _segments: tuple[_Segment, ...] = field(compare=False)

    @classmethod
    def parse(cls, pattern: object) -> "Glob":
        """Read a pattern: `*` any text, `?` one character, `#` one ASCII digit, `[...]` a character class.

        Raises:
            BadRequestError: If it is no text, empty, longer than `MAX_PATTERN_LENGTH`, or has a malformed class.
        """
        if not isinstance(pattern, str) or not pattern:
            raise BadRequestError("the operand of '$match' must be a non-empty text")
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise BadRequestError(f"the pattern {quoted(pattern, 40)} is longer than {MAX_PATTERN_LENGTH} characters")
        return cls(pattern, tuple(_segment(list(tokens)) for tokens in _split(_tokens(pattern))))

    @classmethod
    def containing(cls, parts: list[str]) -> "Glob":
        """Text that contains all parts, one after the other."""
        tokens: list[list[_Token]] = [[(re.escape(character), character) for character in part] for part in parts]
        return cls("*".join(["", *parts, ""]), tuple(map(_segment, [[], *tokens, []])))

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        first, last = self._segments[0], self._segments[-1]
        if len(self._segments) == 1:
            return len(text) == first.length and first.is_at(text, 0)
        end = len(text) - last.length
        position = first.length
        if position > end or not first.is_at(text, 0) or not last.is_at(text, end):
            return False
        # The leftmost occurrence of each segment leaves the most room for those behind it.
        for segment in self._segments[1:-1]:
            found = segment.find(text, position)
            if found < 0:
                return False
            position = found + segment.length
        return position <= end

    @cached_property
    def literal(self) -> str | None:
        """The only text that matches, or None if there are others."""
        return self._segments[0].literal if len(self._segments) == 1 else None

    @cached_property
    def prefix(self) -> str:
        """Literal text that everything matching begins with."""
        return self._segments[0].prefix

    @cached_property
    def is_prefix_only(self) -> bool:
        """Whether everything that begins with `prefix` matches."""
        return (
            len(self._segments) > 1
            and self._segments[0].literal is not None
            and all(segment.length == 0 for segment in self._segments[1:])
        )

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Pieces of text that everything matching contains, longest first."""
        found = {literal for segment in self._segments for literal in segment.literals}
        return tuple(sorted(found, key=lambda literal: (-len(literal), literal)))


# The regular expression of one character, and that character if it is literal. None stands for `*`.
_Token = tuple[str, str | None]


def _split(tokens: Iterator[_Token | None]) -> Iterator[list[_Token]]:
    current: list[_Token] = []
    for token in tokens:
        if token is None:
            yield current
            current = []
        else:
            current.append(token)
    yield current


def _segment(tokens: list[_Token]) -> _Segment:
    expression = re.compile("".join(token for token, _ in tokens), re.DOTALL)
    characters = [literal for _, literal in tokens]
    literal = None if None in characters else "".join(character or "" for character in characters)
    runs = ["".join(run) for run in _runs(characters)]
    prefix = runs[0] if runs and characters[0] is not None else ""
    return _Segment(expression, len(tokens), literal, prefix, tuple(runs))


def _runs(characters: list[str | None]) -> Iterator[list[str]]:
    run: list[str] = []
    for character in characters:
        if character is not None:
            run.append(character)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _tokens(pattern: str) -> Iterator[_Token | None]:
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            yield None
        elif character == "?":
            yield ".", None
        elif character == "#":
            yield "[0-9]", None
        elif character == "[":
            expression, position = _character_class(pattern, position)
            yield expression, None
        else:
            yield re.escape(character), character


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    """The class whose content starts at `position`, rewritten without anything ambiguous, and where it ends."""
    negated = pattern[position : position + 1] == "^"
    position += negated
    items: list[str] = []
    # As in regular expressions a `]` right at the start is an ordinary member.
    while not (pattern[position : position + 1] == "]" and items):
        low, position = _class_member(pattern, position)
        if pattern[position : position + 1] == "-" and pattern[position + 1 : position + 2] not in ("", "]"):
            high, position = _class_member(pattern, position + 1)
            if len(low) != 1 or len(high) != 1 or low > high:
                raise BadRequestError(f"the pattern {quoted(pattern)} has a malformed range in a character class")
            items.append(f"{_escaped(low)}-{_escaped(high)}")
        else:
            items.append(_escaped(low) if len(low) == 1 else low)
    return f"[{'^' if negated else ''}{''.join(items)}]", position + 1


def _class_member(pattern: str, position: int) -> tuple[str, int]:
    """One character of a class, or a shorthand such as `\\d` as two characters."""
    member = pattern[position : position + 1]
    if member == "\\":
        escaped = pattern[position + 1 : position + 2]
        if escaped in _CLASS_SHORTHANDS and escaped:
            return "\\" + escaped, position + 2
        member = _CONTROL_ESCAPES.get(escaped, escaped)
        if not member or (member == escaped and escaped.isalnum()):
            raise BadRequestError(f"the pattern {quoted(pattern)} has a malformed escape in a character class")
        return member, position + 2
    if not member:
        raise BadRequestError(f"the pattern {quoted(pattern)} has a character class without an end")
    if member == "[":
        raise BadRequestError(f"the pattern {quoted(pattern)} has a '[' inside a character class: write '\\['")
    return member, position + 1


def _escaped(character: str) -> str:
    return "\\" + character if character in "\\]^-[&~|" else character
