"""What a finalize asks of the database: every statement is a way to the server and back, in which others wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event

from lakehouse.catalog.control_plane.database import Database
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.settings import Settings
from tests.catalog.test_metadata_tables import record_session

# Beginning and ending a transaction is one each, and so is any number of rows written with one statement.
MOST_ROUND_TRIPS = 26


@contextmanager
def round_trips(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def executed(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    def changed(name: str) -> None:
        event.listen(database.engine, name, lambda *_: seen.append(name))

    event.listen(database.engine, "before_cursor_execute", executed)
    for name in ("begin", "commit", "rollback"):
        changed(name)
    yield seen


def test_a_finalize_takes_few_round_trips_however_many_topics_it_has(tmp_path: Path, postgres_url: str) -> None:
    counts = []
    with Lakehouse.open(Settings.load(home=tmp_path, db_url=postgres_url, store_endpoint="")) as lakehouse:
        for topics in (1, 12, 2):
            lakehouse.sequences.create(f"drive-{topics}", {})
            session = record_session(lakehouse, f"drive-{topics}", *(f"t{number}" for number in range(topics)))
            with round_trips(lakehouse.database) as seen:
                lakehouse.sessions.finalize(session.uuid)
                counts.append(len(seen))
    assert counts[1] == counts[2] <= MOST_ROUND_TRIPS, "\n".join(seen)
