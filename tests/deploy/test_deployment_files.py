"""What is in `deploy/` is well-formed, passes the linters of its kind, names only what exists, and fits what was
measured."""

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

from engines.versions import VERSITYGW
from lakehouse.catalog.settings import Settings
from lakehouse.cli.run import GRACE_SECONDS
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


def test_the_kustomization_names_what_exists_and_what_the_manifests_need() -> None:
    (kustomization,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert set(kustomization) == {"apiVersion", "kind", "namespace", "resources", "images"}
    templates = {"secret.example.yaml", "kustomization.yaml"}
    assert set(kustomization["resources"]) == {path.name for path in MANIFESTS} - templates
    applied = [each for name in kustomization["resources"] for each in documents(DEPLOY / "kubernetes" / name)]
    made_by_hand = documents(DEPLOY / "kubernetes" / "secret.example.yaml")
    # No two objects of one kind and name, and none that names a namespace of its own.
    identities = [(each["kind"], each["metadata"]["name"]) for each in applied + made_by_hand]
    assert len(set(identities)) == len(identities)
    assert all("namespace" not in each["metadata"] for each in applied)
    page = (PROJECT / "docs" / "deployment.md").read_text()
    made = {*identities, *(("Secret", name) for name in re.findall(r"create secret tls (\S+)", page))}
    images = {each["name"] for each in kustomization["images"]}
    for document in applied:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in [
                each["spec"]["template"]["metadata"]["labels"] for each in applied if each["kind"] == "Deployment"
            ]
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]
        assert {container["image"] for container in pod["containers"]} <= images
        for container in pod["containers"]:
            for source in container["envFrom"]:
                ((kind, reference),) = source.items()
                assert ({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"]) in made
            assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
        for volume in pod["volumes"]:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in made
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in made
    if kubectl := shutil.which("kubectl"):
        run(kubectl, "kustomize", DEPLOY / "kubernetes")


YES_OR_NO = r"yes|no"
SECONDS = r"\d+"
# What our units may say, of all that systemd knows (systemd.unit, systemd.service, systemd.exec): anything else is a
# typing error, which systemd would only write to its log.
DIRECTIVES = {
    "Unit": {"Description": r".+", "After": r"[a-z. -]+", "Wants": r"[a-z. -]+"},
    "Service": {
        "ExecStart": r"/opt/lakehouse/\.venv/bin/[a-z-]+( \S+)*",
        "TimeoutStopSec": SECONDS,
        "LimitNOFILE": r"\d+",
        "User": "lakehouse",
        "Group": "lakehouse",
        "EnvironmentFile": "/etc/lakehouse/environment",
        "WorkingDirectory": "/opt/lakehouse",
        "StateDirectory": "lakehouse",
        "Restart": r"no|on-success|on-failure|on-abnormal|on-watchdog|on-abort|always",
        "RestartSec": SECONDS,
        "NoNewPrivileges": YES_OR_NO,
        "PrivateTmp": YES_OR_NO,
        "PrivateDevices": YES_OR_NO,
        "ProtectSystem": r"yes|no|full|strict",
        "ProtectHome": r"yes|no|read-only|tmpfs",
        "ProtectKernelTunables": YES_OR_NO,
        "ProtectKernelModules": YES_OR_NO,
        "ProtectControlGroups": YES_OR_NO,
        "RestrictSUIDSGID": YES_OR_NO,
        "RestrictAddressFamilies": r"AF_[A-Z0-9]+( AF_[A-Z0-9]+)*",
        "LockPersonality": YES_OR_NO,
        "UMask": r"0[0-7]{3}",
    },
    "Install": {"WantedBy": r"[a-z-]+\.target"},
}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_units_say_what_systemd_understands(path: Path, tmp_path: Path) -> None:
    unit = unit_of(path)
    assert set(unit.sections()) == set(DIRECTIVES)
    for section, known in DIRECTIVES.items():
        for name, value in unit[section].items():
            assert name in known, name
            assert re.fullmatch(known[name], value), f"{name}={value}"
    service = unit["Service"]
    assert {"ExecStart", "User", "EnvironmentFile", "WorkingDirectory", "StateDirectory", "Restart"} <= set(service)
    assert (TOOLS / Path(service["ExecStart"].split()[0]).name).exists()
    assert int(service.get("TimeoutStopSec", "90")) > GRACE_SECONDS
    # A strict system is read-only but for the directory of the state, where everything that is kept must lie then.
    assert service["ProtectSystem"] == "strict"
    example = environment_example()
    state = Path("/var/lib") / service["StateDirectory"]
    assert all(Path(example[name]).is_relative_to(state) for name in ("LAKEHOUSE_HOME", "DAGSTER_HOME"))
    if analyze := shutil.which("systemd-analyze"):
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace("/opt/lakehouse/.venv/bin", str(TOOLS)))
        ended = subprocess.run([analyze, "verify", "--man=no", copy], capture_output=True, text=True)
        complaints = [line for line in ended.stderr.splitlines() if path.stem in line]
        assert complaints == []


def environment_example() -> dict[str, str]:
    lines = (DEPLOY / "systemd" / "environment.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_way_to_deploy_is_told_the_same_things(monkeypatch: pytest.MonkeyPatch) -> None:
    example = environment_example()
    compose = documents(DEPLOY / "compose.yaml")[0]["x-lakehouse"]["environment"]
    manifests = [each for path in MANIFESTS for each in documents(path) if each["kind"] in ("ConfigMap", "Secret")]
    in_kubernetes = {name for each in manifests for name in each.get("data", each.get("stringData", {}))}
    assert set(compose) <= set(example)
    assert set(compose) <= in_kubernetes
    for name, value in example.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.warehouse_uri == "s3://lake"
    assert settings.database_name == "postgresql+psycopg://lakehouse:***@127.0.0.1/lakehouse"


def test_the_store_is_of_the_version_that_the_tests_run() -> None:
    service = documents(DEPLOY / "compose.yaml")[0]["services"]["s3"]
    assert service["image"] == f"versity/versitygw:{VERSITYGW.rpartition('@')[2]}"


def test_sizing_holds_what_was_measured_and_the_manifest_fits_it() -> None:
    page = " ".join((PROJECT / "docs" / "deployment.md").read_text().split())
    figures = r"memory of a gateway \| (\S+) GiB, plus (\S+) GiB for each upload and (\S+) GiB for each read"
    found = re.search(figures, page)
    assert found
    base, upload, read = (float(figure) * 1024 for figure in found.groups())
    results = (PROJECT / "bench" / "results.md").read_text()
    measured = {
        what: float(figure.replace(",", ""))
        for what, figure in re.findall(
            r"^\| (After a first|Upload of|Read of|\d+ uploads) .*? \| (?:peak .*?, )?([\d,]+) (?:MiB \||above base)",
            results,
            re.MULTILINE,
        )
    }
    (many,) = (what for what in measured if what.endswith("uploads"))
    assert measured.pop("After a first") <= base
    assert measured.pop("Read of") <= read
    assert measured.pop("Upload of") <= upload
    assert measured.pop(many) <= upload * int(many.split()[0])

    said = re.search(
        r"asks for (\S+) GiB, enough for (\d+) uploads at once, and ends a gateway at (\S+) GiB, which (\d+)", page
    )
    assert said
    asked, few, ended, most = (float(figure) for figure in said.groups())
    (gateway,) = (each for each in documents(DEPLOY / "kubernetes" / "gateway.yaml") if each["kind"] == "Deployment")
    resources = gateway["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["memory"] == f"{asked * 1024:.0f}Mi"
    assert resources["limits"]["memory"] == f"{ended:.0f}Gi"
    assert base + few * upload <= asked * 1024 + 1
    assert base + most * upload <= ended * 1024 + 1


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
