"""Sessions that nobody ended: found, carried through or discarded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from lakehouse.catalog.audit import acting_as, latest_entries
from lakehouse.catalog.control_plane.schema import sessions
from lakehouse.catalog.errors import AlreadyExistsError, NotFoundError, StateError
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.locators import TopicLocator
from lakehouse.catalog.records import SessionRecord, SessionState
from lakehouse.catalog.settings import Settings
from tests.catalog.test_metadata_tables import names, record_session
from tests.warehouses import BY_DATABASE

WAREHOUSES = BY_DATABASE
LONG_AGO_S = 3600.0


@pytest.fixture
def lakehouse(tmp_path: Path, database_url: str, store: dict[str, str]) -> Iterator[Lakehouse]:
    with Lakehouse.open(Settings.load(home=tmp_path, db_url=database_url, **store)) as opened:
        yield opened


def interrupted_session(lakehouse: Lakehouse) -> SessionRecord:
    """As a process leaves it that was killed before the first of several commits."""
    lakehouse.sequences.create("drive", {})
    session = record_session(lakehouse, "drive", "a", "b")
    with lakehouse.database.transaction() as connection:
        connection.execute(update(sessions).values(state=SessionState.COMMITTING, completed_at_ns=123_456_789))
    return session


def test_an_interrupted_session_is_sealed_and_carried_through_once(lakehouse: Lakehouse) -> None:
    session = interrupted_session(lakehouse)
    (found,) = lakehouse.recovery.interrupted()
    assert (found.locator, found.state, found.completed_at_ns) == (session.locator, SessionState.COMMITTING, None)
    with pytest.raises(StateError, match="sealed"):
        lakehouse.topics.create(session.uuid, TopicLocator("drive", "c"), "default", "Floating64")
    with pytest.raises(StateError, match="only open sessions"):
        lakehouse.recovery.discard(session)
    topic = lakehouse.topics.get(TopicLocator("drive", "a"))
    assert sum(batch.num_rows for batch in lakehouse.reader.read(topic)) == 2
    lakehouse.recovery.resume(found)
    assert lakehouse.recovery.interrupted() == []
    (finalized,) = lakehouse.sequences.describe("drive").sessions
    assert (finalized.state, finalized.completed_at_ns) == (SessionState.FINALIZED, 123_456_789)
    assert names(lakehouse, "topics") == ["drive/a", "drive/b"]
    lakehouse.recovery.resume(found)
    assert names(lakehouse, "topics") == ["drive/a", "drive/b"]


def test_open_sessions_without_a_sign_of_life_are_stale(lakehouse: Lakehouse) -> None:
    lakehouse.sequences.create("drive", {})
    quiet, busy = record_session(lakehouse, "drive", "a"), record_session(lakehouse, "drive")
    assert [each.locator for each in lakehouse.recovery.stale(0)] == [quiet.locator, busy.locator]
    assert lakehouse.recovery.stale(LONG_AGO_S) == []
    with lakehouse.database.transaction() as connection:
        connection.execute(update(sessions).values(created_at_ns=0))
    # The topic of the first one has just been uploaded.
    assert [each.locator for each in lakehouse.recovery.stale(LONG_AGO_S)] == [busy.locator]
    with pytest.raises(StateError, match="nobody has begun"):
        lakehouse.recovery.resume(busy)


def test_discarding_takes_the_open_session_and_nothing_else(lakehouse: Lakehouse) -> None:
    lakehouse.sequences.create("drive", {})
    kept, doomed = record_session(lakehouse, "drive", "a"), record_session(lakehouse, "drive", "b")
    lakehouse.sessions.finalize(kept.uuid)
    with pytest.raises(StateError, match="is finalized"):
        lakehouse.recovery.discard(kept)
    with acting_as("operator", door="a door", origin="a host"):
        lakehouse.recovery.discard(doomed)
    with lakehouse.database.snapshot() as connection:
        (entry,) = latest_entries(connection, limit=5, operations=["session_delete"])
    assert (entry.resource, entry.actor) == (str(doomed.locator), "recovery, for operator")
    assert (entry.door, entry.origin) == ("a door", "a host")
    description = lakehouse.sequences.describe("drive")
    assert [each.locator for each in description.sessions] == [kept.locator]
    assert [topic.locator.path for topic in description.topics] == ["a"]
    with pytest.raises(NotFoundError):
        lakehouse.recovery.discard(doomed)
    with pytest.raises(AlreadyExistsError):
        record_session(lakehouse, "drive", "a")
