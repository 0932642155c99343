"""What is in `deploy/` is well-formed, passes the linters of its kind, and names only what exists."""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import psycopg
import pytest
import yaml
from dagster import DagsterInstance

from lakehouse.catalog.settings import Settings
from tests.cli.test_help import COMMANDS

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
TOOLS = Path(sys.executable).parent
VARIABLES = {str(field.validation_alias) for field in Settings.model_fields.values()}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
TEXTS = sorted(path for path in [*DEPLOY.rglob("*"), PROJECT / "docs" / "deployment.md"] if path.is_file())


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def run(*command: str | Path) -> None:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=PROJECT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def commands() -> list[list[str]]:
    """Every command line in the files."""
    found = [
        service["command"]
        for service in documents(DEPLOY / "compose.yaml")[0]["services"].values()
        if "command" in service
    ]
    found += [shlex.split(unit_of(path)["Service"]["ExecStart"]) for path in UNITS]
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "Deployment":
                found += [each["args"] for each in document["spec"]["template"]["spec"]["containers"]]
    containerfile = (DEPLOY / "Containerfile").read_text()
    found.append(yaml.safe_load(re.findall(r"^CMD (.*)", containerfile, re.MULTILINE)[-1]))
    page = (PROJECT / "docs" / "deployment.md").read_text()
    found += [shlex.split(line) for line in re.findall(r"^(?:\S+/)?lakehouse .*", page, re.MULTILINE)]
    return found


def unit_of(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    return unit


def test_yaml_is_clean() -> None:
    run(TOOLS / "yamllint", "--strict", "-c", DEPLOY / ".yamllint", DEPLOY)


def test_the_compose_file_fits_its_schema() -> None:
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_the_container_file_is_clean() -> None:
    run(TOOLS / "hadolint", DEPLOY / "Containerfile")


def test_what_the_container_file_copies_exists() -> None:
    for line in re.findall(r"^COPY (.*)", (DEPLOY / "Containerfile").read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (PROJECT / source).exists(), source


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_manifests_fit_their_schemas(path: Path) -> None:
    for document in documents(path):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, "1.31", strict=True)


def test_probes_and_services_meet_ports_and_pages_that_exist() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] != "Deployment":
                continue
            for container in document["spec"]["template"]["spec"]["containers"]:
                ports = {port["name"] for port in container.get("ports", [])}
                for probe in (value for key, value in container.items() if key.endswith("Probe")):
                    assert probe["httpGet"]["port"] in ports
                    assert probe["httpGet"]["path"] in ("/health", "/ready", "/server_info")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_units_are_complete(path: Path, tmp_path: Path) -> None:
    unit = unit_of(path)
    assert {"Unit", "Service", "Install"} == set(unit.sections())
    assert unit["Service"]["EnvironmentFile"] == "/etc/lakehouse/environment"
    assert unit["Service"]["User"] == "lakehouse"
    if analyze := shutil.which("systemd-analyze"):
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace("/opt/lakehouse/.venv/bin", str(TOOLS)))
        ended = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True)
        complaints = [line for line in ended.stderr.splitlines() if path.stem in line]
        assert complaints == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    assert set(re.findall(r"\b(?:MOSAICOD|LAKEHOUSE)_[A-Z][A-Z_]+\b", path.read_text())) <= VARIABLES


def test_every_command_exists_with_its_options() -> None:
    lines = [line for line in commands() if Path(line[0]).name == "lakehouse"]
    assert len(lines) >= 4
    for line in lines:
        words = [word for word in line[1:] if not word.startswith("-")]
        name = next(" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS)
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in line if word.startswith("-")} <= known, line
    for line in commands():
        if (tool := Path(line[0]).name).startswith("dagster"):
            assert (TOOLS / tool).exists()


def test_dagster_keeps_its_records_in_postgresql(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_url.replace("+psycopg:", "+psycopg2:"))
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("sequences", ["drive"])
        assert instance.get_dynamic_partitions("sequences") == ["drive"]
    with psycopg.connect(postgres_url.replace("+psycopg:", ":")) as connection:
        assert connection.execute("SELECT partition FROM dynamic_partitions").fetchall() == [("drive",)]
