"""Lakes with recordings that keep or break their contracts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.contracts.judging import Judge
from tests.contracts.contract_files import contract_text, rule

GENTLE = [{"name": "acceleration", "logicalType": "object", "quality": [rule("gentle", "magnitude", max=1)]}]


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Great Expectations takes ten seconds to load: one for all tests of the process."""
    return Judge()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path / "lake", db_url="", store_endpoint="")) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Contracts of users, with one about the topic `imu` in it."""
    path = tmp_path / "lake" / "contracts"
    path.mkdir(parents=True)
    (path / "strict.yaml").write_text(contract_text("strict", topics="imu", properties=GENTLE))
    return path


@pytest.fixture
def shared(tmp_path: Path, database_url: str, folder: Path) -> Iterator[Lakehouse]:
    """A lake once with each database, and a contract that no recording of Earth's gravity keeps."""
    with Lakehouse.open(Settings.load(home=tmp_path / "lake", db_url=database_url, store_endpoint="")) as opened:
        yield opened
