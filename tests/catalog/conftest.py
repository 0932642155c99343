from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.small_lake import SmallLake
from tests.warehouses import environment


@pytest.fixture
def lake(
    tmp_path: Path, database_url: str, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmallLake]:
    # By way of the environment, so that processes which a test starts find the same storage.
    for name, value in environment(store).items():
        monkeypatch.setenv(name, value)
    with SmallLake(tmp_path, database_url) as opened:
        yield opened
