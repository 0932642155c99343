"""The docs name everything there is: every setting, every command, every file they point to."""

import re
from pathlib import Path

import pytest

from lakehouse.catalog.settings import Settings
from lakehouse.flight_gateway.actions import ACTIONS
from tests.cli.test_help import COMMANDS

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
OPERATORS = (PROJECT / "docs" / "operators.md").read_text()


@pytest.mark.parametrize("variable", [str(field.validation_alias) for field in Settings.model_fields.values()])
def test_every_setting_is_documented(variable: str) -> None:
    assert f"| `{variable}` |" in OPERATORS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command: str) -> None:
    is_group = hasattr(COMMANDS[command], "commands")
    assert (f"`lakehouse {command} " if is_group else f"| `lakehouse {command}") in OPERATORS


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_is_documented(action: str) -> None:
    page = (PROJECT / "docs" / "protocol.md").read_text()
    family = re.sub(r"_(list|purge)$", "_create", action)
    assert f"`{action}`" in page or (family != action and f"`{family}`, `_list`, `_purge`" in page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_in_the_docs_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)) <= targets
