"""A lake on the embedded default, and the folders of recordings that may be there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lakehouse]:
    """An empty lake."""
    opened = Lakehouse.open(Settings(home=tmp_path / "lakehouse"))
    try:
        yield opened
    finally:
        opened.close()
