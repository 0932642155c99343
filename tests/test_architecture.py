"""The arrows between the rooms: ontology <- catalog <- contracts and the two doors, which never meet; the command line
on top."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lakehouse"
MAY_IMPORT = {
    "ontology": {"ontology"},
    "catalog": {"ontology", "catalog"},
    "contracts": {"ontology", "catalog", "contracts"},
    "flight_gateway": {"ontology", "catalog", "flight_gateway"},
    "orchestration": {"ontology", "catalog", "contracts", "orchestration"},
    "cli": {"ontology", "catalog", "contracts", "flight_gateway", "orchestration", "cli"},
}

# Used without being imported: the database driver, the operators' UI, the file system of `s3://` in fsspec.
BY_NAME = {"psycopg", "dagster-webserver", "s3fs"}


def imported_modules(source: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imported_rooms(source: Path) -> set[str]:
    parts = [module.split(".") for module in imported_modules(source)]
    return {names[1] for names in parts if names[0] == "lakehouse" and names[1] in MAY_IMPORT}


def test_every_room_is_known() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    for source in (PACKAGE / room).rglob("*.py"):
        assert imported_rooms(source) <= MAY_IMPORT[room], source.name


def test_what_is_imported_is_a_declared_dependency_and_the_other_way_round() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", dependency)[0] for dependency in project["dependencies"]}
    modules = {module.partition(".")[0] for source in PACKAGE.rglob("*.py") for module in imported_modules(source)}
    modules -= {"lakehouse", *sys.stdlib_module_names}
    # `google` is shared by several distributions.
    distributions = {**packages_distributions(), "google": ["protobuf"]}
    imported = {distributions[module][0].lower().replace("_", "-") for module in modules}
    assert declared == imported | BY_NAME


def test_only_the_settings_and_the_crash_points_read_the_environment() -> None:
    readers = {
        source.relative_to(PACKAGE).as_posix()
        for source in PACKAGE.rglob("*.py")
        if "os.environ" in source.read_text() or "os.getenv" in source.read_text()
    }
    # The command line sets one variable, for Arrow, before anything imports it.
    assert readers <= {"catalog/crash_points.py", "cli/__init__.py"}
