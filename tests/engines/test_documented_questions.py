"""The questions of docs/sql.md, on the demo recording: every engine gives the same rows, and there are some."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.engines.conftest import PROJECT, READERS, Stage
from tests.engines.engines_under_test import Engine, Polars

PAGE = (PROJECT / "docs" / "sql.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
ONLY_DUCKDB = re.findall(r"```sql duckdb\n(.*?)```", PAGE, re.DOTALL)
# The one function that is called differently, as the page says; Polars has it in Python, for the part that needs it.
JSON_FUNCTION = "json_extract_string"
ITS_NAME = {"spark": "get_json_object", "trino": "json_extract_scalar", "duckdb": JSON_FUNCTION}
(IN_PYTHON,) = re.findall(r"```python polars\n(.*?)```", PAGE, re.DOTALL)
PART_WITH_JSON = re.compile(r"WITH robots AS \(.*?\n\),\n", re.DOTALL)

pytestmark = pytest.mark.timeout(600)
PLACES = [place for place in READERS if place.values[0][1] != "files"]


@pytest.fixture(scope="session")
def answers(stage: Stage) -> Callable[[str, str], list[Any]]:
    """What DuckDB says to a question in a lake of some kind that has the demo recording."""
    return cache(lambda kind, question: stage.demo(kind).rows(question))


def test_there_are_questions() -> None:
    assert len(QUESTIONS) >= 6
    assert any("mosaico.validation_results" in question for question in QUESTIONS)
    assert all(name in PAGE for name in ITS_NAME.values())


@pytest.mark.parametrize("place", PLACES, indirect=True, scope="session")
@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_an_engine_gives_the_same_rows_as_the_others(
    engine: Engine, answers: Callable[[str, str], list[Any]], place: tuple[str, str], question: str
) -> None:
    expected = answers(place[1], question)
    assert expected, "nothing found"
    if JSON_FUNCTION not in question:
        found = engine.rows(question)
    elif isinstance(engine, Polars):
        found = engine.rows_after(IN_PYTHON, PART_WITH_JSON.sub("WITH ", question))
    else:
        found = engine.rows(question.replace(JSON_FUNCTION, ITS_NAME[engine.name]))
    # Sums are taken in another order by each engine.
    assert found == [pytest.approx(row, rel=1e-9) for row in expected]


@pytest.mark.xdist_group("embedded engines")
def test_the_swerve_is_what_is_found(stage: Stage) -> None:
    demo = stage.demo("production")
    ((sequence, _, most, samples),) = demo.rows(QUESTIONS[0])
    assert (sequence, samples) == ("city_drive", 93)
    assert most == pytest.approx(6.63484)
    assert {row[3] for row in demo.rows(QUESTIONS[-1])} == {"warned", "failed"}


@pytest.mark.parametrize("question", ONLY_DUCKDB, ids=range(len(ONLY_DUCKDB)))
@pytest.mark.xdist_group("embedded engines")
def test_what_only_duckdb_understands_finds_something(stage: Stage, question: str) -> None:
    assert stage.demo("production").rows(question)
