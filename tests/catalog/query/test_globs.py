"""Patterns of `$match`: what matches, what is refused, and how long it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.catalog.errors import BadRequestError
from lakehouse.catalog.query.globs import MAX_PATTERN_LENGTH, Glob


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("drive", ["drive"], ["Drive", "drive_1", "a drive", ""]),
        ("*", ["", "anything", "a/b\nc"], []),
        ("*rain*", ["rain", "some rain\nat night", "rainrain"], ["ran", "RAIN"]),
        ("drive_*", ["drive_", "drive_01/x"], ["drive", "adrive_1"]),
        ("*.mcap", [".mcap", "a.mcap.mcap"], ["a.mcap2", "mcap"]),
        ("?", ["a", "\n", "/", "é", "\U0001f697"], ["", "ab"]),
        ("#", ["0", "9"], ["", "a", "12", "\u0661"]),
        ("car#/[a-z]*", ["car1/imu", "car1/i"], ["car/imu", "car1/", "car1/Imu"]),
        ("[ab]?", ["ax", "b/"], ["a", "cx", "abx"]),
        ("[^x]", ["y", "\n", "^"], ["x", ""]),
        ("[]x]", ["]", "x"], ["a"]),
        ("[x-]", ["x", "-"], ["y"]),
        ("[a\\-z]", ["a", "-", "z"], ["b"]),
        ("[\\]\\[]", ["]", "["], ["\\"]),
        ("[\\d.]", ["5", "."], ["d"]),
        ("[.+|&~]", [".", "+", "|", "&", "~"], ["a"]),
        ("a.c", ["a.c"], ["abc"]),
        ("100%", ["100%"], ["100", "1000"]),
        ("(a|b)+$^\\", ["(a|b)+$^\\"], ["a"]),
        ("]", ["]"], [""]),
        ("*a*b", ["ab", "xaxb", "aab", "abab"], ["ba", "abx"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("*#*#*", ["12", "x1y2z"], ["1", "xyz"]),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, matching: list[str], others: list[str]) -> None:
    glob = Glob.parse(pattern)
    assert [text for text in matching if not glob.matches(text)] == []
    assert [text for text in others if glob.matches(text)] == []


@pytest.mark.parametrize("pattern", ["", None, 5, True, ["*"], "x" * (MAX_PATTERN_LENGTH + 1)])
def test_what_is_no_pattern_is_refused(pattern: object) -> None:
    with pytest.raises(BadRequestError):
        Glob.parse(pattern)


@pytest.mark.parametrize("pattern", ["[", "[]", "[^]", "[a", "a[b-", "[z-a]", "[\\", "[\\q]", "[\\d-z]", "[[:alpha:]]"])
def test_a_malformed_character_class_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequestError, match="class"):
        Glob.parse(pattern)


def test_a_pattern_of_the_largest_length_is_accepted() -> None:
    assert Glob.parse("?" * MAX_PATTERN_LENGTH).matches("x" * MAX_PATTERN_LENGTH)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["*a" * 127 + "*b", "*?" * 127 + "b", "*[ab]" * 51 + "c", "*" * 255 + "b"])
def test_no_pattern_makes_matching_explode(pattern: str) -> None:
    assert not Glob.parse(pattern).matches("a" * 100_000)


def by_trying_everything(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(by_trying_everything(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and by_trying_everything(pattern[1:], text[1:])


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab", max_size=8))
def test_matching_equals_trying_every_way(pattern: str, text: str) -> None:
    assert Glob.parse(pattern).matches(text) == by_trying_everything(pattern, text)


@given(st.text("ab?*#", min_size=1, max_size=8), st.text("ab0", max_size=8))
def test_what_sql_may_narrow_down_by_holds_for_every_match(pattern: str, text: str) -> None:
    glob = Glob.parse(pattern)
    if glob.matches(text):
        assert text.startswith(glob.prefix)
        assert all(literal in text for literal in glob.literals)
        assert glob.literal in (None, text)
    elif glob.is_prefix_only:
        assert not text.startswith(glob.prefix)
