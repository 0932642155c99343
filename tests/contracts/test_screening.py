"""What is evaluated without Great Expectations has the same results as with it."""

from typing import Any

import numpy as np
import pytest

from lakehouse.contracts.judging import Judge, Measure, PlainJudge, Question, measures_of
from lakehouse.contracts.model import NO_TOLERANCE, Tolerance
from lakehouse.contracts.rules.native import GreatExpectation
from lakehouse.contracts.screening import can_screen

BETWEEN = "expect_column_values_to_be_between"
LENGTHS = "expect_column_value_lengths_to_be_between"


def number_questions() -> list[tuple[str, dict[str, Any]]]:
    limits: list[dict[str, Any]] = [
        {"min_value": -1.0},
        {"max_value": 1.0},
        {"min_value": -1.0, "max_value": 1.0},
        {"min_value": 0, "max_value": 0},
        {"min_value": None, "max_value": 1},
        {"min_value": 2**53},
    ]
    flags: list[dict[str, bool]] = [
        {},
        {"strict_min": True},
        {"strict_max": True},
        {"strict_min": True, "strict_max": True},
    ]
    found: list[tuple[str, dict[str, Any]]] = [(BETWEEN, limit | flag) for limit in limits for flag in flags]
    for kind in ("expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"):
        found.append((kind, {"value_set": [0.0, 1, -1.0]}))
    return [*found, ("expect_column_values_to_not_be_null", {})]


TEXT_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_be_in_set", {"value_set": ["auto", "", "ü"]}),
    ("expect_column_values_to_not_be_in_set", {"value_set": ["auto", "nan"]}),
    ("expect_column_values_to_match_regex", {"regex": "^[a-z]+$"}),
    ("expect_column_values_to_match_regex", {"regex": r"o(?!o)"}),
    ("expect_column_values_to_not_match_regex", {"regex": "a|^$"}),
    (LENGTHS, {"min_value": 1, "max_value": 3}),
    (LENGTHS, {"min_value": 2, "strict_min": True}),
    ("expect_column_value_lengths_to_equal", {"value": 4}),
    ("expect_column_values_to_not_be_null", {}),
]


@pytest.mark.parametrize("share_missing", [0.0, 0.2, 1.0])
def test_the_same_rows_fail_as_with_great_expectations(judge: Judge, share_missing: float) -> None:
    random = np.random.default_rng(3)
    numbers = random.choice([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 1e300, np.inf, -np.inf], 300)
    texts = random.choice(np.array(["auto", "off", "", "ü", "foo boo", "Nan"], dtype=object), 300)
    is_missing = random.random(300) < share_missing
    numbers[is_missing], texts[is_missing] = np.nan, None
    for values, asked in ((numbers, number_questions()), (texts, TEXT_QUESTIONS)):
        questions = [Question("value", kind, arguments) for kind, arguments in asked]
        plain = PlainJudge().judge({"value": values}, questions)
        great = judge.judge({"value": values}, questions)
        for question, ours, theirs in zip(questions, plain, great, strict=True):
            assert ours.failing.tolist() == theirs.failing.tolist(), question


def test_every_expectation_that_contracts_may_name_is_known() -> None:
    asked = {kind for kind, _ in [*number_questions(), *TEXT_QUESTIONS]}
    assert asked == set(GreatExpectation.ALLOWED)
    assert not can_screen(BETWEEN, {"min_value": 1, "mostly": 0.5}, of_text=False)
    assert not can_screen(BETWEEN, {"min_value": "a"}, of_text=True)


@pytest.mark.parametrize(
    ("kind", "arguments", "of_text"),
    [
        ("expect_column_values_to_be_in_set", {"value_set": [1, "auto"]}, False),
        ("expect_column_values_to_be_in_set", {"value_set": [1, None]}, False),
        ("expect_column_values_to_be_in_set", {"value_set": [2**53 + 1]}, False),
        ("expect_column_values_to_be_in_set", {"value_set": [10**400]}, False),
        ("expect_column_values_to_be_in_set", {"value_set": [True]}, False),
        ("expect_column_values_to_be_in_set", {"value_set": None}, False),
        ("expect_column_values_to_not_be_in_set", {"value_set": ["auto", 1]}, True),
        ("expect_column_values_to_not_be_in_set", {"value_set": ["auto", None]}, True),
        ("expect_column_values_to_match_regex", {"regex": "("}, True),
        ("expect_column_values_to_match_regex", {"regex": 1}, True),
        (BETWEEN, {"min_value": None}, False),
        (BETWEEN, {"min_value": None, "max_value": None}, False),
        (BETWEEN, {"min_value": "1"}, False),
        (BETWEEN, {"min_value": 2**53 + 1}, False),
        (BETWEEN, {"min_value": 1, "strict_min": "yes"}, False),
        (LENGTHS, {}, True),
        ("expect_column_value_lengths_to_equal", {"value": None}, True),
    ],
)
def test_arguments_of_other_types_are_left_to_great_expectations(
    kind: str, arguments: dict[str, Any], of_text: bool
) -> None:
    assert not can_screen(kind, arguments, of_text=of_text)


def test_what_was_compared_with_great_expectations_is_evaluated_here() -> None:
    for asked, of_text in ((number_questions(), False), (TEXT_QUESTIONS, True)):
        for kind, arguments in asked:
            assert can_screen(kind, arguments, of_text=of_text), (kind, arguments)


@pytest.mark.parametrize(
    ("failed", "checked", "tolerance", "is_broken"),
    [
        (0, 10, NO_TOLERANCE, False),
        (1, 10, NO_TOLERANCE, True),
        (0, 0, Tolerance(percent=0), False),
        (29, 1000, Tolerance(percent=2.9), False),
        (30, 1000, Tolerance(percent=2.9), True),
        (3, 1000, Tolerance(rows=3), False),
        (3, 1000, Tolerance(rows=2, percent=50), True),
        (2, 3, Tolerance(rows=2, percent=50), True),
    ],
)
def test_both_judge_what_a_tolerance_allows(
    judge: Judge, failed: int, checked: int, tolerance: Tolerance, is_broken: bool
) -> None:
    assert tolerance.allows(failed, checked) is not is_broken
    outcome: list[Measure] = measures_of(failed, checked, tolerance)
    others = [measures_of(0, 5, NO_TOLERANCE), measures_of(5, 5, Tolerance(percent=100))]
    for each in (judge, PlainJudge()):
        assert each.broken([outcome, *others]) == [is_broken, False, False]


def test_nothing_to_judge_is_nothing_broken(judge: Judge) -> None:
    assert judge.broken([]) == PlainJudge().broken([]) == []
