"""While another process finalizes sessions, engines and the SDK see each at one instant, with all of its topics."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from tests.engines import told_by_sdk
from tests.engines.conftest import READERS
from tests.engines.engines_under_test import Engine
from tests.engines.finalizing_process import finalizing_process
from tests.engines.recordings import NOON_NS, ROWS, imu_rows
from tests.engines.shared_lake import SharedLake, fresh_name

pytestmark = pytest.mark.timeout(600)
TOPICS = 2
Look = Callable[[], set[str]]


def with_rows(engine: Engine, table: str, names: list[str]) -> set[str]:
    """Sequences that have rows in a table, which are all rows that were sent."""
    wanted = ", ".join(map(repr, names))
    found = engine.rows(f"SELECT sequence, count(*) AS n FROM {table} WHERE sequence IN ({wanted}) GROUP BY sequence")
    assert {number for _, number in found} <= {1 if table.startswith("mosaico.") else ROWS}
    return {name for name, _ in found}


def sealed(lake: SharedLake, names: list[str]) -> set[str]:
    return {name for name in names if told_by_sdk.is_sealed(lake.sdk, name)}


@pytest.mark.parametrize("place", READERS, indirect=True, scope="session")
def test_a_session_appears_in_the_engine_and_the_sdk_at_the_same_commit(
    engine: Engine, lake: SharedLake, place: tuple[str, str]
) -> None:
    paths = [fresh_name("topic") for _ in range(TOPICS)]
    topics = {path: ("IMU", imu_rows(NOON_NS, 0.0)) for path in paths}
    lake.write(fresh_name("first"), topics)
    # Whoever needs longer for a look gets fewer of them.
    names = [fresh_name("late") for _ in range(3 if engine.name in ("duckdb", "polars") else 2)]
    sessions = [lake.write(name, topics, finalize=False).uuid for name in names]
    tables = [*(f"imu.{path}" for path in paths), "mosaico.sessions"]
    looks: dict[str, Look] = {table: partial(with_rows, engine, table, names) for table in tables}
    looks["sdk"] = partial(sealed, lake, names)
    assert [look() for look in looks.values()] == [set()] * len(looks), "open sessions are nobody's business"

    seen: dict[str, set[str]] = {who: set() for who in looks}
    generator = random.Random(7)
    with finalizing_process(lake.settings, sessions) as process:
        for name in names:
            process.send("finalize")
            while not all(name in each for each in seen.values()):
                for who in generator.sample(list(looks), len(looks)):
                    before = set().union(*(each for other, each in seen.items() if is_no_later(who, other, place[1])))
                    seen[who] = looks[who]()
                    assert before <= seen[who], f"{who} does not see what others saw before"
    for name in names:
        lake.sdk.sequence_delete(name)
    assert [look() for look in looks.values()] == [set()] * len(looks)


def is_no_later(who: str, other: str, catalog: str) -> bool:
    """Whether one has to see at once what the other saw. In a REST catalog, which commits to all tables in one request,
    the SDK follows a moment later (docs/catalogs.md).
    """
    return who == other or catalog != "rest" or who != "sdk"
