"""Lakes with recordings that keep or break their contracts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.judging import Judge


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Great Expectations takes ten seconds to load: one for all tests of the process."""
    return Judge()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path / "lake", db_url="", store_endpoint="")) as opened:
        yield opened
