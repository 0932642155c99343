from collections.abc import Iterator

import pytest

from tests.engines import engines_under_test
from tests.engines.engines_under_test import Engine
from tests.engines.shared_lake import SharedLake, shared_lake

# All tests of one engine go to one worker: one Java process each.
SPARK = pytest.param("spark", marks=[pytest.mark.spark, pytest.mark.xdist_group("spark")])
TRINO = pytest.param("trino", marks=[pytest.mark.trino, pytest.mark.xdist_group("trino")])


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedLake]:
    with shared_lake(tmp_path_factory.mktemp("lake")) as opened:
        yield opened


@pytest.fixture(scope="session", params=[SPARK, TRINO])
def engine(request: pytest.FixtureRequest, lake: SharedLake) -> Iterator[Engine]:
    with getattr(engines_under_test, request.param)(lake) as opened:
        yield opened
