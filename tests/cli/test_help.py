"""Every command explains itself, and shows names as they are."""

import re
from pathlib import Path
from typing import Any, cast

import click
import pytest
import typer.testing
from typer.core import TyperOption
from typer.main import get_command

from lakehouse.cli.main import app
from tests.cli.conftest import Run
from tests.orchestration.recordings.recording_files import string_channel, texts, write_mcap


def commands_of(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """All commands by the words that call them, groups before what is in them."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found[prefix + name] = command
        if hasattr(command, "commands"):
            found |= commands_of(cast(click.Group, command), f"{prefix}{name} ")
    return found


COMMANDS = commands_of(cast(click.Group, get_command(app)))

PARAMETERS = [(name, parameter) for name, command in COMMANDS.items() for parameter in command.params]


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_says_what_the_command_does(name: str) -> None:
    result = typer.testing.CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    first_line = (COMMANDS[name].help if name else app.info.help).splitlines()[0]
    assert first_line.rstrip(".") in " ".join(result.output.split())


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda value: getattr(value, "name", value))
def test_every_option_and_argument_is_explained(name: str, parameter: Any) -> None:
    assert parameter.help


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_names_what_is_taken_in_capitals_and_never_by_types_of_python(name: str) -> None:
    shown = typer.testing.CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
    assert not re.search(r"<[a-z]|list\[|\[\[|\.\.\.\}", shown)
    for parameter in COMMANDS[name].params if name else ():
        if isinstance(parameter, TyperOption) and not parameter.is_flag:
            (line,) = [each for each in shown.splitlines() if re.search(rf"│\s+{parameter.opts[0]}\s", each)]
            named = r"[A-Z][A-Z|-]*|[a-z]+(\|[a-z]+)+"
            assert re.search(rf"{parameter.opts[0]}( +-\w)?( +--[\w-]+)? +({named}) ", line)


def test_unknown_commands_and_options_are_usage_errors(lakehouse: Run) -> None:
    for arguments in (["nonsense"], ["run", "--prot", "1"], ["run", "--port", "70000"], ["ingest"]):
        result = lakehouse(*arguments)
        assert result.returncode == 2
        assert "Usage" in result.stderr
        assert "Traceback" not in result.stderr


def test_names_that_look_like_markup_are_shown_as_they_are(lakehouse: Run, tmp_path: Path) -> None:
    path = write_mcap(
        tmp_path / "drive[bold].mcap", [string_channel("/odd[", texts(3)), string_channel("/b]", texts(2))]
    )
    ingested = lakehouse("ingest", path, tmp_path / "[", tmp_path / "[red]none.mcap")
    assert ingested.returncode == 1
    assert "drive[bold]:" in ingested.stdout
    assert "odd[ " in ingested.stdout
    assert "[red]none.mcap: there is no such file" in ingested.stderr
    assert "drive[bold] " in lakehouse("sequences").stdout
    assert "odd[ " in lakehouse("sequences", "drive[bold]").stdout


def test_a_sequence_that_does_not_exist_is_an_error(lakehouse: Run) -> None:
    result = lakehouse("sequences", "nowhere")
    assert (result.returncode, result.stdout) == (1, "")
    assert "'nowhere' not found" in result.stderr
