from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalog.small_lake import SmallLake


@pytest.fixture
def lake(tmp_path: Path, database_url: str) -> Iterator[SmallLake]:
    with SmallLake(tmp_path, database_url) as opened:
        yield opened
