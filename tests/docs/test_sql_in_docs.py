"""Every SQL statement in the docs runs as it stands and finds something, and so does every `lakehouse sql` command."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.cli.main import app
from tests.docs.documented_lake import documented_lake
from tests.docs.test_docs import PAGES

FENCED = [
    (page, kind.strip(), content)
    for page in PAGES
    for kind, content in re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
]
STATEMENTS = [
    pytest.param(kind, content, id=f"{page.name}-{number}")
    for number, (page, kind, content) in enumerate(FENCED)
    if kind.startswith("sql")
]
COMMANDS = [
    pytest.param(shlex.split(line)[1:], id=f"{page.name}-{number}")
    for page in PAGES
    for number, line in enumerate(re.findall(r"^\.venv/bin/(lakehouse sql .+)$", page.read_text(), re.MULTILINE))
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    with documented_lake(tmp_path_factory.mktemp("documented") / ".lakehouse") as opened:
        yield opened


def test_none_is_overlooked() -> None:
    assert len({page.values[1] for page in STATEMENTS}) >= 10
    assert len(COMMANDS) >= 4
    for page, kind, content in FENCED:
        # Whoever writes SQL into a page says so at its fence; Python and commands are run by other tests.
        assert kind.startswith(("sql", "python", "sh")) or "SELECT" not in content, page.name


@pytest.mark.parametrize(("kind", "statement"), STATEMENTS)
def test_a_statement_of_the_docs_finds_something(lake: Lakehouse, kind: str, statement: str) -> None:
    # Statements of one engine alone belong where that engine runs: tests/engines.
    assert kind in ("sql", "sql duckdb")
    with LakeSql(lake).opened(statement) as prepared:
        assert prepared.batches().read_all().num_rows


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_of_the_docs_prints_something(
    lake: Lakehouse, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"LAKEHOUSE_HOME": str(lake.settings.home), "MOSAICOD_DB_URL": "", "MOSAICOD_STORE_ENDPOINT": ""}
    run = CliRunner().invoke(app, arguments, env=environment)
    assert run.exit_code == 0, run.output
    assert run.output.strip() or list(tmp_path.iterdir())
