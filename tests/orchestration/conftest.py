"""A lake found through the environment, as in production, and a Dagster instance that forgets."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest


@pytest.fixture
def home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of an empty lake, once with each database."""
    return lake_home(tmp_path, database_url, monkeypatch)


@pytest.fixture
def embedded_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of an empty lake on the embedded database."""
    return lake_home(tmp_path, "", monkeypatch)


def lake_home(path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKEHOUSE_HOME", str(path))
    monkeypatch.setenv("MOSAICOD_DB_URL", database_url)
    monkeypatch.setenv("LAKEHOUSE_DROP_SETTLE_TIME", "0")
    monkeypatch.setenv("LAKEHOUSE_DAGSTER_URL", "")
    (path / "drop").mkdir()
    return path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
