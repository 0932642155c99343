"""Every command says in which form and from which severity on it logs, and keeps its log apart from its answer."""

import json
import logging

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from lakehouse.cli.log_options import add_log_options
from lakehouse.cli.log_output import LogLevel
from tests.cli.conftest import Run
from tests.cli.test_help import COMMANDS


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if not hasattr(command, "commands")))
def test_every_command_has_both_options(name: str) -> None:
    options = {option: parameter for parameter in COMMANDS[name].params for option in parameter.opts}
    assert options["--log-format"].default == "plain"
    assert options["--log-level"].default == ("info" if name == "run" else "warning")


def test_they_are_accepted_where_they_are_documented(lakehouse: Run) -> None:
    for command in (["sequences"], ["api-key", "list"]):
        listed = lakehouse(*command, "--log-format", "json", "--log-level", "debug")
        assert (listed.returncode, listed.stderr) == (0, "")
        assert listed.stdout == lakehouse(*command).stdout
        assert lakehouse(*command, "--log-level", "loud").returncode == 2


@pytest.fixture
def program() -> typer.Typer:
    """Two commands that log, one of them in a group."""
    app, group = typer.Typer(), typer.Typer()

    # As some libraries do.
    logging.getLogger("somebody.else").setLevel(logging.DEBUG)

    def talk(subject: str, loudly: bool = False) -> None:
        ours, library = logging.getLogger("lakehouse.talk"), logging.getLogger("somebody.else")
        for log in (ours, library):
            log.debug("%s in detail", subject)
            log.info("%s", subject, extra={"loudly": loudly})
            log.warning("beware of %s", subject)
        typer.echo("the answer")

    app.command("serve")(talk)
    group.command("talk")(talk)
    app.add_typer(group, name="group")
    add_log_options(app, {"serve": LogLevel.INFO})
    return app


def run(program: typer.Typer, *arguments: str) -> Result:
    before = logging.getLogger().handlers, logging.getLogger("lakehouse").level
    ended = CliRunner().invoke(program, arguments)
    assert (logging.getLogger().handlers, logging.getLogger("lakehouse").level) == before
    assert (ended.exit_code, ended.stdout) == (0, "the answer\n")
    return ended


def messages(ended: Result) -> list[str]:
    return [line.partition(": ")[2] for line in ended.stderr.splitlines()]


def test_levels_hold_for_what_is_ours_and_libraries_are_heard_when_they_warn(program: typer.Typer) -> None:
    assert messages(run(program, "group", "talk", "rain")) == ["beware of rain"] * 2
    assert messages(run(program, "serve", "rain")) == ["rain", "beware of rain", "beware of rain"]
    assert messages(run(program, "group", "talk", "rain", "--log-level", "debug"))[:2] == ["rain in detail", "rain"]
    assert messages(run(program, "serve", "--log-level", "warning", "rain")) == ["beware of rain"] * 2


def test_json_keeps_the_facts_of_a_record_apart(program: typer.Typer) -> None:
    ended = run(program, "serve", "rain", "--loudly", "--log-format", "json")
    first = json.loads(ended.stderr.splitlines()[0])
    assert first.pop("time")
    assert first == {"level": "info", "logger": "lakehouse.talk", "message": "rain", "loudly": True}


@pytest.mark.parametrize("log_format", ["json", "pretty", "plain"])
def test_no_form_shows_a_secret_that_somebody_else_put_into_an_error(
    program: typer.Typer, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.setenv("MOSAICOD_DB_URL", "postgresql://robot:hunter2@db/lake?sslpassword=hunter3")
    monkeypatch.setenv("LAKEHOUSE_CATALOG_CREDENTIAL", 'somebody:with-"quotes"')
    for secret in ("hunter2", "hunter3", 'with-"quotes"'):
        shown = run(program, "serve", f"no access with {secret}!", "--log-format", log_format).stderr
        assert "no access with ***!" in shown
        assert secret not in shown.replace("\\", "")


def test_pretty_is_for_people(program: typer.Typer) -> None:
    shown = run(program, "serve", "rain", "--log-format", "pretty").stderr
    assert "WARNING" in shown
    assert "beware of rain" in shown
