"""Every SQL example of the documentation runs on the demo recording, and finds something."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from lakehouse.catalog.sql.lake_sql import LakeSql
from lakehouse.orchestration.recordings.ingest import ingest_recording

PROJECT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```sql\n(.*?)```", (PROJECT / "docs" / "sql.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakehouse]:
    settings = Settings.load(home=tmp_path_factory.mktemp("lake"), db_url="", store_endpoint="")
    with Lakehouse.open(settings) as opened:
        ingest_recording(opened, PROJECT / "demo" / "recordings" / "city_drive.mcap")
        yield opened


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_finds_something(lake: Lakehouse, example: str) -> None:
    with LakeSql(lake).opened(example) as statement:
        assert statement.batches().read_all().num_rows > 0
